"""The tasks of `%%aloop -b`: one for each cell, their failures, their handles."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from IPython.core.error import UsageError

from loopnb import views
from loopnb.frames import users_frames
from loopnb.nesting._cpython import error_of
from loopnb.nesting.loop_task import LoopTask
from loopnb.texts import error_text, repr_text
from loopnb.tracking.background import BackgroundRun, live_runs

if TYPE_CHECKING:
    from loopnb.magics.options import AloopOptions
    from loopnb.magics.source import Source
    from loopnb.records import CellRef
    from loopnb.session import Session


#: Seconds until a cell says what it waits for.
_SILENT = 1.0


class Background:
    """Starts and ends background tasks. The loop's thread.

    Args:
        shell: The shell, which shows tracebacks.
        session: Its session.
    """

    def __init__(self, shell: Any, session: Session) -> None:
        self._shell = shell
        self._session = session
        # A second cancel would end their cleanup.
        self._cancelled: WeakSet[asyncio.Task[Any]] = WeakSet()

    async def make_room(self, options: AloopOptions, cell: CellRef | None, source: Source) -> None:
        """End what the new run replaces, first of all its cell's earlier run: cancel, await its cleanup.

        Raises:
            UsageError: The name is in use by another cell, and `--replace` was not given.
            CancelledError, KeyboardInterrupt: Interrupted while it waits; the earlier run goes on ending.
        """
        while ending := self.to_be_ended(options, cell, source):
            for task in ending.difference(self._cancelled):
                task.cancel()
            self._cancelled.update(ending)
            try:
                await self._wait_for(ending)
            except (asyncio.CancelledError, KeyboardInterrupt) as error:  # the latter in a terminal
                raise type(error)(
                    f"the earlier run {_names_of(ending)} has been cancelled and has not ended yet, so the "
                    "new one was not started."
                ) from None

    def to_be_ended(
        self, options: AloopOptions, cell: CellRef | None, source: Source
    ) -> set[asyncio.Task[Any]]:
        """Return what the new run replaces and has to wait for. UsageError as of `make_room`."""
        here = _started(options, cell, source)
        own = {task for task, other in live_runs.items() if other.is_earlier_run_of(here)}
        named = [task for task in self._session.tracker.live() if task.get_name() == options.name]
        others = [task for task in named if task not in own and not self._is_of(task, cell)]
        if others and not options.replaces:
            raise self._in_use(others[-1])
        ending = set() if options.keeps else own.union(others)
        return {task for task in ending if not task.done()} - self._session.waiting_for_caller()

    def _is_of(self, task: asyncio.Task[Any], cell: CellRef | None) -> bool:
        """Say whether an earlier execution of *cell* has spawned *task*: its names are no other cell's."""
        other = self._session.tracker.origin_of(task).cell
        if cell is None or other is None or cell == other:
            return False
        return cell.cell_id == other.cell_id is not None

    async def _wait_for(self, tasks: set[asyncio.Task[Any]]) -> None:
        _ended, left = await asyncio.wait(tasks, timeout=_SILENT)
        if left:
            sys.stderr.write(
                f"loopnb: waiting for the earlier run to end, which has been cancelled: "
                f"{', '.join(map(self.tell, left))}. An interrupt ends the wait.\n"
            )
            await asyncio.wait(left)

    def add(
        self, task: asyncio.Task[Any], options: AloopOptions, cell: CellRef | None, source: Source
    ) -> None:
        """Take care of a background task that has just been spawned."""
        live_runs[task] = _started(options, cell, source)
        if isinstance(task, LoopTask):
            task.tell = self.tell
        # The Context of this call is the cell's: the traceback goes to the cell, too.
        if options.timeout is None:
            task.add_done_callback(self._report)
        else:
            self._keep_deadline(task, options.timeout)

    def tell(self, task: asyncio.Task[Any]) -> str:
        """Return the repr of a handle: what the task is doing now."""
        record = self._session.tracker.record(task)
        if record.state == "returned":
            return f"<Task {record.name!r} returned {repr_text(task.result(), 60)}>"
        if record.is_finished:
            return f"<Task {record.name!r} {record.state}{': ' if record.error else ''}{record.error}>"
        return f"<Task {record.name!r} {record.doing}, {views.age_text(record.age_s)} old>"

    def _in_use(self, task: asyncio.Task[Any]) -> UsageError:
        cell, name = self._session.tracker.record(task).cell, task.get_name()
        return UsageError(
            f"%%aloop: the name {name!r} is in use by a task of {cell or 'other code'}. Choose another "
            f"name, end that one (%loopnb cancel {name}), or take the name over with --replace."
        )

    def _keep_deadline(self, task: asyncio.Task[Any], timeout: float) -> None:
        deadline = self._session.deadline(task, timeout)
        deadline.__enter__()

        def ended(task: asyncio.Task[Any]) -> None:
            error = asyncio.CancelledError() if task.cancelled() else None
            try:
                deadline.__exit__(None, error, None)
            except TimeoutError as late:
                live_runs.pop(task, None)
                self._show(late.with_traceback(None))
            else:
                self._report(task)

        task.add_done_callback(ended)

    def _report(self, task: asyncio.Task[Any]) -> None:
        """Show a failure of a background task in its cell, as IPython would."""
        live_runs.pop(task, None)
        if task.cancelled():
            return
        error = error_of(task)  # not retrieved: who awaits the handle later on has seen it then
        if error is not None:
            self._session.failures.remember(task)
            self._show(error)

    def _show(self, error: BaseException) -> None:
        traceback = users_frames(error.__traceback__)
        try:
            raise error  # of an exception group IPython shows what is being handled, whatever it is given
        except BaseException:  # noqa: BLE001  it is shown
            error.__traceback__ = traceback
            try:
                self._shell.showtraceback((type(error), error, traceback), tb_offset=0)
            except Exception:  # noqa: BLE001  its own code, such as its __str__
                sys.stderr.write(f"loopnb: {error_text(error)}; showing its traceback failed.\n")


def _started(options: AloopOptions, cell: CellRef | None, source: Source) -> BackgroundRun:
    return BackgroundRun(cell, options.name, source.text)


def _names_of(tasks: set[asyncio.Task[Any]]) -> str:
    return views.names_text(sorted(task.get_name() for task in tasks))
