"""Handlers that code sets on the persistent loop go with the run that has set them.

The wish. A script's handlers, of signals and of exceptions, end with its loop. In a notebook the loop
stays, and they would get the signals and the errors of all later cells.

What is done. The handlers for one thing are stacked. When a run ends, its handlers are taken out,
wherever they stand: runs end in any order. If one was on top, the one below it is in force again. What a
cell itself sets is part of no run. It stays, and what it has replaced never comes back.

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
    """A handler that was set.

    Attributes:
        task: The main task of the run that has set it; None if a cell itself has.
        before: What it has replaced.
    """

    task: asyncio.Task[Any] | None
    before: Any


H = TypeVar("H", bound=Handler)


class Stack(Generic[H]):
    """The handlers for one thing, the newest last. The loop's thread."""

    def __init__(self) -> None:
        self.handlers: list[H] = []

    def push(self, handler: H) -> None:
        """Add a handler that has just been set."""
        task = handler.task
        if task is None:
            self.handlers = [handler]
            return
        newest = self.handlers[-1] if self.handlers else None
        if newest is not None and newest.task is task and type(newest) is type(handler):
            # One entry for all that a run sets in turn: it may set and restore one again and again.
            handler.before = self.handlers.pop().before
        elif all(one.task is not task for one in self.handlers):
            task.add_done_callback(self._end_of)
        self.handlers.append(handler)

    def _end_of(self, task: asyncio.Task[Any]) -> None:
        for handler in [one for one in self.handlers if one.task is task]:
            self.take_out(handler)

    def take_out(self, handler: H) -> None:
        """Take *handler* out of force, and have the one below it in force again if it was on top."""
        index = self.handlers.index(handler)
        del self.handlers[index]
        if index < len(self.handlers):
            self._inherit(self.handlers[index], handler)
        else:
            self._put_back(handler)

    @abstractmethod
    def _inherit(self, above: H, gone: H) -> None:
        """Have *above* put back what *gone* has replaced, since *gone* cannot do so itself any more."""

    @abstractmethod
    def _put_back(self, gone: H) -> None:
        """Put back what *gone*, which was on top, has replaced."""


@dataclass(eq=False)
class _ExceptionHandler(Handler):
    handler: Any
    set_handler: Callable[[Any], None]


class ExceptionHandlers(Stack[_ExceptionHandler]):
    """The exception handlers of one loop. Its thread.

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
            handler: What its caller has given.
            task: The main task of the run that sets it. None sets it for good.
        """
        before = self._loop.get_exception_handler()
        set_handler(handler)
        self.push(_ExceptionHandler(task, before, handler, set_handler))

    def _inherit(self, above: _ExceptionHandler, gone: _ExceptionHandler) -> None:
        above.before = gone.before

    def _put_back(self, gone: _ExceptionHandler) -> None:
        if self._loop.get_exception_handler() is gone.handler:
            gone.set_handler(gone.before)
