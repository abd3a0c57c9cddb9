"""Fail a cell with the errors of tasks that nobody has awaited: `LoopNB.on_failure = "raise"`.

The wish. papermill, `jupyter execute` and nbconvert stop at a cell that fails. If a background task fails, no
cell does, and they end with exit code 0.

What does not work. An event callback cannot fail a cell. An AST transformer can, but only by raising
`InputRejected`, which front ends would show instead of the task's own error.

The solution. An AST transformer replaces the code of the next cell by code that raises that error. The cell
takes its own frame out of the traceback: it holds no code of the user's.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from loopnb._cpython import parse
from loopnb.frames import users_frames
from loopnb.tracking.cells import current_cell

if TYPE_CHECKING:
    import ast
    from collections.abc import Sequence

    from loopnb.records import CellRef
    from loopnb.session import Session
    from loopnb.shell.cells import Cells
    from loopnb.tracking.history import EndedTask

#: `__self__` is the `LoopMagics` of the shell. See `_AWAIT_CELL` in `await_cells.py`.
_RAISING_CELL = """\
try:
    get_ipython().find_line_magic("loopnb").__self__.failing.raise_due()
except BaseException:
    __import__("sys").exception().__traceback__ = __import__("sys").exception().__traceback__.tb_next
    raise
"""

#: The end of the note on such an error, after the name of the task.
_TOLD = ' Nobody has awaited it, so this cell has not run (LoopNB.on_failure = "raise").'


def error_from(failures: Sequence[EndedTask], *, told: str = "") -> BaseException:
    """Return the error of one failed task, or a group of the errors of several.

    Args:
        failures: The tasks, one or more.
        told: What to add to the note that names the task.
    """
    errors = []
    for failure in failures:
        named = f"Task {failure.name!r}" if failure.name else f"Task {failure.origin.number}"
        by = f", spawned by {failure.origin.cell}," if failure.origin.cell is not None else ""
        error = failure.error or RuntimeError("the error is not known any more")
        note = f"{named}{by} failed.{told}"
        if note not in getattr(error, "__notes__", ()):
            with suppress(Exception):  # the user's code: a class may refuse notes
                error.add_note(note)
        errors.append(error)
    return errors[0] if len(errors) == 1 else BaseExceptionGroup(f"{len(errors)} tasks failed", errors)


class Failing:
    """Fails the next cell when a task has failed and nobody has awaited it, if the user wants that.

    Args:
        shell: The shell.
        session: Its session.
        cells: Knows which cells execute.
    """

    def __init__(self, shell: Any, session: Session, cells: Cells) -> None:
        self._shell = shell
        self._session = session
        self._cells = cells
        self._newest: CellRef | None = None
        self._begins = False  # True from the start of a cell until IPython shows us its code
        self._due: BaseException | None = None

    def start(self) -> None:
        """Look at cells from the next one on.

        Start `Cells` first, so that it sees each cell before this object does.
        """
        self._shell.events.register("pre_run_cell", self._begin)
        self._shell.ast_transformers.append(self)

    def stop(self) -> None:
        """Let all cells run."""
        self._shell.ast_transformers.remove(self)
        self._shell.events.unregister("pre_run_cell", self._begin)

    def visit(self, tree: ast.AST) -> ast.AST:
        """Return *tree*, or code that raises the errors that are due. IPython calls this."""
        begins, self._begins = self._begins, False
        if not begins or self._session.settings.on_failure != "raise":
            return tree
        failures = self._session.owner.call(self._session.failures.take_unseen, self._has_ended)
        if not failures:
            return tree
        self._due = error_from(failures, told=_TOLD)
        return parse(_RAISING_CELL)

    def raise_due(self) -> None:
        """Raise the errors that are due, as if they came straight out of the tasks."""
        due, self._due = self._due, None
        try:
            if due is not None:
                raise due
        except BaseException as error:
            error.__traceback__ = users_frames(error.__traceback__)
            raise  # bare, so that it adds no entry for this frame
        finally:
            del due

    def _begin(self, _info: object) -> None:
        # IPython announces no silent cells, which front ends run unseen, so these raise nothing. If the cell
        # is still the newest one, a magic runs another cell inside it.
        cell = current_cell.get()
        self._begins, self._newest = cell != self._newest, cell

    def _has_ended(self, cell: CellRef | None) -> bool:
        return cell is None or not self._cells.is_executing(cell)
