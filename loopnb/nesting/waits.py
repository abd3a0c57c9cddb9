"""One wait: a parked stack, the future it is parked for, and all that may end it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from contextvars import Context

    from greenlet import greenlet


class Wait:
    """A stack that waits for a future in a nested run.

    Everything here runs in the loop's thread.

    Args:
        ready: The engine's queue of waits whose stacks can go on.
        future: What is waited for.
        task: The task whose step is parked, if it is one.
        owned: *future* was made for this wait, so an interrupt may cancel it.
    """

    __slots__ = (
        "_cancel_message",
        "_has_callback",
        "_has_ended",
        "_is_cancelled",
        "_is_interrupted",
        "_ready",
        "_retired",
        "error",
        "future",
        "is_foreground",
        "is_owned",
        "is_ready",
        "is_resumed",
        "stack",
        "task",
    )

    def __init__(
        self,
        ready: deque[Wait],
        future: asyncio.Future[Any],
        task: asyncio.Task[Any] | None,
        *,
        owned: bool,
    ) -> None:
        self.future = future
        self.task = task
        self.is_owned = owned
        self.is_foreground = False
        self.is_ready = False
        self.is_resumed = False
        self.error: BaseException | None = None
        self.stack: greenlet | None = None
        self._ready = ready
        self._retired: greenlet | None = None
        self._has_callback = False
        self._has_ended = False
        self._is_cancelled = False
        self._is_interrupted = False
        self._cancel_message: Any = None

    def set_ready(self) -> None:
        """Have the stack resumed before the loop next blocks. Does nothing once it is due."""
        if not self.is_ready and not self._has_ended:
            self.is_ready = True
            self._ready.append(self)

    def switch(self) -> Any:
        """Switch to the parked stack."""
        assert self.stack is not None
        self.is_resumed = True
        return self.stack.switch()

    def becomes_parent_of(self, driver: greenlet) -> bool:
        """Have the parked stack go on when *driver* returns; False if it stands on *driver*."""
        assert self.stack is not None
        try:
            driver.parent = self.stack
        except ValueError:
            return False
        self.is_resumed = True
        self._retired = driver
        return True

    def let_go(self) -> None:
        """Forget the stack, and have it forgotten by the driver that ended in it.

        Each driver that retires would keep the next one alive, and the spawner keeps the last.
        """
        if self._retired is not None and self.stack is not None and self.stack.parent is not None:
            self._retired.parent = self.stack.parent
        self.stack = self._retired = None

    def end(self, error: BaseException) -> None:
        """Resume the stack with *error*, whatever becomes of the future."""
        self.error = error
        self.set_ready()

    def cancel(self, message: Any) -> None:
        """Deliver a cancel request of the parked task: cancel what it waits for."""
        if not self.future.cancel(message):
            # Done already, the wait is about to end. A cancelled `await` wins over its result, too.
            self._is_cancelled = True
            self._cancel_message = message

    def interrupt(self, cancel: Callable[[asyncio.Future[Any]], object]) -> None:
        """Make the wait end in KeyboardInterrupt; a second call does not wait for cleanup."""
        if self.is_owned and not self._is_interrupted and not self.future.done():
            self._is_interrupted = True
            cancel(self.future)
        else:
            self.end(KeyboardInterrupt())

    def arm(self, context: Context) -> None:
        """Have the future's completion wake this wait, one pass after it."""
        if not self._has_callback:
            self._has_callback = True
            self.future.add_done_callback(self._wake, context=context)

    def disarm(self) -> None:
        """Withdraw every wake-up: the stack is on its way already."""
        self._has_ended = True
        if self._has_callback:
            self.future.remove_done_callback(self._wake)

    def is_done_unarmed(self) -> bool:
        """Say whether the future is done and nothing else will wake this wait."""
        return not self._has_callback and self.future.done()

    def raise_if_ended(self) -> None:
        """Raise what this wait is to end in, unless it is just the future's outcome."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if self._is_interrupted and self.future.cancelled():
            raise KeyboardInterrupt
        if self._is_cancelled:
            if not self.future.cancelled():
                self.future.exception()  # seen: a cancelled `await` retrieves it, too
            message = self._cancel_message
            raise asyncio.CancelledError(*(() if message is None else (message,)))

    def _wake(self, _future: asyncio.Future[Any]) -> None:
        self.set_ready()
