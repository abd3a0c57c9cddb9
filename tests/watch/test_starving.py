"""A watchdog that the loop's thread keeps from the GIL, as on a machine that wakes threads slowly."""

from __future__ import annotations

import os
import threading
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.watch import _cpython
from loopnb.watch.looking import Look
from loopnb.watch.passes import Passes
from loopnb.watch.watchdog import Watchdog
from tests.processes import run_script

if TYPE_CHECKING:
    from collections.abc import Callable

# One CPU, and no thread that wakes up takes it from the one that runs.
SLOW_MACHINE = dedent(
    """
    import asyncio, os, sys, time
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    from tests.watch.conftest import Watched, until

    async def burn(seconds):
        while True:
            began = time.thread_time()
            while time.thread_time() - began < seconds:
                pass
            await asyncio.sleep(0)

    watched, stock = Watched(), sys.getswitchinterval()

    async def main():
        tasks = [asyncio.create_task(burn(seconds)) for seconds in (0.0003, 0.00015, 0.00005)]
        await is_seen()
        for task in tasks:
            task.cancel()

    """
)


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="threads wake up as this system likes")
@pytest.mark.parametrize("is_watched", [True, False])
def test_short_steps_do_not_keep_it_from_looking(is_watched: bool) -> None:
    wait = """
        watched.watch.watch_busy("test")
        await until(lambda: watched.watch.busy().looks >= 60, patience_s=40)
        watched.watch.unwatch_busy("test")
        """
    if not is_watched:
        wait = """
        def has_seen():
            shares = watched.watch.pace().shares
            return shares is not None and shares.seconds >= 2.5

        await until(has_seen, patience_s=40)
        """
    run = "watched.run(main())\nassert sys.getswitchinterval() == stock\n"
    result = run_script(f"{SLOW_MACHINE}async def is_seen():{wait}\n{run}")

    assert (result.returncode, result.stderr) == (0, "")


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Stage:
    """Stands for a loop, for its passes, for who looks at it and for who is told.

    The caller gets the GIL half a second late each time.

    Args:
        clock: The time.
        began_s: The pass that each look finds began so many seconds ago.
    """

    def __init__(self, clock: Clock, began_s: float) -> None:
        self._clock = clock
        self._began_s = began_s
        self.lags: list[float] = []
        self.blocks: list[float] = []
        self.is_enough = threading.Event()

    def call_soon_threadsafe(self, callback: Callable[[], None], **_options: Any) -> None:
        """Call it at once."""
        callback()

    def hold_from(self, due: float) -> None:
        """Let time pass."""
        self._clock.now = due + 0.5

    def hold_no_more(self) -> None:
        """Do nothing."""

    def look(self) -> Look:
        """Find the loop between two steps."""
        return Look("select", pass_began=self._clock.now - self._began_s)

    def is_busy(self) -> bool:
        """Return True."""
        return True

    def has_messages(self) -> bool:
        """Return False."""
        return False

    def unseen(self, began: float, until: float) -> None:
        """Note how long it was, if anything."""
        if until > began:
            self.blocks.append(until - began)
            self.is_enough.set()

    def answered(self, late_s: float, _now: float) -> None:
        """Note how late it was."""
        self.lags.append(late_s)

    def looked(self, *_look: Any) -> None:
        """Do nothing."""


@pytest.mark.parametrize(("began_s", "lasted_s"), [(0.001, 0.001), (100.0, 0.5)])
def test_a_late_wake_up_is_a_block_only_if_the_pass_is_as_old(
    monkeypatch: pytest.MonkeyPatch, began_s: float, lasted_s: float
) -> None:
    clock = Clock()
    monkeypatch.setattr(_cpython, "cpu_clock", lambda _thread_id: clock)  # the loop's thread never waits
    stage: Any = Stage(clock, began_s)
    watchdog = Watchdog(stage, stage, threading.get_ident(), stage, stage, clock)
    watchdog.start()
    assert stage.is_enough.wait(20)
    watchdog.stop()

    assert watchdog.fault is None
    assert stage.blocks[0] == pytest.approx(lasted_s)
    assert max(stage.lags) == pytest.approx(lasted_s)


def test_while_it_waits_for_the_gil_busy_passes_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Selector:
        """Notes its calls."""

        def __init__(self) -> None:
            self.calls: list[float | None] = []

        def select(self, timeout: float | None = None) -> list[object]:
            """Note *timeout*."""
            self.calls.append(timeout)
            return [timeout]

    class Loop:
        """Has a selector."""

        def __init__(self) -> None:
            self._selector = Selector()

    clock, loop = Clock(), Loop()
    monkeypatch.setattr("loopnb.watch.passes.time.monotonic", clock)
    selector = loop._selector
    passes = Passes(loop)  # type: ignore[arg-type]  # all that it needs
    passes.start()
    passes.hold_from(clock.now + 1.0)

    assert selector.select(0) == [0]
    clock.now += 1.05
    assert selector.select(0) == []
    assert selector.select(None) == [None]
    assert selector.select(3.0) == [3.0]
    clock.now += 0.06  # a thread that waits for so long has given up
    assert selector.select(0) == [0]
    passes.hold_from(clock.now)
    assert selector.select(0) == []
    passes.hold_no_more()
    assert selector.select(0) == [0]
    passes.stop()
    assert vars(selector) == {"calls": [0, None, 3.0, 0, 0]}
