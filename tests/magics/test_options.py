"""The line of `%%aloop`: its options, and the code behind them."""

from __future__ import annotations

from typing import Any

import pytest
from IPython.core.error import UsageError

from loopnb.magics.commands import LoopMagics
from loopnb.magics.options import AloopOptions, parse, split_line

ALOOP: Any = LoopMagics.aloop  # `magic_arguments` gives it a parser


@pytest.mark.parametrize(
    ("line", "options", "code"),
    [
        ("", [], ""),
        ("asyncio.sleep(0.01, 'line')", [], "asyncio.sleep(0.01, 'line')"),
        ("await asyncio.sleep(0)", [], "await asyncio.sleep(0)"),
        ("-n named f(lambda n: n -1)", ["-n", "named"], "f(lambda n: n -1)"),
        ('g("a  b", x) -n', [], 'g("a  b", x) -n'),
        ("-t 5 --name 'two words' asyncio.sleep(0)", ["-t", "5", "--name", "two words"], "asyncio.sleep(0)"),
        ("--name='two words' f()", ["--name=two words"], "f()"),
        ("-n 'two words' f()", ["-n", "two words"], "f()"),
        ("-bn 'two words' f()", ["-bn", "two words"], "f()"),
        ("-b -o handle", ["-b", "-o", "handle"], ""),
        ("-n only", ["-n", "only"], ""),
        ("-x", ["-x"], ""),
        ("- 1", [], "- 1"),
    ],
)
def test_what_stands_behind_the_options_is_left_as_typed(line: str, options: list[str], code: str) -> None:
    assert split_line(line) == (options, code)


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("", AloopOptions(None, False, None, None)),
        ("--name='two words'", AloopOptions("two words", False, None, None)),
        ("-n 'two words'", AloopOptions("two words", False, None, None)),
        ("-bn 'two words'", AloopOptions("two words", True, None, None)),
        ("-t 2.5 -o value", AloopOptions(None, False, 2.5, "value")),
        ("-b --keep", AloopOptions(None, True, None, None, keeps=True)),
        ("-b -n a --replace", AloopOptions("a", True, None, None, replaces=True)),
        ("--fresh", AloopOptions(None, False, None, None, is_fresh=True)),
    ],
)
def test_options_are_read(line: str, options: AloopOptions) -> None:
    assert parse(ALOOP.parser, split_line(line)[0]) == options


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("-x", "-x. '%aloop?' lists the options"),
        ("-n ''", "yours is empty"),
        ("-t -1", "seconds above 0"),
        ("-t soon", "seconds above 0"),
        ("-t inf", "seconds above 0"),
        ("-o not-a-name", "name of a variable"),
        ("-o class", "name of a variable"),
        ("--keep", "add -b"),
        ("--replace", "add -b"),
        ("-b --keep --replace", "Choose one"),
        ("-b --replace", "add -n NAME"),
        ("--fresh -b", "Leave out -b"),
    ],
)
def test_what_makes_no_sense_is_told(line: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(ALOOP.parser, split_line(line)[0])

    assert says in str(caught.value)


@pytest.mark.parametrize("option", ["--name", "--background", "--timeout", "--out", "--fresh"])
def test_the_help_lists_the_options(option: str) -> None:
    assert option in ALOOP.__doc__
