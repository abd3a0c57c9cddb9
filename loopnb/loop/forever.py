"""Calls of `run_forever()` inside the loop itself: each waits until `stop()` is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class NestedForever:
    """The nested `run_forever()` calls of one loop. The loop's thread.

    Args:
        loop: The loop.
        wait: Parks the calling stack until a future is done.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, wait: Callable[[asyncio.Future[Any]], None]) -> None:
        self._loop = loop
        self._wait = wait
        self._futures: list[asyncio.Future[None]] = []

    def run(self) -> None:
        """Wait until it is stopped, while the loop goes on."""
        future = self._loop.create_future()
        self._futures.append(future)
        try:
            self._wait(future)
        finally:
            self._futures.remove(future)

    def stop_innermost(self) -> bool:
        """Stop the one begun last; False if there is none. One that is about to return counts."""
        if not self._futures:
            return False
        _finish(self._futures[-1])
        return True

    def stop_all(self) -> bool:
        """Stop all of them; False if there is none."""
        for future in self._futures:
            _finish(future)
        return bool(self._futures)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
