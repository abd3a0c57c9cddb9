"""Code for `%time` and its kin: `await` becomes a call, and nothing else changes."""

from __future__ import annotations

import pytest

from loopnb.magics import timers
from loopnb.magics.timers import without_await, without_await_in_line


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give what stands for `await` a short name."""
    monkeypatch.setattr(timers, "_WAIT", "_loopnb_wait")


@pytest.mark.parametrize(
    ("code", "plain"),
    [
        ("f()", "f()"),
        ("await f()", "_loopnb_wait( f())"),
        ("x = await f() + await (g())", "x = _loopnb_wait( f()) + _loopnb_wait( (g()))"),
        ("await f(await g())", "_loopnb_wait( f(_loopnb_wait( g())))"),
        ("await(await f())", "_loopnb_wait((_loopnb_wait( f())))"),
        ("'ä', await f('ö')", "'ä', _loopnb_wait( f('ö'))"),
        (
            "for i in range(3):\n    await f(\n        i)\n",
            "for i in range(3):\n    _loopnb_wait( f(\n        i))\n",
        ),
        ("[await f(x) for x in y]", "[_loopnb_wait( f(x)) for x in y]"),
        ("async def f():\n    await g()\n", "async def f():\n    await g()\n"),
        ("'await f()'", "'await f()'"),
        ("await f(", "await f("),
    ],
)
def test_each_await_becomes_a_call(code: str, plain: str) -> None:
    assert without_await(code) == plain


@pytest.mark.parametrize("options", ["", "-n 10 ", "-n10 -r 3 ", "-q -o ", "-l 5 -s cumulative "])
def test_options_before_the_statement_are_left_alone(options: str) -> None:
    assert without_await_in_line(f"{options}x = await f()") == f"{options}x = _loopnb_wait( f())"


def test_ipythons_own_syntax_is_made_python_first() -> None:
    assert (
        without_await("!ls\nawait f()", lambda code: code.replace("!ls", "ls()"))
        == "ls()\n_loopnb_wait( f())"
    )
