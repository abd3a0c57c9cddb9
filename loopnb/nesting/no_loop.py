"""Hide the running loop from one stack, as if in a script: `with loopnb.noloop():`.

The wish. Some libraries check for a running loop, and refuse to work if there is one. Their blocking calls
would work here as nested runs, if only they did not check.

The solution. While the stack runs inside the block, the thread has no running loop, and the loop no current
task. This view belongs to the stack, not to the thread. A blocking call is a nested run, and lifts the view
(`lifted`) before it parks the stack. So other stacks see the loop as it is, and the rest of the engine need
not know of views. When the stack resumes, its blocking call ends and restores the view.

A library may leave a loop of its own running in a greenlet, as Playwright's sync API does. In the next such
block, the thread sees the library's loop as running, as in the next line of a script. Outside of such blocks,
that would be the wrong running loop for the thread (`mend_running_loop`).

What it cannot do. Only a nested run may suspend the stack. If its task awaits inside the block, that `await`
is cancelled (`_View.note_step_left`), and the block ends in a RuntimeError. The first step of an eager task
has no such protection.

Call everything in the thread of the loop. Nothing here blocks.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from loopnb.nesting import _cpython
from loopnb.nesting.stack_switching import is_web_loop, only_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

#: What asyncio says where no loop runs.
_NO_RUNNING = "no running event loop"
NO_LOOP = (
    "`with loopnb.noloop():` and %%noloop hide the loop. Outside of them, `await` and asyncio.create_task() "
    "work; inside, asyncio.run(coro) and loopnb.spawn(coro)."
)
"""A note on an error that says so and leaves a block. Later, nothing else tells that the loop was hidden."""
_AWAITED = (
    "cannot await inside `with loopnb.noloop():`, where no loop runs. Await outside the block, or call "
    "asyncio.run() in it"
)


class _Left(NamedTuple):
    """A loop that a library's greenlet has left running, and the task in whose step that greenlet is."""

    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[Any] | None


class _Here(threading.local):
    """What this thread sees."""

    #: The view of the stack that runs now, if it sees no loop.
    view: _View | None = None
    #: What a library had left running in a greenlet when the last block ended.
    left: _Left | None = None


# Process-wide: a script needs no session for it.
_here = _Here()


class _View:
    """The loop and the task that one stack does not see.

    Args:
        loop: The running loop.

    Attributes:
        loop: As given.
        has_awaited: The task has awaited inside the block.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.has_awaited = False
        self.task = _cpython.current_task(loop)

    # A signal handler may raise anywhere in these methods. `show` can then be called again.

    def hide(self, left: _Left | None = None) -> None:
        """Hide loop and task. If *left* is given, the thread sees that loop as running."""
        _here.view = self if left is None else None
        if self.task is not None:
            _cpython.leave_task(self.loop, self.task)
        _cpython.set_running_loop(None if left is None else left.loop)
        if left is not None:
            _cpython.fill_task_slot(left.loop, left.task)

    def show(self) -> None:
        """Show them again. Does nothing a second time."""
        running = _cpython.running_loop()
        if running is not None and running is not self.loop:
            _cpython.empty_task_slot(running)
        _cpython.set_running_loop(self.loop)
        if self.task is not None and not self.has_awaited and _cpython.current_task(self.loop) is None:
            _cpython.enter_task(self.loop, self.task)
        _here.view = None

    def note_step_left(self) -> None:
        """Note that the task awaits inside the block: show the loop to the others, and fail the await."""
        self.has_awaited = True
        self.show()
        if self.task is not None:
            self.task.cancel()


def hidden_loop() -> asyncio.AbstractEventLoop | None:
    """Return the running loop of this thread if it is hidden from the calling stack, or None."""
    view = _here.view
    return None if view is None else view.loop


def loop_here() -> asyncio.AbstractEventLoop | None:
    """Return the running loop of this thread, even if it is hidden from the calling stack."""
    return _cpython.running_loop() or hidden_loop()


def mend_running_loop(loop: asyncio.AbstractEventLoop) -> bool:
    """Make *loop* the running loop of this thread again. Return False if there is nothing to mend.

    The loop that a library has left running is kept for the next stack that hides the notebook's loop.
    """
    running = _cpython.running_loop()
    if running is None or running is loop or not loop.is_running():
        return False
    task = _cpython.empty_task_slot(running)
    _cpython.set_running_loop(loop)
    if task is not None and task.get_loop() is loop:  # from Python 3.14 on, a thread has one current task
        _cpython.fill_task_slot(loop, task)
        task = None
    if running.is_running():
        _here.left = _Left(running, task)
    return True


def end_view() -> None:
    """Show the loop again to the calling stack, whose cell has ended inside a block that it never left."""
    if _here.view is not None:
        _here.view.show()


@contextmanager
def lifted() -> Iterator[None]:
    """Show the loop to the calling stack while the block runs. Does nothing if it is not hidden."""
    view = _here.view
    if view is None:
        yield
        return
    try:
        view.show()
        yield
    finally:
        view.hide()


class NoLoop:
    """Hides the running loop from the calling stack while the block runs; see `loopnb.noloop`."""

    def __init__(self) -> None:
        self._view: _View | None = None

    def __enter__(self) -> None:
        running = _cpython.running_loop()
        if running is None:
            return
        if is_web_loop(running):
            raise only_loop("hide the loop", "Leave out noloop: asyncio.run() works as it is.")
        left, _here.left = _here.left, None
        if left is not None and not left.loop.is_running():
            left = None
        self._view = _View(running)
        try:
            self._view.hide(left)
        except BaseException:
            self._view.show()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        view, self._view = self._view, None
        if view is None:
            return
        if view.has_awaited:
            if isinstance(error, asyncio.CancelledError) and view.task is not None:
                view.task.uncancel()
                raise RuntimeError(_AWAITED).with_traceback(tb) from None
            return
        running = _cpython.running_loop()
        try:
            if running is not None and running is not view.loop and running.is_running():
                _here.left = _Left(running, _cpython.empty_task_slot(running))
        finally:
            view.show()
        if error is not None and _is_about_no_loop(error):
            error.add_note(NO_LOOP)


def _is_about_no_loop(error: BaseException) -> bool:
    # By type: the text may be an object of the user's.
    return type(error) is RuntimeError and [text for text in error.args if type(text) is str] == [_NO_RUNNING]


# -- replacements of methods of loops ------------------------------------------------------------


def is_running(stock: Callable[[], bool], self: asyncio.AbstractEventLoop) -> bool:
    """Return True if the loop runs and is not hidden from the caller."""
    return self is not hidden_loop() and stock()


def call_exception_handler(
    stock: Callable[[dict[str, Any]], None], self: asyncio.AbstractEventLoop, context: dict[str, Any]
) -> None:
    """Report an error. If it comes from a task that awaited inside the block, fail that await instead."""
    view = _here.view
    if view is not None and view.loop is self and _cpython.is_called_for_a_handle():
        view.note_step_left()
    else:
        stock(context)
