"""Remember which live tasks are `%%aloop -b` cells, and which cell each belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from loopnb.records import CellRef


@dataclass(frozen=True, slots=True)
class BackgroundRun:
    """One execution of a `%%aloop -b` cell.

    Attributes:
        cell: The execution that started it; None if no cell did.
        name: The name that the user gave it.
        text: The source of its cell. It identifies an unnamed run of a cell without an id.
    """

    cell: CellRef | None
    name: str | None
    text: str

    def is_earlier_run_of(self, other: BackgroundRun) -> bool:
        """Return True if both are runs of one cell. Runs that one execution began do not count."""
        if self.cell is not None and self.cell == other.cell:
            return False
        ids = [run.cell.cell_id if run.cell is not None else None for run in (self, other)]
        if ids != [None, None]:
            return ids[0] == ids[1]
        return self.name == other.name and (self.name is not None or self.text == other.text)


#: The live background tasks. It outlives a session, since the tasks outlive a reload of the extension.
live_runs: dict[asyncio.Task[Any], BackgroundRun] = {}


def is_background(task: asyncio.Task[Any]) -> bool:
    """Return True if *task* is a live `%%aloop -b` cell. Any thread."""
    return task in live_runs
