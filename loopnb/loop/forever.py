"""Calls of `run_forever()` inside the loop itself: each waits until `stop()` is called."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

if TYPE_CHECKING:
    from collections.abc import Callable

#: By loop, since they outlive a reload: what each of the calls waits for, the newest last.
_waited: WeakKeyDictionary[asyncio.AbstractEventLoop, list[asyncio.Future[Any]]] = WeakKeyDictionary()


class NestedForever:
    """The nested `run_forever()` calls of one loop. The loop's thread.

    Args:
        loop: The loop.
        wait: Parks the calling stack until a future is done.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, wait: Callable[[asyncio.Future[Any]], None]) -> None:
        self._loop = ref(loop)  # kept by loop, it must not keep that
        self._wait = wait
        self._futures = _waited.setdefault(loop, [])
        self._stopped_in: Callable[[], asyncio.Task[Any] | None] = lambda: None

    def run(self) -> None:
        """Wait until it is stopped, while the loop goes on; for one pass, if it was stopped before.

        Raises:
            CancelledError: The calling task was cancelled.
        """
        loop: Any = self._loop()
        future = loop.create_future()
        task = asyncio.current_task(loop)
        if task is not None and self._stopped_in() is task:
            loop.call_soon(_finish, future)
        self.forget_stop()
        self._futures.append(future)
        try:
            self._wait(future)
        finally:
            self._futures.remove(future)
        future.result()

    def stop(self, waited: object) -> bool:
        """Stop the call that waits for *waited*; False if none does."""
        for future in self._futures:
            if future is waited:
                _finish(future)
                return True
        return False

    def stop_next(self) -> None:
        """Have the next call in this task last for one pass only: `loop.stop(); loop.run_forever()`."""
        task = asyncio.current_task(self._loop())
        if task is not None:
            self._stopped_in = ref(task)

    def forget_stop(self) -> None:
        """Let the next call last: the cell has ended, and the next one may execute in the same task."""
        self._stopped_in = lambda: None

    def stop_all(self) -> bool:
        """Stop all of them; False if there is none."""
        for future in self._futures:
            _finish(future)
        return bool(self._futures)


def _finish(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)
