"""How the commands of `%loopnb` read what stands behind them."""

from __future__ import annotations

import re

import pytest
from IPython.core.error import UsageError

from loopnb.magics.commands import PARSER, LoopMagics, Selection, select


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
