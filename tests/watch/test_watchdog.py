"""When the watchdog's thread lives and sleeps, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.watch._cpython import has_handlers
from loopnb.watch.looking import Look
from loopnb.watch.watchdog import INTERVAL_S, Watchdog
from tests.processes import run_script
from tests.watch.conftest import BLOCKED_AFTER, Watched, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from loopnb.watch.judging import Step


def is_alive() -> bool:
    """Return True if a watchdog's thread lives."""
    return any(thread.name == "loopnb watchdog" for thread in threading.enumerate())


def test_0_seconds_end_the_thread_and_more_start_it_again(watched: Watched) -> None:
    callbacks = list(gc.callbacks)

    async def main() -> None:
        for _ in range(2):
            assert is_alive()
            watched.watch.set_blocked_after(0)
            assert not is_alive()
            assert gc.callbacks == callbacks
            watched.watch.set_blocked_after(BLOCKED_AFTER)
            assert gc.callbacks[:-2] == callbacks  # one notes when a collection begins, one when it ends

    watched.run(main())

    assert not is_alive()
    assert gc.callbacks == callbacks


class OnePass:
    """Stands for a loop that answers a marker and blocks in the same pass, and for who asks and is told.

    The answer comes 20 s after the first marker, and the second marker 5 s after that.

    Args:
        pass_began_s: When the pass began, in seconds after the marker was posted.
    """

    def __init__(self, pass_began_s: float) -> None:
        self._pass_began_s = pass_began_s
        self.can_hold = False
        self.now = 1_000.0
        self.markers: list[float] = []
        self.pass_began = 0.0
        self.looks = 0
        self.began: list[float] = []
        self.is_over = threading.Event()

    def call_soon_threadsafe(self, callback: Callable[[], None], **_options: Any) -> None:
        """Answer the first marker at once. The second waits until the block was seen three times."""
        self.markers.append(self.now)
        self._answer = callback
        if len(self.markers) == 1:
            self.pass_began = self.now + self._pass_began_s
            self.now += 20.0
            callback()

    def look(self) -> Look:
        """Find the step that blocks."""
        self.looks += 1
        if self.looks == 3:
            self._answer()
        return Look("step", ("step",), self.pass_began)

    def answered(self, _late_s: float, _now: float) -> None:
        """Let time pass until the next marker."""
        self.now += 5.0

    def step_ended(self, step: Step, _messages: bool) -> None:
        """Note when it began."""
        self.began.append(step.began)
        self.is_over.set()

    def is_busy(self) -> bool:
        """Return True."""
        return True

    def has_messages(self) -> bool:
        """Return False."""
        return False

    def nothing(self, *_given: Any) -> None:
        """Do nothing."""

    still_late = stands_still = turns_again = unseen = looked = expect = nothing


@pytest.mark.parametrize("pass_began_s", [10.0, -10.0])
def test_a_block_in_the_pass_that_has_answered_counts_from_the_answer(pass_began_s: float) -> None:
    stage: Any = OnePass(pass_began_s)
    watchdog = Watchdog(stage, stage, threading.get_ident(), stage, stage, lambda: stage.now)
    watchdog.start()
    assert stage.is_over.wait(20)
    watchdog.stop()

    assert watchdog.fault is None
    posted, posted_again = stage.markers[:2]
    # A pass that is older than the marker was parked meanwhile. When it was resumed is not known.
    assert stage.began[0] == (posted + 20.0 if pass_began_s > 0 else posted_again)


def test_a_change_of_the_threshold_holds_from_then_on(watched: Watched) -> None:
    def block() -> None:
        time.sleep(2 * BLOCKED_AFTER)

    async def main() -> None:
        watched.watch.set_blocked_after(1_000.0)
        before = watched.watch.pace().total.count
        block()
        await until(lambda: watched.watch.pace().total.count >= before + 2)
        assert watched.blocks_in("block") == []
        watched.watch.set_blocked_after(BLOCKED_AFTER)
        watched.block_until_seen()
        await watched.last_block()

    watched.run(main())


def count_markers(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list that gets the time of each marker."""
    posted: list[float] = []
    stock = watched.loop.call_soon_threadsafe

    def call_soon_threadsafe(*args: Any, **options: Any) -> Any:
        posted.append(time.monotonic())
        return stock(*args, **options)

    monkeypatch.setattr(watched.loop, "call_soon_threadsafe", call_soon_threadsafe)
    return posted


def test_it_sleeps_while_nothing_of_the_users_can_run_and_wakes_before_a_cell(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched.tracker, "is_kernels_own", lambda _task: True)
    posted = count_markers(watched, monkeypatch)

    async def main() -> None:
        await until(lambda: len(posted) == 1)
        await asyncio.sleep(4 * INTERVAL_S)  # nothing happens, which cannot be waited for
        assert len(posted) == 1
        watched.watch.wake()
        await until(lambda: len(posted) == 2)

    watched.run(main())


def test_it_is_awake_while_a_task_of_the_users_lives(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted = count_markers(watched, monkeypatch)

    async def main() -> None:
        await until(lambda: len(posted) >= 8)

    watched.run(main())

    # The marker comes every quarter of a second; on a busy machine less often, but never more often. There, a
    # time may also be noted late.
    assert posted[7] - posted[1] >= 4 * INTERVAL_S


@pytest.mark.parametrize("kind", ["timer", "reader"])
def test_it_is_awake_while_the_users_code_may_be_called(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(watched.tracker, "is_kernels_own", lambda _task: True)
    posted = count_markers(watched, monkeypatch)

    async def main() -> None:
        if kind == "timer":
            handle = watched.loop.call_later(1_000, lambda: None)
            watched.watch.wake()  # as a cell does
            await until(lambda: len(posted) >= 4)
            handle.cancel()
        else:
            server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
            watched.watch.wake()
            await until(lambda: len(posted) >= 4)
            server.close()

    watched.run(main())


def test_nothing_of_the_users_is_kept_alive(watched: Watched) -> None:
    class Thing:
        """Stands for a large array."""

    things: list[weakref.ref[Thing]] = []

    async def hog() -> None:
        thing = Thing()
        things.append(weakref.ref(thing))
        watched.block_until_seen()

    async def main() -> None:
        await asyncio.create_task(hog())
        await watched.last_block()
        assert things[0]() is None

    watched.run(main())


def test_an_error_of_its_own_ends_it_and_is_told(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> bool:
        raise ValueError("a fault of ours")

    async def main() -> None:
        await until(lambda: watched.watch.fault is not None)

    monkeypatch.setattr(watched.watch, "is_busy", fail)
    with pytest.raises(AssertionError):  # `run` finds the fault
        watched.run(main())

    assert watched.watch.fault is None
    assert "no longer watches" in caplog.text


def test_a_closed_loop_lets_it_sleep() -> None:
    watched = Watched()
    with watched.runner:
        watched.watch.set_blocked_after(BLOCKED_AFTER)
    watched.watch.wake()

    assert watched.watch.is_on
    watched.watch.stop()


SCRIPT = dedent(
    """
    import asyncio, os, sys, threading, time
    from tests.watch.conftest import Watched
    watched = Watched()
    async def main():
        await asyncio.sleep(0.05)
    watched.tracker.install()
    watched.watch.set_blocked_after(0.1)
    watched.runner.run(main())
    """
)


def test_it_does_not_delay_the_end_of_the_process() -> None:
    result = run_script(SCRIPT)

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork here")
def test_a_forked_child_has_no_watchdog_and_can_unload() -> None:
    code = SCRIPT + dedent(
        """
        child = os.fork()
        if not child:
            assert not any("watchdog" in thread.name for thread in threading.enumerate())
            assert abs(sys.getswitchinterval() - 0.005) < 1e-9
            watched.watch.wake()
            watched.watch.stop()
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        watched.watch.stop()
        sys.exit(code)
        """
    )
    command = [sys.executable, "-W", "ignore", "-c", code]

    assert subprocess.run(command, timeout=50, check=False).returncode == 0


def test_a_thread_in_a_greenlet_of_the_users_is_looked_at_too(watched: Watched) -> None:
    greenlet = pytest.importorskip("greenlet")

    async def hog() -> None:
        greenlet.greenlet(watched.block_until_seen).switch()

    async def main() -> Any:
        await asyncio.create_task(hog(), name="hog")
        return await watched.last_block()

    block = watched.run(main())

    assert (block.by, block.how) == ("task", "sleep")


class Mischief:
    """A callable of the user's, each attribute of which is another."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self) -> None:
        """Do nothing."""

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        return self


def test_it_runs_no_code_of_the_users(watched: Watched) -> None:
    mischief = Mischief()

    async def main() -> None:
        later = watched.loop.call_later(1_000, mischief)
        assert has_handlers(watched.loop)
        watched.loop.call_soon(watched.block_until_seen)
        watched.loop.call_soon(mischief)
        await watched.last_block()
        later.cancel()

    watched.run(main())

    assert mischief.asked == []
