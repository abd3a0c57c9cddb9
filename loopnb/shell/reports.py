"""What a cell is told of its tasks after they have left it: failures, leftovers of `asyncio.run()`."""

from __future__ import annotations

import sys
import threading
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from loopnb.tracking.cells import current_cell
from loopnb.views import names_text

if TYPE_CHECKING:
    import asyncio

    from loopnb.records import CellRef
    from loopnb.session import Session
    from loopnb.shell.cells import Cells
    from loopnb.shell.error_notes import ErrorNotes
    from loopnb.tracking.history import EndedTask
    from loopnb.tracking.tracked import Run

#: Failures of one cell that are named at once; of more there is one line for the rest.
_NAMED = 10
#: Seconds that tasks of an interrupted cell have to end in before they are named.
_ENDS_WITHIN = 0.1


class Reports:
    """Tells cells what became of their tasks, in the output of the cell that spawned them.

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
        self._said: set[int] = set()
        self._here = threading.local()  # its cell; the end of an `await` cell is told in another Context

    def start(self) -> None:
        """Report from now on. To be called when `Cells` has been started: it knows a cell first."""
        self._session.failures.start(self.failed)
        self._shell.events.register("pre_run_cell", self._begin)
        self._shell.events.register("post_run_cell", self._end)
        self._cells.after.append(self._after_cell)

    def stop(self) -> None:
        """Report no more."""
        self._shell.events.unregister("pre_run_cell", self._begin)
        self._shell.events.unregister("post_run_cell", self._end)
        self._cells.after.remove(self._after_cell)
        self._session.failures.stop()

    def failed(self, cell: CellRef | None, failures: list[EndedTask]) -> None:
        """Name tasks of *cell* that failed and that nobody awaited."""
        failures = sorted(failures, key=lambda one: one.origin.number)
        for one in failures[:_NAMED]:
            self._say(
                cell,
                f"Task {one.name!r} failed: {self._error_notes.line(one.error)}. Nobody has awaited it; "
                f"'%loopnb where {one.origin.number}' shows the traceback.",
            )
        if len(failures) > _NAMED:
            self._say(
                cell, f"So did {len(failures) - _NAMED} more tasks; '%loopnb tasks --finished' lists them."
            )

    def _begin(self, _info: object) -> None:
        self._here.cell = cell = current_cell.get()
        if cell is not None:
            self._session.tracker.runs.begin(cell, copy_context())

    def _end(self, result: Any) -> None:
        if isinstance(getattr(result, "error_in_exec", None), KeyboardInterrupt):
            self._session.owner.call(self._look_what_goes_on_ending, getattr(self._here, "cell", None))

    def _look_what_goes_on_ending(self, cell: CellRef | None) -> None:
        """Name the tasks of an interrupted cell that have been cancelled and do not end soon."""
        tracker = self._session.tracker
        tasks = [
            task for task in tracker.live() if task.cancelling() and tracker.origin_of(task).cell == cell
        ]
        if tasks:
            say = partial(self._say_what_goes_on_ending, cell, WeakSet(tasks))
            self._session.loop.call_later(_ENDS_WITHIN, say, context=Context())

    def _say_what_goes_on_ending(self, cell: CellRef | None, cancelled: WeakSet[asyncio.Task[Any]]) -> None:
        tasks = [task for task in cancelled if not task.done()]
        if tasks:
            self._say(
                cell,
                f"loopnb: interrupted before what it had cancelled has ended: "
                f"{names_text(task.get_name() for task in tasks)}. '%loopnb tasks' says where it waits.",
            )

    def _after_cell(self) -> None:
        self._say_what_runs_left()
        self._session.failures.after_cell()

    def _say_what_runs_left(self) -> None:
        tracker = self._session.tracker
        left: dict[Run, list[asyncio.Task[Any]]] = {}
        for task in tracker.live():
            origin = tracker.origin_of(task)
            if origin.run is not None and origin.number not in self._said and tracker.is_left_over(origin):
                left.setdefault(origin.run, []).append(task)
                self._said.add(origin.number)
        for run, tasks in left.items():
            names = ", ".join(repr(task.get_name()) for task in tasks[:5]) + (", ..." if tasks[5:] else "")
            cell = tracker.origin_of(tasks[0]).cell
            count = "a task" if len(tasks) == 1 else f"{len(tasks)} tasks"
            self._say(
                cell,
                f"asyncio.run() at {tracker.place(run.code, run.instruction, cell)} has left {count} "
                f"running: {names}. '%loopnb tasks' lists what goes on.",
            )

    def _say(self, cell: CellRef | None, line: str) -> None:
        """Write one line to standard error, in the output of *cell*."""
        context = self._session.tracker.runs.context_of(cell) or Context()
        context.copy().run(_write, line)


def _write(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
