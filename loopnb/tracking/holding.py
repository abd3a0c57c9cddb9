"""Keep async context managers open across cells: `await loopnb.hold(cm)`.

The wish. Enter a client, a session or a task group in one cell, use it in others, and leave it in yet
another.

What does not work. Calling `__aenter__` in one cell and `__aexit__` in another. Each cell is a task of its
own. anyio's cancel scopes, `asyncio.timeout` and task groups must be left by the task that has entered them.
Other context managers would be left in the Context of another cell, or not at all.

The solution. Each context manager gets a task that enters it, waits inside, and leaves it. Releasing it wakes
that task, so that its block ends normally. The first `%loopnb cancel` does the same; the second one cancels.
A context manager may itself cancel the task, as a task group does when a child fails. Then its block ends
with that CancelledError, as it expects.

Call everything in the loop's thread.
"""

from __future__ import annotations

import asyncio
from operator import is_
from typing import TYPE_CHECKING, Any

from loopnb.errors import NotHeldError
from loopnb.frames import runs_users_code, users_frames
from loopnb.nesting._cpython import error_of
from loopnb.texts import error_text, say
from loopnb.tracking.cells import current_cell
from loopnb.tracking.leaving import is_in_circle, leave
from loopnb.tracking.tracked import has_origin

if TYPE_CHECKING:
    from loopnb.records import CellRef
    from loopnb.tracking.cells import CellRuns
    from loopnb.tracking.failures import Failures

#: Seconds for which a cell waits in silence until what its earlier run held has been left.
_SILENT = 1.0


class Held:
    """A context manager that is held open in a task of its own.

    Args:
        manager: The context manager.
        name: The name that the user gave it, or None.
        cell: The cell that holds it; None if no cell does.
        loop: The loop.

    Attributes:
        manager, cell: As given.
        name: The name of its task.
        is_named: The user gave that name.
        entered: What entering it returned or raised.
        is_released: Its release has been requested.
    """

    def __init__(
        self, manager: Any, name: str | None, cell: CellRef | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.manager = manager
        self.cell = cell
        self.is_named = name is not None
        self.name = name if name is not None else f"held by {cell or 'other code'}"
        self.entered: asyncio.Future[Any] = loop.create_future()
        self.is_released = False
        self._leave: asyncio.Future[None] = loop.create_future()

    def release(self) -> None:
        """Make the task leave the context manager."""
        self.is_released = True
        if not self._leave.done():
            self._leave.set_result(None)

    @runs_users_code
    async def run(self) -> None:
        """Enter the context manager, stay inside until `release`, and leave it."""
        try:
            async with self.manager as value:
                if self.entered.done():  # cancelled, as was the cell that called hold()
                    return
                self.entered.set_result(value)
                await self._leave
        except BaseException as error:
            error.__traceback__ = users_frames(error.__traceback__)
            if self.entered.done():
                raise
            if isinstance(error, asyncio.CancelledError):
                self.entered.cancel()
            else:
                self.entered.set_exception(error)

    def is_meant(self, wanted: object) -> bool:
        """Return True if *wanted* is its value, its context manager or its name."""
        if wanted is self.manager or (isinstance(wanted, str) and wanted == self.name):
            return True
        entered = self.entered
        if wanted is None or not entered.done() or entered.cancelled() or error_of(entered) is not None:
            return False
        value = entered.result()
        if type(value) is type(wanted) is tuple and len(value) == len(wanted):  # unpacked, and packed again
            return all(map(is_, value, wanted))
        return wanted is value

    def has_name_of(self, other: Held) -> bool:
        """Return True if the user gave both of them the same name."""
        return self.is_named and other.is_named and self.name == other.name


#: Task -> what it holds, oldest first. Outlives a session, since the tasks outlive a reload.
_held: dict[asyncio.Task[Any], Held] = {}
#: Tasks that somebody awaits in `release`. Their errors are raised there and need no report. It outlives a
#: session, too.
_awaited: set[asyncio.Task[Any]] = set()


def is_held(task: asyncio.Task[Any]) -> bool:
    """Return True if *task* holds a context manager, or is about to enter it."""
    return task in _held


def end_task(task: asyncio.Task[Any], known: set[int] | None = None) -> None:
    """Cancel *task*. If it holds something, release that instead, unless its release was requested before.

    If it awaits itself, in a circle of tasks, only its own await is ended: `task.cancel()` would go round the
    circle until it raises RecursionError.

    Args:
        task: The task.
        known: One set for all tasks that are ended in this step, see `is_in_circle`.
    """
    held = _held.get(task)
    if held is None or held.is_released or not held.entered.done():
        if is_in_circle(task, set() if known is None else known):
            leave(task)
            return
        try:
            task.cancel()
        except RecursionError:  # a chain of some hundred tasks
            leave(task)
    else:
        held.release()


class Holds:
    """Holds context managers for the cells of one session.

    Args:
        loop: The persistent loop.
        failures: Keeps the failures that are reported here.
        runs: Knows which executions are of one cell.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, failures: Failures, runs: CellRuns) -> None:
        self._loop = loop
        self._failures = failures
        self._runs = runs

    async def hold(self, manager: Any, name: str | None) -> Any:
        """Enter *manager* in a task of its own, and return the value of entering it; see `loopnb.hold`."""
        _check_manager(manager)
        held = Held(manager, name, current_cell.get(), self._loop)
        earlier = [
            task
            for task, other in _held.items()
            if held.has_name_of(other) or self._runs.are_of_one_cell(held.cell, other.cell)
        ]
        for task in reversed(earlier):
            end_task(task)
            await _until_left_by(task)  # `_ended` reports a failure
        coro: Any = held.run()
        coro.__name__ = coro.__qualname__ = type(manager).__qualname__  # shown in lists of tasks
        task = self._loop.create_task(coro, name=held.name)
        _held[task] = held
        task.add_done_callback(self._ended)
        try:
            return await held.entered
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def release(self, wanted: object) -> None:
        """Release what is held under that name or value, and wait until it is left; see `loopnb.release`.

        Raises:
            NotHeldError: Nothing is held under it.
            BaseException: What leaving it raises.
        """
        found = [(task, held) for task, held in _held.items() if held.is_meant(wanted)]
        if not found:
            raise NotHeldError(wanted, [held.name for held in _held.values()])
        task, held = found[-1]
        held.release()
        _awaited.add(task)
        await asyncio.wait([task])
        task.result()

    async def release_all(self, grace: float) -> None:
        """Release everything, newest first. Cancel what has not been left within *grace* seconds in all."""
        try:
            async with asyncio.timeout(grace):
                for task, held in reversed(list(_held.items())):
                    held.release()
                    await asyncio.wait([task])
        except TimeoutError:
            for task in list(_held):
                task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Report in its cell if something ended without a release, or could not be left."""
        held = _held.pop(task)
        is_awaited = task in _awaited
        _awaited.discard(task)
        if held.entered.cancelled() or error_of(held.entered) is not None:
            return  # it was never entered, and the caller of hold() got the error
        error = None if task.cancelled() else error_of(task)
        if is_awaited or (held.is_released and error is None):
            return
        if error is not None:
            self._failures.remember(task)
        what = f"what {held.cell or 'other code'} held as {held.name!r}"
        number = task.number if has_origin(task) else None
        shown = "" if error is None or number is None else f" '%loopnb where {number}' shows the traceback."
        if held.is_released:
            say(f"{what} could not be left in order: {error_text(error)}.{shown}")
        else:
            reason = error_text(error) or (
                "it was cancelled" if task.cancelled() else "it has ended by itself"
            )
            say(f"{what} is gone: {reason}. To have it again, run its cell again.{shown}")


async def _until_left_by(task: asyncio.Task[Any]) -> None:
    """Wait until *task* has left what it holds. Say so if that takes long."""
    _ended, left = await asyncio.wait([task], timeout=_SILENT)
    if left:
        say(
            f"waiting for what was held as {task.get_name()!r}, which is still being left. (A task group "
            "waits for its tasks.) Interrupt the cell to stop waiting; then run it again to cancel them."
        )
        await asyncio.wait(left)


def _check_manager(manager: object) -> None:
    kind = type(manager)
    if hasattr(kind, "__aenter__") and hasattr(kind, "__aexit__"):
        return
    hint = ""
    if hasattr(kind, "__enter__"):
        hint = (
            " A synchronous one needs no task of its own: call its __enter__(), or use contextlib.ExitStack."
        )
    elif callable(manager):
        hint = " If it is a function that returns one, call it."
    raise TypeError(
        "loopnb.hold() takes an async context manager, what `async with` takes, not "
        f"{manager!r:.60} ({kind.__name__}).{hint}"
    )
