"""End parked stacks whose loop will not run again.

A stack that is merely dropped is never unwound: its `finally` blocks do not run. So before a loop is closed,
and before a thread or the interpreter ends, we cancel the stacks that are parked there, and turn the loop
until they have ended.
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

#: Seconds that cleanup may take. After that, waits end whether their futures are done or not.
_GRACE = 2.0
#: Seconds that cleanup may take after that, at the end of a thread or of the interpreter.
_LAST_GRACE = 0.5


# -- the end of a loop ---------------------------------------------------------------------------


def end_waits(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is parked on *loop*, and run the loop until nothing is parked.

    Call it in the loop's thread, which it blocks. Cleanup may take two seconds. After that, nothing can nest,
    and each wait ends whatever it waits for.

    Raises:
        NestingError: The stacks are parked in another thread.
    """
    engine = _cancel_waits(loop)
    if engine is None:
        return
    with engine.closing():
        while engine.waits:
            # Code that suppresses its cancellation cannot nest again. So this ends, unless it tries for ever.
            engine.lot.cancel_all()
            _run(loop, loop.create_task(asyncio.sleep(0)))


def _cancel_waits(loop: asyncio.AbstractEventLoop) -> Handoff | None:
    """Cancel the tasks that are parked on *loop*, and run it until they have ended, for `_GRACE` at most.

    Returns:
        Its engine if some stacks are parked even then, or None.
    """
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
    """Run *loop* until *task* is done, even if a late `stop()` is still queued there."""
    # Not `loop.stop()`: the guard that wraps it would take this for a call from a cell and ignore it.
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
    """Ends what is parked on a thread's loops when that thread ends, since no other thread can.

    The thread's local storage holds it, so it is finalized in that thread, at its end.
    """

    def __init__(self) -> None:
        self.loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

    def __del__(self) -> None:
        _ending.add(threading.get_ident())
        try:
            for loop in list(self.loops):
                with contextlib.suppress(NestingError):  # the loop has moved on to another thread
                    _end_waits_at_exit(loop)
        finally:
            _ending.discard(threading.get_ident())


# Both live as long as the threads: parked stacks must end whether there is a session or not.
_here = threading.local()
#: The threads that are ending: their loops run once more, and must not be noted again.
_ending: set[int] = set()


def end_with_thread(loop: asyncio.AbstractEventLoop) -> None:
    """End what is parked on *loop* in order when the calling thread ends.

    The main thread's loops end at exit.
    """
    this = threading.get_ident()  # not `current_thread()`, which may not know an ending thread any more
    if this == threading.main_thread().ident or this in _ending:
        return
    if not hasattr(_here, "ender"):
        _here.ender = _Ender()
    _here.ender.loops.add(loop)


def _end_waits_at_exit(loop: asyncio.AbstractEventLoop) -> None:
    """Do what `end_waits` does, but let code nest again, and if it does, leave it parked.

    If nesting were refused, code that tries again and again would never end. Does nothing if the loop runs or
    is closed.
    """
    if loop.is_running() or loop.is_closed():
        return
    engine = _cancel_waits(loop)
    if engine is None:
        return
    tasks = [wait.task for wait in engine.waits if wait.task is not None]
    engine.lot.cancel_all()
    _run(loop, loop.create_task(_wait(tasks, _LAST_GRACE) if tasks else asyncio.sleep(0)))
