"""The tasks of `%%aloop -b`: one for each cell, their failures, their handles."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from loopnb import views
from loopnb.internals.tasks import LoopTask

if TYPE_CHECKING:
    from loopnb.ipython.options import AloopOptions
    from loopnb.ipython.source import Source
    from loopnb.records import CellRef
    from loopnb.session import Session


@dataclass(frozen=True, slots=True)
class _Started:
    """What is known of a live background task.

    Attributes:
        cell_id: Of its cell; None where the front end sends none.
        text: The source of its cell, by which an unnamed one without an id is known.
    """

    cell_id: str | None
    text: str


#: The live background tasks. They outlive a reload of the extension.
_live: dict[asyncio.Task[Any], _Started] = {}


class Background:
    """Starts and ends background tasks. The loop's thread.

    Args:
        shell: The shell, which shows tracebacks.
        session: Its session.
    """

    def __init__(self, shell: Any, session: Session) -> None:
        self._shell = shell
        self._session = session

    async def end_earlier_run(self, options: AloopOptions, cell: CellRef | None, source: Source) -> None:
        """End what an earlier run of the same cell left running: cancel, and wait for its cleanup.

        Raises:
            UsageError: The name is in use by another cell, and `--replace` was not given.
        """
        here = _Started(cell.cell_id if cell is not None else None, source.text)
        earlier = {task for task, other in _live.items() if _is_same_cell(here, other, options.name is None)}
        if options.name is not None:
            for task in self._named(options.name):
                if not (options.replaces or _may_replace(here, _live.get(task))):
                    raise self._in_use(options.name, task)
                earlier.add(task)
        earlier.discard(asyncio.current_task())
        for task in earlier:
            task.cancel()
        if earlier:
            await asyncio.wait(earlier)

    def add(
        self, task: asyncio.Task[Any], options: AloopOptions, cell: CellRef | None, source: Source
    ) -> None:
        """Take care of a background task that has just been spawned."""
        _live[task] = _Started(cell.cell_id if cell is not None else None, source.text)
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
            return f"<Task {record.name!r} returned {task.result()!r:.60}>"
        if record.is_finished:
            return f"<Task {record.name!r} {record.state}{': ' if record.error else ''}{record.error}>"
        doing = f"waiting for {record.waits_for}" if record.waits_for else record.state
        where = f" at {record.waits_at}" if record.waits_at else ""
        return f"<Task {record.name!r} {doing}{where}, {views.age_text(record.age_s)} old>"

    def _named(self, name: str) -> list[asyncio.Task[Any]]:
        return [task for task in self._session.tracker.live() if task.get_name() == name]

    def _in_use(self, name: str, task: asyncio.Task[Any]) -> UsageError:
        cell = self._session.tracker.record(task).cell
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
                _live.pop(task, None)
                self._show(late.with_traceback(None))
            else:
                self._report(task)

        task.add_done_callback(ended)

    def _report(self, task: asyncio.Task[Any]) -> None:
        """Show a failure of a background task in its cell, as IPython would."""
        _live.pop(task, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._session.failures.remember(task)
            self._show(error)

    def _show(self, error: BaseException) -> None:
        self._shell.showtraceback((type(error), error, error.__traceback__), tb_offset=0)


def _is_same_cell(here: _Started, other: _Started, is_unnamed: bool) -> bool:
    if here.cell_id is not None or other.cell_id is not None:
        return here.cell_id == other.cell_id
    return is_unnamed and here.text == other.text


def _may_replace(here: _Started, other: _Started | None) -> bool:
    """Say whether a cell may end a task of the name it wants: its own, or where no ids are sent."""
    return other is not None and (not here.cell_id or other.cell_id in (None, here.cell_id))
