"""One wait: a parked stack, the future it is parked for, and all that may end it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections import OrderedDict
    from collections.abc import Callable
    from contextvars import Context

    from greenlet import greenlet

    from loopnb.internals.contexts import LeftBelow
    from loopnb.nesting.foreground import Foreground


class Wait:
    """A stack that waits for a future in a nested run.

    Everything here runs in the loop's thread.

    Args:
        ready: The engine's queue of waits whose stacks can go on: the keys.
        future: What is waited for.
        task: The task whose step is parked, if it is one.
        owned: *future* was made for this wait, so an interrupt may cancel it.
    """

    is_foreground = False
    has_ended = False
    ends_otherwise = False
    error: BaseException | None = None
    stack: greenlet | None = None
    # What the stack has left, and the engine's driver that had called it. Kept by `Handoff` and `Absences`.
    driver: greenlet | None = None
    owed = 0
    has_left_task = False
    left_contexts: list[Context] | None = None
    left_below: LeftBelow | None = None
    handle: asyncio.Handle | None = None
    parked_at = 0.0
    _retired: greenlet | None = None
    _callback: Callable[[object], object] | None = None
    _is_cancelled = False
    _is_interrupted = False
    _is_finished = False
    _cancel_message: Any = None

    def __init__(
        self,
        ready: OrderedDict[Wait, Any],
        future: asyncio.Future[Any],
        task: asyncio.Task[Any] | None,
        owned: bool,
    ) -> None:
        self.future = future
        self.task = task
        self.is_owned = owned
        self._ready = ready

    def set_ready(self) -> None:
        """Have the stack resumed before the loop next blocks. Does nothing once it is due."""
        if not self.has_ended:
            self._ready.setdefault(self)

    def becomes_parent_of(self, driver: greenlet) -> bool:
        """Have the parked stack go on when *driver* returns; False if it stands on *driver*."""
        try:
            driver.parent = self.stack
        except ValueError:
            return False
        self._retired = driver
        return True

    def end(self, error: BaseException) -> None:
        """Resume the stack with *error*, whatever becomes of the future."""
        self.error = error
        self.ends_otherwise = True
        self.set_ready()

    def stop(self) -> None:
        """Resume the stack since the loop has stopped: with the outcome, if there is one already."""
        if self.future.done():
            self.set_ready()
        else:
            self.end(RuntimeError("Event loop stopped before Future completed."))

    def cancel(self, message: Any) -> None:
        """Deliver a cancel request of the parked task: cancel what it waits for."""
        if not self.future.cancel(message):
            # Done already, the wait is about to end. A cancelled `await` wins over its result, too.
            self._is_cancelled = self.ends_otherwise = True
            self._cancel_message = message

    def interrupt(self, foreground: Foreground) -> None:
        """Make the wait end in KeyboardInterrupt.

        What is waited for is cancelled the first time, and what has swallowed that is finished the
        second time. If it cannot be, and the third time, only the wait ends.
        """
        is_pending = self.is_owned and not self.future.done()
        if is_pending and not self._is_interrupted:
            self._is_interrupted = self.ends_otherwise = True
            foreground.cancel(self.future)
        elif is_pending and not self._is_finished and foreground.finish(self.future):
            self._is_finished = True
        else:
            self.end(KeyboardInterrupt())

    def arm(self, context: Context) -> None:
        """Have the future's completion wake this wait, one pass after it."""
        if self._callback is None:
            # In C: a signal handler that raised in a function of ours would keep us from being woken.
            callback = partial(self._ready.setdefault, self)
            self.future.add_done_callback(callback, context=context)
            self._callback = callback

    def close(self) -> None:
        """Withdraw every wake-up and forget the stack: it is on its way already.

        The driver that ended in it forgets it, too: each driver that retires would keep the next
        one alive, and the spawner keeps the last.
        """
        self.has_ended = True
        if self._callback is not None:
            self.future.remove_done_callback(self._callback)
            self._callback = None
        stack = self.stack
        if self._retired is not None and stack is not None and stack.parent is not None:
            self._retired.parent = stack.parent
            self._retired = None
        self.stack = None

    def raise_ending(self) -> None:
        """Raise what this wait is to end in; just return if it is the future's outcome after all."""
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
