"""Exception handlers that code sets on the persistent loop: with the run that has set one it goes again.

A script's handler ends with its loop. In a notebook it would get the errors of all later cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


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
