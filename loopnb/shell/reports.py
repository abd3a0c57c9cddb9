"""Report a cell's tasks in its output: unseen failures, leftovers of `asyncio.run()`, slow cleanups."""

from __future__ import annotations

import sys
import threading
from contextlib import ExitStack
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from loopnb._cpython import is_done
from loopnb.nesting.loop_task import cancel_requests
from loopnb.tracking.cells import current_cell
from loopnb.tracking.holding import is_held
from loopnb.views import names_of

if TYPE_CHECKING:
    import asyncio

    from loopnb.records import CellRef
    from loopnb.session import Session
    from loopnb.shell.cells import Cells
    from loopnb.shell.error_notes import ErrorNotes
    from loopnb.tracking.history import EndedTask
    from loopnb.tracking.tracked import Run

#: Failures of one cell that get a line each. The others share one line.
_NAMED = 10
#: Seconds that the tasks of an interrupted cell get to clean up, before we name them.
_ENDS_WITHIN = 0.1


class Reports:
    """Writes into the output of a cell what became of the tasks that it spawned. The loop's thread.

    Args:
        shell: The shell.
        session: Its session.
        cells: Knows which cell executes.
        error_notes: Explains errors.
    """

    def __init__(self, shell: Any, session: Session, cells: Cells, error_notes: ErrorNotes) -> None:
        self._shell = shell
        self._session = session
        self._cells = cells
        self._error_notes = error_notes
        self._hooks = ExitStack()
        self._reported: set[int] = set()  # numbers of tasks that `asyncio.run()` has left
        # The executing cell. Not `current_cell`: `post_run_cell` of an `await` cell comes in another Context.
        self._here = threading.local()

    def start(self) -> None:
        """Report from now on. Start `Cells` first, so that it sees each cell before this object does."""
        self._session.failures.start(self.failed)
        self._shell.events.register("pre_run_cell", self._begin)
        self._shell.events.register("post_run_cell", self._end)
        self._hooks.callback(self._cells.call_after(self._after_cell))

    def stop(self) -> None:
        """Stop reporting."""
        self._shell.events.unregister("pre_run_cell", self._begin)
        self._shell.events.unregister("post_run_cell", self._end)
        self._hooks.close()
        self._session.failures.stop()

    def failed(self, cell: CellRef | None, failures: list[EndedTask]) -> None:
        """Name the tasks of *cell* that failed and that nobody awaited, or that were dropped."""
        failures = sorted(failures, key=lambda task: task.origin.number)
        for task in failures[:_NAMED]:
            self._say(cell, self._line_of(task))
        if len(failures) > _NAMED:
            self._say(
                cell, f"So did {len(failures) - _NAMED} more tasks; '%loopnb tasks --finished' lists them."
            )

    def _line_of(self, task: EndedTask) -> str:
        if task.state != "dropped":
            return (
                f"Task {task.name!r} failed: {self._error_notes.line(task.error)}. Nobody has awaited it; "
                f"'%loopnb where {task.origin.number}' shows the traceback."
            )
        record = self._session.tracker.record_ended(task)
        # A task that is dropped before its cell has ended may leave no place.
        where = f"at {record.waits_at}" if record.waits_at else f"in {record.coro}()"
        site = f", spawned at {record.spawn_site}," if record.spawn_site else ""
        return (
            f"Task {task.name!r}{site} was dropped while it waited {where}: nothing referred to it any more. "
            "Keep it in a variable, or start it with loopnb.spawn()."
        )

    def _begin(self, info: Any) -> None:
        self._here.cell = cell = current_cell.get()
        if cell is not None:
            self._session.tracker.runs.begin(cell, copy_context(), info.raw_cell or "")

    def _end(self, result: Any) -> None:
        if isinstance(getattr(result, "error_in_exec", None), KeyboardInterrupt):
            self._session.owner.call(self._watch_cleanups, getattr(self._here, "cell", None))

    def _watch_cleanups(self, cell: CellRef | None) -> None:
        """Name, a moment later, the cancelled tasks of an interrupted cell that have not ended by then."""
        tracker = self._session.tracker
        tasks = [
            task for task in tracker.live() if cancel_requests(task) and tracker.origin_of(task).cell == cell
        ]
        if tasks:
            say = partial(self._say_what_cleans_up, cell, WeakSet(tasks))
            self._session.loop.call_later(_ENDS_WITHIN, say, context=Context())

    def _say_what_cleans_up(self, cell: CellRef | None, cancelled: WeakSet[asyncio.Task[Any]]) -> None:
        tasks = [task for task in cancelled if not is_done(task)]
        if tasks:
            self._say(
                cell,
                f"The cell was interrupted. Cancelled, but not ended yet: {names_of(tasks)}. "
                "'%loopnb tasks' shows what they wait for.",
            )

    def _after_cell(self) -> None:
        self._say_what_runs_left()
        self._session.failures.after_cell()

    def _say_what_runs_left(self) -> None:
        tracker = self._session.tracker
        left: dict[Run, list[asyncio.Task[Any]]] = {}
        for task in tracker.live():
            origin = tracker.origin_of(task)
            if (
                origin.run is not None
                and not is_held(task)
                and origin.number not in self._reported
                and tracker.is_left_over(origin)
            ):
                left.setdefault(origin.run, []).append(task)
                self._reported.add(origin.number)
        for run, tasks in left.items():
            cell = tracker.origin_of(tasks[0]).cell
            count = "a task" if len(tasks) == 1 else f"{len(tasks)} tasks"
            self._say(
                cell,
                f"asyncio.run() at {tracker.place(run.code, run.instruction, cell)} has left {count} "
                f"running: {names_of(tasks)}. '%loopnb tasks' lists what goes on.",
            )

    def _say(self, cell: CellRef | None, line: str) -> None:
        """Write *line* to standard error, in the output of *cell*."""
        context = self._session.tracker.runs.context_of(cell) or Context()
        context.copy().run(_write, line)


def _write(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
