"""The end of parked stacks whose loop runs no more.

A stack that is merely dropped is never unwound: its `finally` blocks do not run. So before a loop is closed,
and before a thread or the interpreter ends, what is parked there is cancelled, and the loop turned until it
has ended.
"""

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


# -- the end of a loop ---------------------------------------------------------------------------


def end_waits(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is parked on *loop*, and run the loop until nothing is. The loop's thread; blocks it.

    Cleanup may take two seconds, and nothing can nest after that.

    Raises:
        NestingError: The stacks are parked in another thread.
    """
    engine = _cancel_waits(loop)
    if engine is None:
        return
    with engine.closing():
        while engine.waits:
            # Whoever has suppressed the cancellation cannot nest again, so this comes to an end.
            engine.lot.cancel_all()
            _run(loop, loop.create_task(asyncio.sleep(0)))


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
    """Run *loop* until *task* is done, also if a `stop()` that came too late is still queued there."""
    # Not `loop.stop()`: a guard that stands before it would take this for a cell's call and ignore it.
    task.add_done_callback(lambda _task: set_stopping(loop, True))
    while not task.done():
        loop.run_forever()


# -- the end of a thread, and of the interpreter -------------------------------------------------


@atexit.register
def _end_all_waits() -> None:
    for loop in scope.known_loops():
        with contextlib.suppress(NestingError):  # its thread is gone: nobody can resume them
            _end_waits_at_exit(loop)


class _Ender:
    """Ends what is parked on the loops of a thread when that thread ends: no other can.

    The thread's local storage holds it, so it is finalized in that thread, at its end.
    """

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


# They live as long as the threads. What is parked must be ended whether a session is there or not.
_here = threading.local()
#: The threads whose ends are under way: their loops run once more, and must not be noted again.
_ending: set[int] = set()


def end_with_thread(loop: asyncio.AbstractEventLoop) -> None:
    """Have what is parked on *loop* end in order when the calling thread ends, the main one at exit."""
    this = threading.get_ident()  # not `current_thread()`: the thread may have ended for that module
    if this == threading.main_thread().ident or this in _ending:
        return
    if not hasattr(_here, "ender"):
        _here.ender = _Ender()
    _here.ender.loops.add(loop)


def _end_waits_at_exit(loop: asyncio.AbstractEventLoop) -> None:
    """Do as `end_waits` does, but leave what nests again parked: refused, it might go on for ever."""
    if loop.is_running() or loop.is_closed():
        return
    engine = _cancel_waits(loop)
    if engine is None:
        return
    tasks = [wait.task for wait in engine.waits if wait.task is not None]
    engine.lot.cancel_all()
    _run(loop, loop.create_task(_wait(tasks, _LAST_GRACE) if tasks else asyncio.sleep(0)))
