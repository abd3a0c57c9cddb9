"""A watchdog that the loop's thread keeps from the GIL, as on a machine that wakes threads slowly."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
import time
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.watch import _cpython
from loopnb.watch.looking import Look
from loopnb.watch.passes import Passes
from loopnb.watch.watchdog import Watchdog
from tests.processes import run_script
from tests.watch.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.watch.conftest import Watched

BUSY = dedent(
    """
    import asyncio, sys, time
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


MACHINES = {
    "stock": "",
    "one CPU, and no thread that wakes up takes it from the one that runs": """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
""",
    "timers end up to 10 ms late": """
import ctypes
PR_SET_TIMERSLACK = 29
assert ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 10_000_000, 0, 0, 0) == 0
""",
}


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="threads wake up as this system likes")
@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("is_watched", [True, False])
def test_short_steps_do_not_keep_it_from_looking(is_watched: bool, machine: str) -> None:
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
    result = run_script(f"{machine}{BUSY}async def is_seen():{wait}\n{run}")

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
        self.can_hold = True
        self.lags: list[float] = []
        self.blocks: list[float] = []
        self.is_enough = threading.Event()

    def call_soon_threadsafe(self, callback: Callable[[], None], **_options: Any) -> None:
        """Call it at once."""
        callback()

    def expect(self, due: float) -> None:
        """Let time pass."""
        if due != math.inf:
            self._clock.now = due + 0.5

    def hold_if_overdue(self) -> float:
        """Do nothing."""
        return 0.0

    def is_closed(self) -> bool:
        """Return False."""
        return False

    def call_later(self, *_call: Any, **_options: Any) -> Any:
        """Never call it."""
        return self

    def cancel(self) -> None:
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
    stock = vars(selector).copy()
    passes = Passes(loop)  # type: ignore[arg-type]  # all that it needs
    passes.expect(clock.now + 1.0)
    assert passes.hold_if_overdue() == 1.0
    assert vars(selector) == stock

    clock.now += 1.05
    assert passes.hold_if_overdue() < 0.0
    assert selector.select(0) == []
    assert selector.select(None) == [None]
    assert selector.select(3.0) == [3.0]
    clock.now += 0.06  # by now, what is ready to be read has waited for long
    assert selector.select(0) == [0]
    clock.now += 0.1  # but the thread still wants the GIL
    assert selector.select(0) == []
    passes.expect(clock.now + 0.02)  # it has had the GIL
    assert vars(selector) != stock
    assert selector.select(0) == [0]
    assert vars(selector) == {"calls": [None, 3.0, 0, 0]}


def test_passes_are_left_alone_if_nobody_wants_the_gil_any_more(watched: Watched) -> None:
    selector = watched.loop._selector  # type: ignore[attr-defined]  # what is patched
    stock = vars(selector).copy()
    passes = Passes(watched.loop)
    passes.expect(0.0)
    assert passes.hold_if_overdue() < 0.0
    assert vars(selector) != stock
    passes.expect(math.inf)

    async def main() -> None:
        await asyncio.sleep(0)
        assert vars(selector) == stock

    watched.runner.run(main())  # without a watchdog, which might be overdue, too


def test_the_timer_goes_with_the_watching(watched: Watched) -> None:
    loop: Any = watched.loop

    def ours() -> list[Any]:
        callbacks = [getattr(timer._callback, "__self__", None) for timer in loop._scheduled]
        return [owner for owner in callbacks if isinstance(owner, Watchdog)]

    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        await until(lambda: bool(ours()))
        assert len(ours()) == 1
        assert _cpython.kept_waiting(loop, loop.time() + 3600).timers == 1  # that of `sleep`
        watched.watch.stop()
        assert not ours()
        task.cancel()

    watched.run(main())


def block_until(is_true: Callable[[], bool]) -> None:
    """Block the loop until *is_true* returns True."""
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def watchdogs_in(handles: Any) -> list[Watchdog]:
    """Return the watchdogs that these handles or timers, if they are not cancelled, call."""
    # The watchdog's thread may add to them meanwhile.
    found = [handle for handle in list(handles) if not handle._cancelled]
    owners = [getattr(handle._callback, "__self__", None) for handle in found]
    return [owner for owner in owners if isinstance(owner, Watchdog)]


def test_an_answer_after_the_end_leaves_the_passes_alone(watched: Watched) -> None:
    loop: Any = watched.loop

    async def main() -> None:
        block_until(lambda: bool(watchdogs_in(loop._ready)))  # a marker is not answered
        watched.watch.stop()
        await asyncio.sleep(0)

        assert not watchdogs_in(loop._ready)
        assert not watchdogs_in(loop._scheduled)

    watched.run(main())


def test_the_end_of_the_thread_leaves_the_passes_alone(watched: Watched) -> None:
    loop: Any = watched.loop
    stock = vars(loop._selector).copy()
    stage: Any = Stage(Clock(), 0.001)

    def fail() -> Look:
        raise ValueError

    stage.look = fail
    passes = Passes(loop)
    watchdog = Watchdog(loop, stage, threading.get_ident(), stage, passes)

    async def main() -> None:
        watchdog.start()
        block_until(lambda: watchdog.fault is not None)  # a marker is late, so the thread looks
        watchdog.stop()
        passes.hold_if_overdue()
        await asyncio.sleep(0)

        assert vars(loop._selector) == stock

    watched.run(main())


class _Refuses(type):
    """A metaclass that fails the test if one of its classes is asked for anything."""

    def __getattribute__(cls, name: str) -> Any:
        pytest.fail(f"asked for {name}")


def test_a_thousand_timers_of_any_kind_are_asked_for_their_owner_in_few_calls() -> None:
    calls = 0

    class Odd(metaclass=_Refuses):
        def __call__(self) -> None: ...

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        for callback in (runner.close, loop.create_future().done, object.__new__(Odd), print) * 250:
            loop.call_later(0.0, callback)
        sys.setprofile(count)
        kept = _cpython.kept_waiting(loop, loop.time() + 1.0)
        sys.setprofile(None)
        loop._scheduled.clear()  # type: ignore[attr-defined]  # none is to run

    assert kept.timers == 1_000
    assert calls < 6 * 1_000
