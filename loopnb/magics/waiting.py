"""`%loopnb wait`: wait for tasks, show here what they print meanwhile, and raise what failed.

Use it in the last cell of a notebook that nbclient, nbconvert, papermill or `jupyter execute` runs. These end
the kernel after the last cell, and drop what comes for a cell that has ended.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from loopnb.errors import TaskNotFoundError
from loopnb.kernel.output import moved_here
from loopnb.magics.failing import error_from
from loopnb.nesting.fatal import is_fatal
from loopnb.tracking.history import EndedTask
from loopnb.tracking.holding import is_held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextvars import Context

    from loopnb.records import CellRef
    from loopnb.session import Session
    from loopnb.shell.cells import Cells

    Tasks = list[asyncio.Task[Any]]

#: How many late tasks are named.
_NAMED = 10
_TIMEOUT = re.compile(r"(?:^|\s)(?:-t|--timeout)(?:[\s=]+(\S+)|(?=\s|$))")


def take_timeout(rest: str) -> tuple[str, float | None]:
    """Return the arguments without `-t SECONDS`, and those seconds; None if the option is not given.

    Raises:
        UsageError: What follows `-t` is not a number above 0.
    """
    found = _TIMEOUT.search(rest)
    if found is None:
        return rest, None
    try:
        seconds = float(found[1] or "")
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UsageError(f"%loopnb wait: -t takes seconds above 0, not {found[1] or ''!r}.")
    return (rest[: found.start()] + rest[found.end() :]).strip(), seconds


class Waiting:
    """Waits for tasks. IPython calls it in the thread of the cell. It blocks the cell, not the loop.

    Args:
        shell: The shell.
        session: Its session.
        cells: Knows which cells execute.
    """

    def __init__(self, shell: Any, session: Session, cells: Cells) -> None:
        self._shell = shell
        self._session = session
        self._cells = cells

    def wait_for_cells(self, is_wanted: Callable[[CellRef | None], bool], timeout: float | None) -> None:
        """Wait until the tasks of some cells have ended, also those that are spawned meanwhile.

        Tasks that hold a context manager for later cells do not count, nor do those that wait for the caller.
        Failures that nobody has looked at count even if they came before the wait.

        Args:
            is_wanted: Given the cell that spawned a task, returns True if the task is to be waited for.
            timeout: Seconds; None waits as long as it takes.

        Raises:
            TimeoutError: *timeout* has passed. The tasks go on.
            BaseException: What a task failed with; a group if several have failed, or if others are late.
        """

        def live() -> Tasks:
            ours, tracker = self._session.waiting_for_caller(), self._session.tracker
            return [
                task
                for task in tracker.live()
                if not is_held(task) and task not in ours and is_wanted(tracker.origin_of(task).cell)
            ]

        late = self._wait(live, is_wanted, timeout)
        self._raise(self._session.owner.call(self._session.failures.take_unseen, is_wanted), late, timeout)

    def wait_for_task(self, wanted: str, timeout: float | None) -> None:
        """Wait until the task with that name or number has ended, and raise what it failed with.

        If it has ended before, only its failure is raised.

        Raises:
            TaskNotFoundError: There is no such task, and none that has ended is remembered.
            TimeoutError, BaseException: As `wait_for_cells`.
        """
        owner, tracker = self._session.owner, self._session.tracker
        task, failure = owner.call(self._find, wanted)
        late: list[str] = []
        if task is not None:
            cell = owner.call(tracker.origin_of, task).cell
            late = self._wait(lambda: [] if task.done() else [task], lambda other: other == cell, timeout)
            failure = owner.call(self._failure_of, task)
        if failure is not None:
            self._session.failures.seen(failure.origin.number)
        self._raise([failure] if failure is not None else [], late, timeout)

    def _find(self, wanted: str) -> tuple[asyncio.Task[Any] | None, EndedTask | None]:
        """Return the live task, or None and how the ended one failed, if it did."""
        tracker = self._session.tracker
        try:
            return tracker.find(wanted), None
        except TaskNotFoundError:
            ended = tracker.find_ended(wanted)
            if ended is None:
                raise
            return None, ended if ended.state == "raised" else None

    def _failure_of(self, task: asyncio.Task[Any]) -> EndedTask | None:
        """Return how *task* failed, and count that as looked at; None if it has not failed."""
        error = None if not task.done() or task.cancelled() else task.exception()
        if error is None or is_fatal(error):  # a fatal error has come out of the loop
            return None
        return EndedTask(self._session.tracker.origin_of(task), task.get_name(), "raised", error)

    def _wait(
        self,
        live: Callable[[], Tasks],
        is_wanted: Callable[[CellRef | None], bool],
        timeout: float | None,
    ) -> list[str]:
        """Wait until *live* returns no tasks. Return in words what is left after the timeout."""
        contexts = self._session.owner.call(self._contexts_of_ended, is_wanted)
        with moved_here(self._shell, contexts):
            return self._session.run(self._left(live, timeout))

    def _contexts_of_ended(self, is_wanted: Callable[[CellRef | None], bool]) -> Iterable[Context]:
        def has_ended(cell: CellRef | None) -> bool:
            return is_wanted(cell) and not self._cells.is_executing(cell)

        return self._session.tracker.runs.contexts_of(has_ended)

    async def _left(self, live: Callable[[], Tasks], timeout: float | None) -> list[str]:
        loop = self._session.loop
        until = None if timeout is None else loop.time() + timeout
        while tasks := live():
            seconds = None if until is None else until - loop.time()
            if seconds is not None and seconds <= 0:
                records = self._session.tracker.records_of(tasks)
                return [f"{record.label}, {record.doing}" for record in records]
            await asyncio.wait(tasks, timeout=seconds)
            del tasks  # so that the finalizer of a task that nobody awaits can report its failure
            await asyncio.sleep(0)  # whoever awaits one of them gets to retrieve its error first
        return []

    def _raise(self, failures: list[EndedTask], late: list[str], timeout: float | None) -> None:
        if late:
            more = f" and {len(late) - _NAMED:,} more" if late[_NAMED:] else ""
            error: BaseException = TimeoutError(
                f"not ended within {timeout:g} s: {'; '.join(late[:_NAMED])}{more}. They go on."
            )
            if failures:
                error = BaseExceptionGroup("tasks failed, and others are late", [error_from(failures), error])
            raise error
        if failures:
            raise error_from(failures)
