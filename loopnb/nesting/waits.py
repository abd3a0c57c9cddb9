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


class _Ending:
    """What a wait ends in, if not in its future's outcome."""

    __slots__ = ("error", "is_cancelled", "is_finished", "is_interrupted", "message")

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.is_cancelled = self.is_interrupted = self.is_finished = False
        self.message: Any = None


class Wait:
    """A stack that waits for a future in a nested run.

    Everything here runs in the loop's thread.

    Args:
        ready: The engine's queue of waits whose stacks can go on: the keys.
        future: What is waited for.
        task: The task whose step is parked, if it is one.
        owned: *future* was made for this wait, so an interrupt may cancel it.

    Attributes:
        stack: It, until it goes on.
        is_foreground: A user is waiting for it.
        has_ended: The stack goes on, or is about to.
        ending: What it ends in otherwise.
        driver: The engine's driver that had called the stack. From here on kept by `Handoff` and `Absences`.
        owed: How many handles the first pass is owed.
        left_task, left_contexts, left_below, handle: What the stack has left and is to take up again.
        parked_at: When it has left the handle; not set without one.
    """

    __slots__ = (
        "__weakref__", "_callback", "_ready", "_retired", "driver", "ending", "future", "handle",
        "has_ended", "is_foreground", "is_owned", "left_below", "left_contexts", "left_task", "owed",
        "parked_at", "stack", "task",
    )  # fmt: skip

    left_task: asyncio.Task[Any] | None
    left_contexts: list[Context] | None
    left_below: LeftBelow | None
    handle: asyncio.Handle | None
    parked_at: float
    _retired: greenlet | None
    _callback: Callable[[object], object] | None

    def __init__(
        self,
        ready: OrderedDict[Wait, Any],
        future: asyncio.Future[Any],
        task: asyncio.Task[Any] | None,
        owned: bool,
    ) -> None:
        self._ready = ready
        self.future = future
        self.task = task
        self.is_owned = owned
        self.is_foreground = self.has_ended = False
        self.owed = 0
        self.stack: greenlet | None = None
        self.driver: greenlet | None = None
        self.ending: _Ending | None = None
        self.left_task = self.left_contexts = self.left_below = self.handle = None
        self._callback = self._retired = None

    def set_ready(self) -> None:
        """Have the stack resumed before the loop next blocks. Does nothing once it is due."""
        if not self.has_ended:
            self._ready.setdefault(self)

    def becomes_parent_of(self, driver: greenlet) -> bool:
        """Have the parked stack go on when *driver* returns; False if it must not.

        That is if it stands on *driver*, or is somebody else's greenlet: others whose parent *driver*
        was when they were made would switch to that one, once *driver* has ended.
        """
        if not isinstance(self.stack, type(driver)):
            return False
        try:
            driver.parent = self.stack
        except ValueError:
            return False
        self._retired = driver
        return True

    def end(self, error: BaseException) -> None:
        """Resume the stack with *error*, whatever becomes of the future."""
        self._end_otherwise().error = error
        self.set_ready()

    def _end_otherwise(self) -> _Ending:
        if self.ending is None:
            self.ending = _Ending()
        return self.ending

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
            ending = self._end_otherwise()
            ending.is_cancelled, ending.message = True, message

    def interrupt(self, foreground: Foreground) -> None:
        """Make the wait end in KeyboardInterrupt.

        What is waited for is cancelled the first time, and what has swallowed that is finished the
        second time. If it cannot be, and the third time, only the wait ends.
        """
        is_pending = self.is_owned and not self.future.done()
        ending = self._end_otherwise()
        if is_pending and not ending.is_interrupted:
            ending.is_interrupted = True
            foreground.cancel(self.future)
        elif is_pending and not ending.is_finished and foreground.finish(self.future):
            ending.is_finished = True
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
        ending, self.ending = self.ending, None
        if ending is None:
            return
        if ending.error is not None:
            raise ending.error
        if ending.is_interrupted and self.future.cancelled():
            raise KeyboardInterrupt
        if ending.is_cancelled:
            if not self.future.cancelled():
                self.future.exception()  # seen: a cancelled `await` retrieves it, too
            message = ending.message
            raise asyncio.CancelledError(*(() if message is None else (message,)))
