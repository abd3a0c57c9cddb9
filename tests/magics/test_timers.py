"""Code for `%time` and its kin: `await` becomes a call, and nothing else changes."""

from __future__ import annotations

import pytest

from loopnb.magics import timers
from loopnb.magics.timers import without_await, without_await_in_line


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give what stands for `await` a short name."""
    monkeypatch.setattr(timers, "_WAIT", "_loopnb_wait")
    monkeypatch.setattr(timers, "_RUN", "_loopnb_run")


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
        (
            "async with f() as x:\n    y = await x\nz\n",
            "_loopnb_run('async with f() as x:\\n    y = await x', 1, 'exec')\n\nz\n",
        ),
        (
            "if x:\n    async for y in z: pass\n",
            "_loopnb_run('if x:\\n    async for y in z: pass', 1, 'exec')\n\n",
        ),
        (
            "'ä'; [x async for x in y]; await z",
            "'ä'; _loopnb_run('[x async for x in y]', 1, 'eval'); _loopnb_wait( z)",
        ),
        (
            "x = await f(); y = [x async for x in y]  # z",
            "x = _loopnb_wait( f()); _loopnb_run('y = [x async for x in y]', 1, 'exec')  # z",
        ),
        ("async def f():\n    async with g(): pass\n", "async def f():\n    async with g(): pass\n"),
        (
            "x = f'{await f()}'; await g()",
            "_loopnb_run(\"x = f'{await f()}'\", 1, 'exec'); _loopnb_wait( g())",
        ),
        ("await g(f'{x}')", "_loopnb_wait( g(f'{x}'))"),
    ],
)
def test_each_await_becomes_a_call(code: str, plain: str) -> None:
    assert without_await(code) == plain


def test_a_function_is_given_the_statements_as_one() -> None:
    code = "x = 1\nasync with f(): await g()\nx\n"

    assert without_await(code, is_one=True) == f"_loopnb_run({code.rstrip()!r}, 1, 'exec')\n\n\n"


def test_the_value_of_an_option_is_no_statement() -> None:
    assert (
        without_await_in_line("-n 10 [x async for x in y]")
        == "-n 10 _loopnb_run('[x async for x in y]', 1, 'eval')"
    )


@pytest.mark.parametrize("options", ["", "-n 10 ", "-n10 -r 3 ", "-q -o ", "-l 5 -s cumulative "])
def test_options_before_the_statement_are_left_alone(options: str) -> None:
    assert without_await_in_line(f"{options}x = await f()") == f"{options}x = _loopnb_wait( f())"


def test_ipythons_own_syntax_is_made_python_first() -> None:
    assert (
        without_await("!ls\nawait f()", lambda code: code.replace("!ls", "ls()"))
        == "ls()\n_loopnb_wait( f())"
    )
