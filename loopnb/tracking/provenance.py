"""Where a task came from: the cell that runs, and the user's line that spawned it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from loopnb.internals import task_state, tasks
from loopnb.internals.asyncio_state import calling_frame

if TYPE_CHECKING:
    from types import CodeType

    from loopnb.records import CellRef

#: The cell execution on whose behalf code runs. Set before a cell and never reset: `post_run_cell`
#: of an async cell runs in another Context, and tasks of an ended cell are its tasks still.
current_cell: ContextVar[CellRef | None] = ContextVar("current_cell", default=None)

_OURS = {id(namespace) for namespace in (vars(tasks), globals())}


def passes_over(namespace: dict[str, object]) -> None:
    """Count frames of *namespace* as loopnb's own: they are no spawn sites."""
    _OURS.add(id(namespace))


def spawn_site(depth: int) -> tuple[CodeType | None, int]:
    """Return code and instruction of the user's frame that spawns a task now.

    Raw values cost 0.2 us; a formatted stack costs 20 us. `line_of` formats them when asked.

    Args:
        depth: How many callers to leave out at the start.
    """
    return task_state.outside_asyncio(calling_frame(depth + 1), frozenset(_OURS))


def line_of(code: CodeType, instruction: int) -> int:
    """Return the line of *code* that holds the instruction at byte offset *instruction*."""
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return line
    return code.co_firstlineno
