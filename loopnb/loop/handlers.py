"""Handlers that code sets on the persistent loop go with the run that has set them.

The wish. A script's handlers, of signals and of exceptions, end with its loop. In a notebook the loop
stays, and they would get the signals and the errors of all later cells.

What is done. The handlers for one thing are stacked. When a run ends, its handlers are taken out,
wherever they stand: runs end in any order. If one was on top, the one below it is in force again. What a
cell itself sets is part of no run. It stays, and what it has replaced never comes back.

What makes signals harder. `loop.add_signal_handler()` also puts a function that does nothing in the
place of Python's own handler, that of `signal.signal()`. So Python's own has to come back, too: it
belongs to a run further out, or it waits for an interrupt of the cell that executes now.
"""

from __future__ import annotations

import signal
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


@dataclass(eq=False)
class _Handler:
    """A handler that was set.

    Attributes:
        task: The main task of the run that has set it; None if a cell itself has.
        before: What it has replaced.
    """

    task: asyncio.Task[Any] | None
    before: Any


H = TypeVar("H", bound=_Handler)


class _Stack(Generic[H]):
    """The handlers for one thing, the newest last. The loop's thread."""

    def __init__(self) -> None:
        self.handlers: list[H] = []

    def push(self, handler: H) -> None:
        """Add a handler that has just been set."""
        task = handler.task
        if task is None:
            self.handlers = [handler]
            return
        if self.handlers and self.handlers[-1].task is task:
            # One entry for all that a run sets in turn: it may set and restore one again and again.
            handler.before = self.handlers.pop().before
        elif all(one.task is not task for one in self.handlers):
            task.add_done_callback(self._end_of)
        self.handlers.append(handler)

    def _end_of(self, task: asyncio.Task[Any]) -> None:
        for handler in [one for one in self.handlers if one.task is task]:
            self._take_out(handler)

    def _take_out(self, handler: H) -> None:
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


# -- of exceptions -------------------------------------------------------------------------------


@dataclass(eq=False)
class _ExceptionHandler(_Handler):
    handler: Any
    set_handler: Callable[[Any], None]


class ExceptionHandlers(_Stack[_ExceptionHandler]):
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


# -- of signals ----------------------------------------------------------------------------------


@dataclass(eq=False)
class _SignalHandler(_Handler):
    """A handler of a signal; `before` is Python's handler that stood there.

    Attributes:
        add: The loop's own method that adds it.
        called: The function and arguments that the loop calls.
        users: Those that the user has given.
    """

    add: Callable[..., None]
    called: tuple[Any, ...]
    users: tuple[Any, ...]


class _OneSignal(_Stack[_SignalHandler]):
    """The handlers of one signal."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sig: int) -> None:
        super().__init__()
        self._loop = loop
        self._sig = sig
        self._placeholder: Any = None  # what asyncio puts in the place of Python's handler

    def add(self, handler: _SignalHandler) -> None:
        """Add *handler* to the loop."""
        handler.add(self._sig, *handler.called)
        self._placeholder = signal.getsignal(self._sig)
        self.push(handler)

    def _inherit(self, above: _SignalHandler, gone: _SignalHandler) -> None:
        if above.before is self._placeholder:
            above.before = gone.before

    def _put_back(self, gone: _SignalHandler) -> None:
        below = self.handlers
        present = signal.getsignal(self._sig)
        if not self._loop.remove_signal_handler(self._sig):
            return
        self.handlers = below  # the guard has taken that call for the user's, and forgotten them
        if below:
            below[-1].add(self._sig, *below[-1].called)
        if present is not self._placeholder:
            signal.signal(self._sig, present)  # of a cell that has begun to wait since
        elif gone.before is not self._placeholder:
            signal.signal(self._sig, gone.before)

    def call_users(self) -> None:
        """Have the loop call what the user has given."""
        is_changed = bool(self.handlers) and self.handlers[-1].called != self.handlers[-1].users
        for handler in self.handlers:
            handler.called = handler.users
        if is_changed:
            present = signal.getsignal(self._sig)
            self.handlers[-1].add(self._sig, *self.handlers[-1].users)
            signal.signal(self._sig, present)


class SignalHandlers:
    """The signal handlers of one loop. Its thread, which is the main one. A `Revertible`.

    Args:
        loop: The loop.
        is_background: Returns True if the cell that executes now has not spawned a task.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, is_background: Callable[[asyncio.Task[Any]], bool]
    ) -> None:
        self._loop = loop
        self._is_background = is_background
        self._signals: dict[int, _OneSignal] = {}

    def add(
        self,
        add: Callable[..., None],
        sig: int,
        called: tuple[Any, ...],
        users: tuple[Any, ...],
        task: asyncio.Task[Any] | None,
    ) -> None:
        """Add a handler of the signal *sig* until *task* ends.

        Args:
            add: The loop's own method.
            sig: The signal.
            called: The function and arguments that the loop is to call.
            users: Those that the user has given.
            task: The main task of the run that adds it. None adds it for good.
        """
        before = signal.getsignal(sig)
        handlers = self._signals.setdefault(sig, _OneSignal(self._loop, sig))
        handlers.add(_SignalHandler(task, before, add, called, users))
        if task is not None and sig == signal.SIGINT and _is_ours(before) and self._is_background(task):
            signal.signal(sig, before)  # a cell waits, and an interrupt is meant for that cell

    def forget(self, sig: int) -> None:
        """Forget the handlers of *sig*: the user has removed the one in force, and none comes back."""
        if sig in self._signals:
            self._signals[sig].handlers = []

    def install(self) -> None:
        """Do nothing: handlers are known when they are added."""

    def restore(self) -> bool:
        """Have the loop call what the user has given. Handlers of runs still go with them. Returns True."""
        if not self._loop.is_closed():
            for handlers in self._signals.values():
                handlers.call_users()
        return True


def _is_ours(handler: Any) -> bool:
    return callable(handler) and str(getattr(handler, "__module__", "")).startswith("loopnb.")
