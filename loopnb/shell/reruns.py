"""When a cell is run again, end the tasks that its earlier runs have left, or say that they live on."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from contextvars import Context
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from loopnb._cpython import is_done
from loopnb.errors import NestingError
from loopnb.nesting.loop_task import cancel_requests
from loopnb.shell.rejecting import RejectedByInterrupt
from loopnb.texts import say
from loopnb.tracking.background import is_background
from loopnb.tracking.cells import current_cell
from loopnb.tracking.holding import end_task, is_held
from loopnb.views import names_of

if TYPE_CHECKING:
    import ast

    from loopnb.records import CellRef
    from loopnb.session import Session
    from loopnb.shell.cells import Cells


class Reruns:
    """Looks after the tasks that earlier runs of a cell have left, as `LoopNB.on_rerun` says.

    "cancel" ends them before the new run begins. "tell" names them after the new run, since the cell may end
    them itself.

    Args:
        shell: The shell.
        session: Its session.
        cells: Knows when cells end.
    """

    def __init__(self, shell: Any, session: Session, cells: Cells) -> None:
        self._shell = shell
        self._session = session
        self._cells = cells
        self._hooks = ExitStack()
        self._told: set[str] = set()  # the ids of cells
        self._newest: CellRef | None = None
        self._begun: CellRef | None = None  # set until IPython shows us the code of the cell
        # Tasks that we have cancelled. A second cancel would end their cleanup.
        self._cancelled: WeakSet[asyncio.Task[Any]] = WeakSet()

    def start(self) -> None:
        """Look at cells from the next one on.

        Start `Cells` first, so that it sees each cell before this object does.
        """
        self._shell.events.register("pre_run_cell", self._begin)
        self._hooks.callback(self._cells.call_after(self._tell))

    def stop(self) -> None:
        """Stop looking at cells."""
        self._shell.events.unregister("pre_run_cell", self._begin)
        self._hooks.close()

    def check(self, _tree: ast.AST) -> None:
        """End the tasks of the cell's earlier runs. Called when its code has compiled, right before it runs.

        Called in the cell's thread. Blocks the cell, not the loop, until they have ended or
        `LoopNB.rerun_grace` seconds have passed.

        Raises:
            RejectedByInterrupt: An interrupt has ended the wait. The cell does not run.
        """
        cell, self._begun = self._begun, None
        if cell is None or self._session.settings.on_rerun != "cancel":
            return
        left: list[asyncio.Task[Any]] = []
        try:
            left += self._session.owner.call(self._cancel_left_of, cell)
            if left:
                self._wait_for(left)
        except KeyboardInterrupt:
            still = names_of([task for task in left if not is_done(task)])
            raise RejectedByInterrupt(
                "interrupted while tasks of the cell's earlier run were ending, so the cell was not run. "
                f"They have been cancelled; still ending: {still or 'none'}. "
                "To go on waiting, run the cell again."
            ) from None

    def _begin(self, _info: object) -> None:
        cell = current_cell.get()
        # If the cell is still the newest one, a magic runs another cell inside it.
        self._begun, self._newest = (None if cell == self._newest else cell), cell

    def _tell(self) -> None:
        """Name the tasks of earlier runs of the cell that has just ended, once for each cell."""
        cell = self._newest
        if cell is None or cell.cell_id is None or cell.cell_id in self._told:
            return
        if self._session.settings.on_rerun != "tell" or not self._session.tracker.runs.is_rerun(cell):
            return
        left = [task for task in self._left_of(cell) if not cancel_requests(task) and not is_held(task)]
        if left:
            self._told.add(cell.cell_id)
            count, live = ("A task", "lives") if len(left) == 1 else (f"{len(left)} tasks", "live")
            # Write in the Context of the cell, so that the line goes to it.
            context = self._session.tracker.runs.context_of(cell) or Context()
            context.copy().run(
                say,
                f"{count} of earlier runs of this cell {live} on: {names_of(left)}. '%loopnb cancel --cell "
                f'{cell.execution_count}\' cancels all tasks of the cell. LoopNB.on_rerun = "cancel" cancels '
                'them at each run, and "keep" hides this line.',
            )

    def _left_of(self, cell: CellRef) -> list[asyncio.Task[Any]]:
        left = [task for task in self._session.tracker.live() if self._is_earlier_run(task, cell)]
        ours = self._session.waiting_for_caller() if left else set()
        return [task for task in left if task not in ours]

    def _cancel_left_of(self, cell: CellRef) -> list[asyncio.Task[Any]]:
        left = self._left_of(cell)
        known: set[int] = set()
        for task in left:
            if task not in self._cancelled:
                end_task(task, known)
        self._cancelled.update(left)
        return left

    def _is_earlier_run(self, task: asyncio.Task[Any], cell: CellRef) -> bool:
        spawned_by = self._session.tracker.origin_of(task).cell
        if spawned_by is None or spawned_by == cell or spawned_by.cell_id is None:
            return False
        # Not a background task: the new run replaces that in any case.
        return spawned_by.cell_id == cell.cell_id and not is_background(task)

    def _wait_for(self, tasks: list[asyncio.Task[Any]]) -> None:
        grace = float(self._session.settings.rerun_grace)
        try:
            left = self._session.run(_ending(tasks, grace))
        except NestingError as error:
            say(f"{names_of(tasks)}, left by the cell's earlier run, may still be ending: {error.reason}.")
        except SystemExit as error:
            say(f"a task that the cell's earlier run has left ended in {error!r}.")
        else:
            if left:
                say(
                    f"{names_of(left)}, left by the cell's earlier run, did not end within "
                    f"{grace:g} s of being cancelled (LoopNB.rerun_grace); the cell runs now."
                )


async def _ending(tasks: list[asyncio.Task[Any]], grace: float) -> list[asyncio.Task[Any]]:
    """Wait at most *grace* seconds for *tasks*, and return those that have not ended."""
    if grace == 0:
        return []
    _ended, pending = await asyncio.wait(tasks, timeout=grace)
    return list(pending)
