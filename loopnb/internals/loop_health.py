"""Private state of asyncio that user code leaves damaged. Checked on CPython 3.11.7 to 3.14.10."""

from __future__ import annotations

import asyncio
import asyncio.events
import os
import signal
from types import FunctionType
from typing import TYPE_CHECKING, Any

from loopnb.internals.patching import CodePatch, Patch, PatchSet

if TYPE_CHECKING:
    from collections.abc import Callable


def mend_default_executor(loop: Any) -> bool:
    """Let *loop* make a new default executor if its own was shut down.

    `BaseEventLoop._executor_shutdown_called` and `_default_executor`; `ThreadPoolExecutor._shutdown`.
    Other loops do not show theirs.

    Returns:
        Whether there was something to mend.
    """
    executor = getattr(loop, "_default_executor", None)
    if not getattr(loop, "_executor_shutdown_called", False) and not getattr(executor, "_shutdown", False):
        return False
    loop._executor_shutdown_called = False
    loop._default_executor = None
    return True


def mend_signal_handlers(loop: Any) -> None:
    """Have signals reach *loop* again, if another loop has taken them over. The main thread.

    Python tells of them by one file descriptor, and asyncio's loops each set it to their own; the last
    handler that one of them removes takes it away from all (`_signal_handlers`, `_csock`,
    `unix_events._sighandler_noop`; not on Windows).
    """
    handlers, noop = getattr(loop, "_signal_handlers", None), getattr(asyncio, "unix_events", None)
    if not handlers or noop is None or loop.is_closed():
        return
    own = loop._csock.fileno()
    present = signal.set_wakeup_fd(own)
    if present == own:
        return
    if _is_open(present):  # somebody else's, on purpose
        signal.set_wakeup_fd(present)
        return
    for sig in handlers:
        if sig != signal.SIGINT and signal.getsignal(sig) is signal.SIG_DFL:
            signal.signal(sig, noop._sighandler_noop)
            signal.siginterrupt(sig, False)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def current_policy() -> object:
    """Return the event loop policy without making or deprecating one (`_event_loop_policy`)."""
    return getattr(asyncio.events, "_event_loop_policy", None)


def loop_set_here() -> asyncio.AbstractEventLoop | None:
    """Return what `set_event_loop` was last given in this thread (`_local._loop` of the policy)."""
    local = getattr(current_policy(), "_local", None)
    return getattr(local, "_loop", None)


class AllTasks:
    """`asyncio.all_tasks`, with some tasks hidden from whoever calls it.

    A Python function up to 3.13, whose code is replaced, so that names imported earlier follow;
    in C from 3.14 on, where the modules' attributes are.

    Args:
        is_hidden: Says of a task whether it is left out.
    """

    def __init__(self, is_hidden: Callable[[asyncio.Task[Any]], bool]) -> None:
        self._is_hidden = is_hidden
        stock: Any = asyncio.all_tasks
        self.patches = PatchSet()
        if isinstance(stock, FunctionType):
            patch = CodePatch(stock, _visible_tasks)
            self._stock: Any = patch.original_function
            self.patches = PatchSet(patch)
        else:
            self._stock = stock
            self.patches = PatchSet(
                Patch(asyncio, "all_tasks", self.visible), Patch(asyncio.tasks, "all_tasks", self.visible)
            )

    def install(self) -> None:
        """Hide them from now on."""
        _hiding.append(self)
        self.patches.install()

    def restore(self) -> None:
        """Hide nothing any more."""
        self.patches.restore()
        _hiding.remove(self)

    def every(self, loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
        """Return the tasks of *loop* that are not done, hidden or not."""
        tasks: set[asyncio.Task[Any]] = self._stock(loop)
        return tasks

    def visible(self, loop: asyncio.AbstractEventLoop | None = None) -> set[asyncio.Task[Any]]:
        """Return the tasks of *loop* that are not hidden, as `asyncio.all_tasks` does."""
        return {task for task in self._stock(loop) if not self._is_hidden(task)}


_hiding: list[AllTasks] = []


def _visible_tasks(loop: Any = None) -> Any:
    # Runs with the globals of asyncio.tasks.
    from loopnb.internals.loop_health import _hiding

    return _hiding[-1].visible(loop)
