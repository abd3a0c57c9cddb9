"""Nesting comes and goes in one thread while others run, begin and close loops of their own."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from loopnb import nesting
from loopnb.nesting import scope
from loopnb.nesting.engine import Handoff
from loopnb.patching import Patch
from tests.nesting.test_scope_removal import picture

if TYPE_CHECKING:
    from collections.abc import Callable


def in_thread(call: Callable[[], Any], seconds: float | None = None) -> threading.Thread:
    """Run *call* in a thread until it has ended, or for so many seconds."""
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(seconds)
    return thread


def traced(call: Callable[[], Any], seen: Callable[[Any], None]) -> None:
    """Make *call*, and call *seen* with the frame before each line of Python."""

    def trace(frame: Any, event: str, _argument: object) -> Any:
        if event == "line":
            seen(frame)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("change", [lambda: nesting.apply(order="lifo"), nesting.remove])
def test_other_threads_begin_loops_in_the_middle_of_it(change: Callable[[], None]) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    def begin_one(frame: Any) -> None:
        if frame.f_globals is vars(sys.modules["weakref"]) and len(loops) < 50:
            loops.append(asyncio.new_event_loop())
            in_thread(lambda: loops[-1].run_until_complete(asyncio.sleep(0)))

    kept = asyncio.new_event_loop()
    kept.run_until_complete(asyncio.sleep(0))
    traced(change, begin_one)

    assert loops
    assert scope.wants_lifo() == scope.is_wanted()
    for loop in [kept, *loops]:
        loop.close()


@pytest.mark.parametrize("line", [1, 2, 3])
def test_another_thread_closes_its_loop_in_the_middle_of_the_removal(line: int) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: (loop.run_forever(), loop.close()))
    is_running = threading.Event()
    nested_code = asyncio.run.__code__
    loop.call_soon(is_running.set)
    thread.start()
    assert is_running.wait(10)
    seen: list[Any] = []

    def close(frame: Any) -> None:
        if frame.f_code is Handoff.remove.__code__:
            seen.append(frame.f_lineno)
            if len(seen) == line:
                loop.call_soon_threadsafe(loop.stop)
                thread.join()

    traced(nesting.remove, close)

    assert len(seen) >= line
    assert asyncio.run.__code__ is not nested_code  # and what comes last is taken back, too


def test_applied_in_two_threads_at_once_it_is_taken_back() -> None:
    nesting.remove()
    before = picture()
    threads: list[threading.Thread] = []
    lines: list[int] = []

    def apply_there(frame: Any) -> None:
        if frame.f_code is Patch.install.__code__:
            lines.append(frame.f_lineno)
            if len(lines) == 2:  # it was not installed a moment ago
                threads.append(in_thread(nesting.apply, 0.2))  # it may have to wait until we are ready

    traced(nesting.apply, apply_there)
    threads[0].join()
    nesting.remove()

    assert picture() == before
