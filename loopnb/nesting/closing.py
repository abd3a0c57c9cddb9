"""The end of parked stacks whose loop runs no more: its `close()`, or the interpreter's end."""

from __future__ import annotations

import asyncio
import atexit
import contextlib

from loopnb.errors import NestingError
from loopnb.nesting import scope

#: Seconds that cleanup may take before a wait is ended whatever it waits for.
_GRACE = 2.0


def end_waits(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is parked on *loop*, and run the loop until nothing is. The loop's thread.

    A stack that is merely dropped would never be unwound: its `finally` blocks would not run.

    Raises:
        NestingError: The stacks are parked in another thread.
    """
    engine = scope.engine_of(loop)
    if engine is None or not engine.waits:
        return
    engine.check_thread()
    tasks = [wait.task for wait in engine.waits if wait.task is not None]
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=_GRACE))
    engine.is_closing = True
    try:
        while engine.waits:
            # Whoever has suppressed the cancellation cannot nest again, so this comes to an end.
            engine.lot.end_all(asyncio.CancelledError, lambda _wait: True)
            loop.run_until_complete(asyncio.sleep(0))
    finally:
        engine.is_closing = False


@atexit.register
def _end_all_waits() -> None:
    for loop in scope.known_loops():
        if not loop.is_running() and not loop.is_closed():
            with contextlib.suppress(NestingError):  # its thread is gone: nobody can resume them
                end_waits(loop)
