"""Remember which live tasks are `%%aloop -b` cells, and to which cell each belongs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from loopnb.tracking.cells import current_cell

if TYPE_CHECKING:
    import asyncio
    from contextvars import Context

    from loopnb.records import CellRef


@dataclass(frozen=True, slots=True)
class BackgroundRun:
    """One execution of a `%%aloop -b` cell.

    Attributes:
        cell: The execution that started it; None if no cell did.
        name: The name that the user gave it.
        text: The source of its cell. It identifies an unnamed run of a cell without an id.
        number: `CellRef.background` of the code that belongs to it; None for a task that a run has left.
    """

    cell: CellRef | None
    name: str | None
    text: str
    number: int | None = None

    def is_earlier_run_of(self, other: BackgroundRun) -> bool:
        """Return True if both are runs of one cell, but were not started by one execution."""
        if self.cell is not None and self.cell == other.cell:
            return False
        ids = [run.cell.cell_id if run.cell is not None else None for run in (self, other)]
        if ids != [None, None]:
            return ids[0] == ids[1]
        return self.name == other.name and (self.name is not None or self.text == other.text)


#: The live background tasks. It outlives a session, since the tasks outlive a reload of the extension.
live_runs: dict[asyncio.Task[Any], BackgroundRun] = {}


#: Numbers the background runs of the process. After a reload, no number comes twice.
_numbers = itertools.count(1)


def number_run(context: Context) -> int | None:
    """Make *context* that of a new background run, and return its number.

    Code that runs there, or in a copy of it, belongs to that run: the tasks it spawns, their tasks, and the
    callbacks of connections. Returns None if *context* belongs to no cell.
    """
    cell = context.get(current_cell)
    if cell is None:
        return None
    number = next(_numbers)
    context.run(current_cell.set, replace(cell, background=number))
    return number


def is_background(task: asyncio.Task[Any]) -> bool:
    """Return True if *task* is a live `%%aloop -b` cell. Any thread."""
    return task in live_runs
