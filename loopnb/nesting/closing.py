"""The end of parked stacks whose loop runs no more: its `close()`, or the interpreter's end."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from loopnb.errors import NestingError
from loopnb.nesting import scope
from loopnb.nesting._cpython import set_stopping

if TYPE_CHECKING:
    from loopnb.nesting.engine import Handoff

#: Seconds that cleanup may take before a wait is ended whatever it waits for.
_GRACE = 2.0
#: Seconds that it may take after that, at the interpreter's end.
_LAST_GRACE = 0.5


def end_waits(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is parked on *loop*, and run the loop until nothing is. The loop's thread.

    A stack that is merely dropped would never be unwound: its `finally` blocks would not run.

    Raises:
        NestingError: The stacks are parked in another thread.
    """
    engine = _cancel_waits(loop)
    if engine is None:
        return
    engine.is_closing = True
    try:
        while engine.waits:
            # Whoever has suppressed the cancellation cannot nest again, so this comes to an end.
            engine.lot.end_all(lambda wait: wait.end(asyncio.CancelledError()), lambda _wait: True)
            _run(loop, loop.create_task(asyncio.sleep(0)))
    finally:
        engine.is_closing = False


def _cancel_waits(loop: asyncio.AbstractEventLoop) -> Handoff | None:
    """Cancel the tasks that are parked on *loop*, and return its engine if some still are."""
    engine = scope.engine_of(loop)
    if engine is None or not engine.waits:
        return None
    engine.check_thread()
    tasks = [wait.task for wait in engine.waits if wait.task is not None]
    for task in tasks:
        task.cancel()
    if tasks:
        _run(loop, loop.create_task(_wait(tasks, _GRACE)))
    return engine if engine.waits else None


async def _wait(tasks: list[asyncio.Task[Any]], timeout: float) -> None:
    await asyncio.wait(tasks, timeout=timeout)


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    """Run *loop* until *task* is done, also when a `stop()` that came too late is still queued there."""
    # Not `loop.stop()`: a guard that stands before it would take this for a cell's call and ignore it.
    task.add_done_callback(lambda _task: set_stopping(loop, True))
    while not task.done():
        loop.run_forever()


@atexit.register
def _end_all_waits() -> None:
    for loop in scope.known_loops():
        with contextlib.suppress(NestingError):  # its thread is gone: nobody can resume them
            _end_waits_at_exit(loop)


class _Ender:
    """Lives as long as the thread that has it, and ends then what is parked on its loops: no other can."""

    def __init__(self) -> None:
        self.loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

    def __del__(self) -> None:
        _ending.add(threading.get_ident())
        try:
            for loop in list(self.loops):
                with contextlib.suppress(NestingError):  # it has moved on to another thread
                    _end_waits_at_exit(loop)
        finally:
            _ending.discard(threading.get_ident())


_here = threading.local()
_ending: set[int] = set()


def end_with_thread(loop: asyncio.AbstractEventLoop) -> None:
    """Have what is parked on *loop* when the calling thread ends ended in order. In the main one: at exit."""
    this = threading.get_ident()  # not `current_thread()`: the thread may have ended for that module
    if this == threading.main_thread().ident or this in _ending:
        return
    if not hasattr(_here, "ender"):
        _here.ender = _Ender()
    _here.ender.loops.add(loop)


def _end_waits_at_exit(loop: asyncio.AbstractEventLoop) -> None:
    """Do as `end_waits` does, but leave parked who nests again: refused, it might go on for ever."""
    if loop.is_running() or loop.is_closed():
        return
    engine = _cancel_waits(loop)
    if engine is None:
        return
    tasks = [wait.task for wait in engine.waits if wait.task is not None]
    engine.lot.end_all(lambda wait: wait.end(asyncio.CancelledError()), lambda _wait: True)
    _run(loop, loop.create_task(_wait(tasks, _LAST_GRACE) if tasks else asyncio.sleep(0)))
