"""A timeout for a task. Its error says where the task was waiting."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Deadline:
    """Cancel *task* after *timeout* seconds, and turn its CancelledError into TimeoutError.

    A context manager around whatever waits for the task, in the loop's thread. It does not wait itself: the
    code in its block does, until the task has cleaned up. `asyncio.timeout` would cancel the task that waits,
    and a nested run outside of any task has none.

    Args:
        loop: The loop of *task*.
        task: The task that must end in time.
        timeout: Seconds from now; None waits for ever.
        where: Returns what a task is doing, such as "waiting for sleep() at In[3], line 2".

    Raises:
        TimeoutError: The time has passed, and the task has ended in CancelledError.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        task: asyncio.Task[Any],
        timeout: float | None,
        where: Callable[[asyncio.Task[Any]], str],
    ) -> None:
        self._loop = loop
        self._task = task
        self._timeout = timeout
        self._where = where
        self._doing = ""
        self._timer: asyncio.TimerHandle | None = None
        self._has_expired = False

    def __enter__(self) -> None:
        if self._timeout is not None:
            # In an empty Context, or the timer would keep the cell's Context alive.
            self._timer = self._loop.call_later(self._timeout, self._expire, context=Context())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._has_expired and isinstance(error, asyncio.CancelledError) and self._task.cancelled():
            timeout = TimeoutError(
                f"task {self._task.get_name()!r} did not finish within {self._timeout:g} s; "
                f"it was {self._doing}. It has been cancelled and has cleaned up."
            )
            raise timeout.with_traceback(error.__traceback__) from None  # it shows where the task was

    def _expire(self) -> None:
        if not self._task.done():
            self._has_expired = True
            self._doing = self._where(self._task)
            self._task.cancel()
