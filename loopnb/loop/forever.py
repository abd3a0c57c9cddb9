"""Let `run_forever()` be called inside the loop itself: each call waits until `stop()` is called."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from loopnb.frames import is_loops, outwards, users_place

if TYPE_CHECKING:
    from collections.abc import Callable

#: For each loop, the futures that the calls wait for, the newest last, and the file and line of each call.
#: The dictionary outlives a session: after a reload of the extension, a call from before can be stopped.
_waited: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[asyncio.Future[Any], tuple[str, int]]] = (
    WeakKeyDictionary()
)


def place_of(future: asyncio.Future[Any]) -> tuple[str, int] | None:
    """Return file and line of the `run_forever()` that waits for *future*; None if none does. Any thread."""
    return _waited.get(future.get_loop(), {}).get(future)


def is_tornados_start() -> bool:
    """Return True if `tornado.ioloop.IOLoop.start()` has called the loop's method that calls this function.

    Code that calls it inside a running loop expects it to fail, and goes on. Panel's `serve()` does so.
    """
    callers = (frame for frame in outwards(inspect.currentframe()) if not is_loops(frame.f_code.co_filename))
    return getattr(next(callers, None), "f_globals", {}).get("__name__") == "tornado.platform.asyncio"


class NestedForever:
    """The nested `run_forever()` calls of one loop. The loop's thread.

    Args:
        loop: The loop.
        park: Parks the calling stack until a future is done.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, park: Callable[[asyncio.Future[Any]], None]) -> None:
        self._loop = ref(loop)  # weak, since these objects are values of a dictionary that is keyed by loop
        self._park = park
        self._futures = _waited.setdefault(loop, {})
        self._stopped_in: ref[asyncio.Task[Any]] | None = None

    def run(self) -> None:
        """Wait until `stop`, while the loop goes on. After `stop_next`, wait for one pass only.

        Raises:
            CancelledError: The calling task was cancelled.
        """
        loop: Any = self._loop()
        future = loop.create_future()
        task = asyncio.current_task(loop)
        if task is not None and self._stopped_in is not None and self._stopped_in() is task:
            loop.call_soon(_finish, future)
        self.forget_stop()
        self._futures[future] = users_place()
        try:
            self._park(future)
        finally:
            self._futures.pop(future, None)
        future.result()

    def stop(self, waited: object) -> bool:
        """Stop the call that waits for *waited*. Return False if none does."""
        for future in list(self._futures):
            if future is waited:
                _finish(future)
                return True
        return False

    def stop_next(self) -> None:
        """Let the next call in this task last for one pass: `loop.stop(); loop.run_forever()`."""
        task = asyncio.current_task(self._loop())
        if task is not None:
            self._stopped_in = ref(task)

    def forget_stop(self) -> None:
        """Take `stop_next` back. Needed between cells, since the next cell may execute in the same task."""
        self._stopped_in = None

    def stop_all(self) -> bool:
        """Stop all of them. Return False if there is none."""
        for future in list(self._futures):
            _finish(future)
        return bool(self._futures)


def _finish(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)
