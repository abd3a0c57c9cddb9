"""How the commands of `%loopnb` read what stands behind them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import pytest
from IPython.core.error import UsageError

from loopnb.magics.commands import PARSER, LoopMagics, Selection, select

if TYPE_CHECKING:
    from tests.magics.conftest import Shell

NOTHING = cast("Any", None)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "nonsense"),
        ("status more", "takes nothing more"),
        ("show more", "takes nothing more"),
        ("tasks more", "takes nothing more"),
        ("cancel", "which task"),
        ("cancel --all ticker", "which task"),
        ("cancel --cell=x", "takes the N of In[N]"),
        ("where", "which task"),
    ],
)
def test_bad_input_is_told_before_anything_is_looked_at(shell: Shell, line: str, says: str) -> None:
    magics: Any = LoopMagics(shell, NOTHING, NOTHING, NOTHING)

    with pytest.raises(UsageError) as caught:
        magics.loopnb(line)

    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("rest", "flags", "cell", "words"),
    [
        ("", set(), None, []),
        ("--all", {"--all"}, None, []),
        ("--all --finished", {"--all", "--finished"}, None, []),
        ("--cell 3", set(), 3, []),
        ("--cell=3 --all", {"--all"}, 3, []),
        ("--cell 3 --cell 4", set(), 4, []),
        ("my task", set(), None, ["my", "task"]),
        ("--all task", {"--all"}, None, ["task"]),
        ("task --all", set(), None, ["task", "--all"]),
    ],
)
def test_flags_come_before_words(rest: str, flags: set[str], cell: int | None, words: list[str]) -> None:
    assert select("tasks", rest, "--all", "--finished") == Selection(flags, cell, words)


@pytest.mark.parametrize("rest", ["--cell", "--cell x", "--cell=", "--cell -1", "--cell --all", "--cell 1.5"])
def test_a_cell_is_a_number(rest: str) -> None:
    with pytest.raises(UsageError, match=re.escape("%loopnb tasks: --cell takes the N of In[N]")):
        select("tasks", rest, "--all")


def test_an_unknown_option_is_told_which_ones_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        select("cancel", "--finished", "--all")

    assert "'--finished'" in str(caught.value)
    assert "--all, --cell N" in str(caught.value)


def test_the_help_of_the_magic_lists_every_option_of_the_parser() -> None:
    options = {option for action in PARSER._actions for option in action.option_strings}

    assert {"-b", "--background", "--fresh", "--keep", "--replace"} < options
    assert LoopMagics.aloop.__doc__ is not None
    assert all(option in LoopMagics.aloop.__doc__ for option in options)
