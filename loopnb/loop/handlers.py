"""When a run ends, remove the signal and exception handlers that it has set on the persistent loop.

The wish. In a script, signal and exception handlers end with the loop. A notebook's loop stays, and a
leftover handler would receive the signals and errors of all later cells.

The solution. All handlers for the same signal form a stack, and so do the exception handlers. When a run
ends, its handlers are removed, wherever they are in the stack: runs end in any order. If the top one is
removed, the one below takes effect again. A handler that a cell sets outside of any run stays, and the
handler that it replaced never comes back.

Signals need more than that: see `signals.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


@dataclass(eq=False)
class Handler:
    """One handler on a stack.

    Attributes:
        task: The main task of the run that set it; None if a cell set it outside of any run.
        before: The handler that it replaced.
    """

    task: asyncio.Task[Any] | None
    before: Any

    def inherit(self, before: Any) -> None:
        """Have *before* restored at the end, and not the handler that this one replaced."""
        self.before = before


H = TypeVar("H", bound=Handler)


class Stack(Generic[H]):
    """The handlers for one signal, or for exceptions; newest last. Call in the loop's thread."""

    def __init__(self) -> None:
        self.handlers: list[H] = []

    def push(self, handler: H) -> None:
        """Add a handler that has just been set. One that no run has set makes us forget all others."""
        task = handler.task
        if task is None:
            self.handlers = [handler]
            return
        newest = self.handlers[-1] if self.handlers else None
        if newest is not None and newest.task is task and type(newest) is type(handler):
            # Handlers that a run sets in a row share one entry. A run that sets and restores a handler again
            # and again would otherwise grow the stack for ever.
            handler.inherit(self.handlers.pop().before)
        elif all(other.task is not task for other in self.handlers):
            task.add_done_callback(self._end_of)
        self.handlers.append(handler)

    def _end_of(self, task: asyncio.Task[Any]) -> None:
        for handler in [handler for handler in self.handlers if handler.task is task]:
            self.take_out(handler)

    def take_out(self, handler: H) -> None:
        """Remove *handler*. If it was on top, the one below takes effect again."""
        index = self.handlers.index(handler)
        del self.handlers[index]
        if index < len(self.handlers):
            self._inherit(self.handlers[index], handler)
        else:
            self._put_back(handler)

    @abstractmethod
    def _inherit(self, above: H, gone: H) -> None:
        """Make *above* restore what *gone* replaced, since *gone* is no longer there to do it."""

    @abstractmethod
    def _put_back(self, gone: H) -> None:
        """Restore what *gone* replaced. *gone* was on top."""


@dataclass(eq=False)
class _ExceptionHandler(Handler):
    handler: Any
    set_handler: Callable[[Any], None]


class ExceptionHandlers(Stack[_ExceptionHandler]):
    """The exception handlers of one loop. Call in that loop's thread.

    Args:
        loop: The loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop

    def set(self, set_handler: Callable[[Any], None], handler: Any, task: asyncio.Task[Any] | None) -> None:
        """Set *handler* until *task* ends.

        Args:
            set_handler: The loop's own method.
            handler: The handler that the user passed.
            task: The main task of the run that sets it. None sets it for good.
        """
        before = self._loop.get_exception_handler()
        set_handler(handler)
        self.push(_ExceptionHandler(task, before, handler, set_handler))

    def _inherit(self, above: _ExceptionHandler, gone: _ExceptionHandler) -> None:
        above.inherit(gone.before)

    def _put_back(self, gone: _ExceptionHandler) -> None:
        if self._loop.get_exception_handler() is gone.handler:
            gone.set_handler(gone.before)
