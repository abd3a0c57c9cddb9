"""Exception handlers that code sets on the persistent loop: with the run that has set one it goes again.

A script's handler ends with its loop. In a notebook it would get the errors of all later cells.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence


@dataclass(eq=False)
class _Set:
    """A handler that was set, the one that it has replaced, and the task whose run has set it."""

    handler: Any
    before: Any
    task: asyncio.Task[Any] | None


class ExceptionHandlers:
    """The exception handlers of one loop. Its thread.

    Args:
        loop: The loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._set: list[_Set] = []

    def set(self, set_handler: Callable[[Any], None], handler: Any, task: asyncio.Task[Any] | None) -> None:
        """Set *handler*, by *set_handler*, until *task* ends, whose run sets it, or with None for good."""
        one = _Set(handler, self._loop.get_exception_handler(), task)
        set_handler(handler)
        if task is None:
            self._set.clear()  # none below it ever comes back
            return
        if self._set and self._set[-1].task is task:
            self._set[-1].handler = handler  # a run may set and restore one again and again
            return
        self._set.append(one)
        task.add_done_callback(lambda _task: self._take_off(set_handler, one))

    def _take_off(self, set_handler: Callable[[Any], None], one: _Set) -> None:
        if one not in self._set:
            return
        index = self._set.index(one)
        del self._set[index]
        if index < len(self._set):  # another one has been set since: runs may end in any order
            self._set[index].before = one.before
        elif self._loop.get_exception_handler() is one.handler:
            set_handler(one.before)


# -- signals ------------------------------------------------------------
#
# Signal handlers that code adds to the persistent loop: with the run that has added one it goes again.
#
# `loop.add_signal_handler()` keeps one handler for a signal, and puts a function that does nothing in the
# place of Python's own. A script ends with its loop. In a notebook what was there before must come back:
# the handler of a run further out, or that of the cell which executes now.


@dataclass(eq=False)
class _Added:
    """A handler: how to add it again, what handler of Python's it has replaced, whose run has added it.

    What the user has asked to be called, *users*, is not always what is called.
    """

    add: Callable[..., None]
    callback: Callable[..., object]
    args: Sequence[Any]
    users: tuple[Any, ...]
    before: Any
    task: asyncio.Task[Any] | None = None


class SignalHandlers:
    """The signal handlers of one loop. Its thread, which is the main one.

    Args:
        loop: The loop.
        is_background: Says of a task whether the cell that executes now is not its own.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, is_background: Callable[[asyncio.Task[Any]], bool]
    ) -> None:
        self._loop = loop
        self._is_background = is_background
        self._added: dict[int, list[_Added]] = {}
        self._loops_own: Any = None  # what asyncio puts in the place of Python's handlers

    def add(self, sig: int, handler: _Added, task: asyncio.Task[Any] | None) -> None:
        """Add *handler* for the signal *sig* until *task* ends, whose run adds it, or with None for good."""
        handler.add(sig, handler.callback, *handler.args)
        self._loops_own = signal.getsignal(sig)
        if task is None:
            self._added[sig] = [handler]  # none below it ever comes back
            return
        added = self._added.setdefault(sig, [])
        if added and added[-1].task is task:  # it has replaced its own
            own = added[-1]
            own.callback, own.args, own.users = handler.callback, handler.args, handler.users
        else:
            handler.task = task
            added.append(handler)
            task.add_done_callback(lambda _task: self._take_off(sig, handler))
        if sig == signal.SIGINT and _is_cells(handler.before) and self._is_background(task):
            signal.signal(sig, handler.before)  # another cell waits, and an interrupt is for that one

    def forget(self, sig: int) -> None:
        """Let none come back for the signal *sig*: the user has removed what there is."""
        self._added.pop(sig, None)

    def install(self) -> None:
        """Do nothing; with `restore` a `Revertible`."""

    def restore(self) -> bool:
        """Have the loop call what the user has asked for, and nobody else. True.

        What runs have added still goes with them.
        """
        for sig, added in () if self._loop.is_closed() else list(self._added.items()):
            is_ours = bool(added) and added[-1].users != (added[-1].callback, *added[-1].args)
            for handler in added:
                handler.callback, *handler.args = handler.users
            if is_ours:
                present = signal.getsignal(sig)
                added[-1].add(sig, *added[-1].users)
                signal.signal(sig, present)
        return True

    def _take_off(self, sig: int, handler: _Added) -> None:
        added = self._added.get(sig, [])
        if handler not in added:
            return
        index = added.index(handler)
        del added[index]
        if index < len(added):  # another one has come since
            if added[index].before is self._loops_own:
                added[index].before = handler.before
            return
        present = signal.getsignal(sig)
        if not self._loop.remove_signal_handler(sig):  # which forgets them all
            return
        if added:
            self._added[sig] = added
            added[-1].add(sig, added[-1].callback, *added[-1].args)
        if present is not self._loops_own:
            signal.signal(sig, present)  # of a cell that has begun to wait since
        elif handler.before is not self._loops_own:
            signal.signal(sig, handler.before)


def handler_of(
    add: Callable[..., None], sig: int, users: tuple[Any, ...], callback: Callable[..., object], *args: Any
) -> _Added:
    """Return the handler that the loop's own method *add* adds: *callback* is called with *args*.

    *users* are the function and the arguments that the user has given.
    """
    return _Added(add, callback, args, users, signal.getsignal(sig))


def _is_cells(handler: Any) -> bool:
    return callable(handler) and str(getattr(handler, "__module__", "")).startswith("loopnb.")
