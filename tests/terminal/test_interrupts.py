"""Ctrl-C in a terminal while a cell waits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.cells import below, dedented
from tests.terminal.test_cells import TICKER

if TYPE_CHECKING:
    from tests.terminal.driver import Terminal

SAY = "print('wai' + 'ting')"
#: Said by the loop, so that whoever said it before an `await` does wait when it is seen.
SAY_SOON = "asyncio.get_running_loop().call_soon(print, 'wai' + 'ting')"
MINUTE = dedented(
    f"""
    async def minute():
        {SAY_SOON}; await asyncio.sleep(60)
    """
)
#: In slices: an interrupt that comes just before `time.sleep` makes its system call does not end that call.
#: Stock IPython loses 2 in 350 of them on a busy machine.
SLEEP = "for _ in range(600): time.sleep(0.1)"
WAITS = {
    "aloop": dedented(
        """
        %%aloop
        await minute()
        """
    ),
    "aloop on a fresh loop": dedented(
        """
        %%aloop --fresh
        await minute()
        """
    ),
    "await": "await minute()",
    "await of a gather": "await asyncio.gather(asyncio.sleep(60), minute())",
    "nested run": "asyncio.run(minute())",
    "nested run in an await cell": dedented(
        """
        await asyncio.sleep(0)
        asyncio.run(minute())
        """
    ),
    "loopnb.run": "loopnb.run(minute())",
    "plain code": dedented(
        f"""
        {SAY}
        {SLEEP}
        """
    ),
    "plain code in an await cell": dedented(
        f"""
        await asyncio.sleep(0)
        {SAY}
        {SLEEP}
        """
    ),
}


@pytest.fixture(scope="module")
def ticking(shared_terminal: Terminal) -> Terminal:
    """Have something that must live on."""
    shared_terminal.run(MINUTE)
    shared_terminal.run(below("%%aloop -b -n ticker", TICKER))
    return shared_terminal


@pytest.mark.parametrize("code", WAITS.values(), ids=WAITS)
def test_ctrl_c_ends_the_cell_and_nothing_else(ticking: Terminal, code: str) -> None:
    ticking.start(code)
    ticking.wait_for("waiting\n")

    ticking.interrupt()

    shown = ticking.wait_prompt()  # waits for far less than a minute, which what is interrupted would last
    assert "KeyboardInterrupt" in shown
    assert "CancelledError" not in shown
    assert "loopnb/" not in shown
    before = ticking.value("ticks")
    assert ticking.value(f"asyncio.run(asyncio.sleep(0.1)) or ticks > {before}") == "True"


def test_ctrl_c_shows_where_aloop_was_waiting(ticking: Terminal) -> None:
    ticking.start(
        """
        %%aloop
        await minute()
        """
    )
    ticking.wait_for("waiting\n")

    ticking.interrupt()

    assert re.search(r"Cell In\[\d+\], line \d+, in minute\(\)", ticking.wait_prompt())


def test_an_await_cell_cleans_up_before_the_prompt_returns(ticking: Terminal) -> None:
    ticking.start(
        f"""
        {SAY_SOON}
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print('=== taken for a cancellation ===')
        finally:
            await asyncio.sleep(0.1); cleaned = True
        """
    )
    ticking.wait_for("waiting\n")

    ticking.interrupt()

    shown = ticking.wait_prompt()
    assert "KeyboardInterrupt" in shown
    assert "\n=== taken" not in shown
    assert ticking.value("cleaned") == "True"


def test_ctrl_c_at_the_prompt_only_clears_the_line(ticking: Terminal) -> None:
    ticking.keys("1 / 0")
    ticking.interrupt()

    before = ticking.value("ticks")
    assert ticking.value(f"asyncio.run(asyncio.sleep(0.1)) or ticks > {before}") == "True"
    assert "ZeroDivisionError" not in ticking.screen


def test_ctrl_c_ends_the_wait_for_a_background_run_that_is_replaced(ticking: Terminal) -> None:
    ticking.run(
        """
        %%aloop -b -n stubborn
        end = asyncio.Event()
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                pass
        """
    )
    ticking.start(
        """
        %%aloop -b -n stubborn
        await asyncio.sleep(60)
        """
    )
    ticking.wait_for("waiting for the earlier run")

    ticking.interrupt()

    assert "the new one was not started" in ticking.wait_prompt()
    assert ticking.value("end.set() or asyncio.run(asyncio.sleep(0.01, 'goes on'))") == "'goes on'"


def test_ctrl_c_calls_no_handler_that_an_earlier_cell_has_added(ticking: Terminal) -> None:
    ticking.run(
        """
        import asyncio, signal
        def bye(): raise SystemExit('bye')
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, bye)
        await asyncio.sleep(0)
        """
    )
    ticking.start("await minute()")
    ticking.wait_for("waiting\n")

    ticking.interrupt()

    assert "KeyboardInterrupt" in ticking.wait_prompt()
    ticking.keys("1 / 0")
    ticking.interrupt()
    assert ticking.value("signal.getsignal(signal.SIGINT) is signal.default_int_handler") == "True"
