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
        if self._has_expired and isinstance(error, asyncio.CancelledError) and self._is_cause():
            timeout = TimeoutError(
                f"task {self._task.get_name()!r} did not finish within {self._timeout:g} s; "
                f"it was {self._doing}. It has been cancelled and has cleaned up."
            )
            raise timeout.with_traceback(error.__traceback__) from None  # it shows where the task was

    def _is_cause(self) -> bool:
        """Return True if the CancelledError is the task's own, not that of the code which waits for it."""
        return self._task.cancelled()

    def _expire(self) -> None:
        if not self._task.done():
            self._has_expired = True
            self._doing = self._where(self._task)
            self._task.cancel()


class OwnDeadline(Deadline):
    """A deadline of the running task, entered in that task: the task itself ends in TimeoutError.

    So whoever holds the task sees what the cell shows. If somebody else cancels the task as well, it ends in
    CancelledError, as with `asyncio.timeout`.

    Args:
        timeout: Seconds from now; None waits for ever.
        where: As in `Deadline`.

    Raises:
        RuntimeError: No task is running.
    """

    def __init__(self, timeout: float | None, where: Callable[[asyncio.Task[Any]], str]) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline of the running task needs one")
        super().__init__(task.get_loop(), task, timeout, where)
        self._cancelling = task.cancelling()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Take the cancel request back, whatever became of it."""
        if self._has_expired:
            self._task.uncancel()
        super().__exit__(kind, error, tb)

    def _is_cause(self) -> bool:
        """Return True if nobody else has cancelled the task as well."""
        return self._task.cancelling() <= self._cancelling
