"""Where a task came from: the cell that runs, and the user's line that spawned it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import CodeType

    from loopnb.records import CellRef

#: The cell execution on whose behalf code runs. Set before a cell and never reset: `post_run_cell`
#: of an async cell runs in another Context, and tasks of an ended cell are its tasks still.
current_cell: ContextVar[CellRef | None] = ContextVar("current_cell", default=None)


def line_of(code: CodeType, instruction: int) -> int:
    """Return the line of *code* that holds the instruction at byte offset *instruction*."""
    for _start, end, line in code.co_lines():
        # From Python 3.12 on a module's code begins with an instruction on line 0.
        if end > instruction and line:
            return line
    return code.co_firstlineno
