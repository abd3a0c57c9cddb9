"""Tell for which cell code runs, and which executions were runs of the same cell."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context
    from types import CodeType

    from loopnb.records import CellRef

#: The cell execution for which code runs. Set before a cell and never reset: `post_run_cell` of an async cell
#: runs in another Context, and the tasks of a cell stay its tasks after its end.
current_cell: ContextVar[CellRef | None] = ContextVar("current_cell", default=None)

#: How many executions `CellRuns` remembers. Each keeps the message that requested it alive, code included.
_KEPT = 1_000


def line_of(code: CodeType, instruction: int) -> int:
    """Return the line of *code* that holds the instruction at byte offset *instruction*."""
    for _start, end, line in code.co_lines():
        # From Python 3.12 on a module's code begins with an instruction on line 0.
        if end > instruction and line:
            return line
    return code.co_firstlineno


class CellRuns:
    """Remembers the executions of cells, oldest first. The loop's thread.

    Attributes:
        reruns: A counter. It goes up when notes about tasks of earlier cells may have become wrong: a cell
            was run again (or may have been, if it has no id), or was forgotten.
    """

    def __init__(self) -> None:
        self.reruns = 0
        self._contexts: dict[CellRef, Context] = {}
        self._latest: dict[str, CellRef] = {}
        self._texts: dict[CellRef, str] = {}  # of cells without an id
        self._rerun: set[str] = set()  # the cells that were executed more than once

    def begin(self, cell: CellRef, context: Context, text: str = "") -> None:
        """Remember that *cell* begins.

        Args:
            cell: The execution.
            context: A copy of its Context. What code prints in that Context goes to the cell.
            text: Its source. It identifies a cell without an id.
        """
        self._contexts.setdefault(cell, context)
        if cell.cell_id is None or self._latest.get(cell.cell_id, cell) != cell:
            self.reruns += 1
        if cell.cell_id is not None:
            if self._latest.get(cell.cell_id, cell) != cell:
                self._rerun.add(cell.cell_id)
            self._latest[cell.cell_id] = cell
        elif text:
            self._texts.setdefault(cell, text)
        if len(self._contexts) > _KEPT:
            oldest = next(iter(self._contexts))
            del self._contexts[oldest]
            self._texts.pop(oldest, None)
            if oldest.cell_id is not None and self._latest.get(oldest.cell_id) == oldest:
                del self._latest[oldest.cell_id]
                self._rerun.discard(oldest.cell_id)
                self.reruns += 1

    def context_of(self, cell: CellRef | None) -> Context | None:
        """Return the Context of that execution, or None if it is not known."""
        return self._contexts.get(cell) if cell is not None else None

    def are_of_one_cell(self, run: CellRef | None, other: CellRef | None) -> bool:
        """Return True if these are two executions of one cell. Without ids, one text counts as one cell."""
        if run is None or other is None or run == other:
            return False
        if run.cell_id is not None or other.cell_id is not None:
            return run.cell_id == other.cell_id
        text = self._texts.get(run)
        return text is not None and text == self._texts.get(other)

    def contexts_of(self, is_wanted: Callable[[CellRef | None], bool]) -> list[Context]:
        """Return the Contexts of the executions that *is_wanted* selects."""
        return [context for cell, context in self._contexts.items() if is_wanted(cell)]

    def is_outdated(self, cell: CellRef | None) -> bool:
        """Return True if the cell has been run again since that execution."""
        if cell is None or cell.cell_id is None:
            return False
        return self._latest.get(cell.cell_id, cell) != cell

    def all_runs_of(self, cell: CellRef) -> tuple[CellRef, ...]:
        """Return all known executions of the same cell as *cell*, oldest first."""
        if cell.cell_id is None:
            return (cell,)
        return tuple(known for known in self._contexts if known.cell_id == cell.cell_id)

    def is_rerun(self, cell: CellRef) -> bool:
        """Return True if the cell of that execution was executed more than once.

        False for a cell without an id.
        """
        return cell.cell_id in self._rerun

    def every_run_of(self, execution_count: int) -> Callable[[CellRef | None], bool]:
        """Given N of In[N], return a predicate that matches every run of that cell."""
        ids = {
            cell.cell_id
            for cell in self._contexts
            if cell.execution_count == execution_count and cell.cell_id is not None
        }

        def is_wanted(cell: CellRef | None) -> bool:
            return cell is not None and (cell.execution_count == execution_count or cell.cell_id in ids)

        return is_wanted
