"""The list that `loopnb.tasks()` returns: a list of records that a notebook shows as a table."""

from __future__ import annotations

import importlib
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from loopnb import views
from loopnb.records import TaskRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from loopnb.records import CellRef


class TaskList(list[TaskRecord]):
    """Records of tasks, oldest first.

    Args:
        records: The records.
        every_run_of: Returns what says of a cell's execution whether it was of the cell with that
            number in its prompt.
    """

    def __init__(
        self,
        records: Iterable[TaskRecord] = (),
        every_run_of: Callable[[int], Callable[[CellRef | None], bool]] | None = None,
    ) -> None:
        super().__init__(records)
        self._every_run_of = every_run_of or _that_run

    def filter(
        self, *, name: str | None = None, state: str | None = None, cell: int | None = None
    ) -> TaskList:
        """Return those of them that fit all that is given.

        Args:
            name: The task's name.
            state: Its state, such as `waiting` or `raised`.
            cell: The number in the prompt of the cell that spawned it; all runs of that cell count.
        """
        is_wanted = self._every_run_of(cell) if cell is not None else lambda _cell: True
        return TaskList(
            (
                task
                for task in self
                if name in (None, task.name) and state in (None, task.state) and is_wanted(task.cell)
            ),
            self._every_run_of,
        )

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame with a row for each task.

        Raises:
            ModuleNotFoundError: pandas is not installed; loopnb does not need it otherwise.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "to_pandas() needs pandas, which is not installed here. Run '%pip install pandas'.",
                name="pandas",
            ) from error
        columns = [field.name for field in fields(TaskRecord)]
        rows = [
            {name: str(value) if name == "cell" and value else value for name, value in _items(task, columns)}
            for task in self
        ]
        return pandas.DataFrame(rows, columns=columns)

    def __repr__(self) -> str:
        return views.table_text(self) if self else "No tasks."

    def _repr_html_(self) -> str | None:
        return views.table_html(self) if self else None

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(repr(self))


def _items(task: TaskRecord, columns: list[str]) -> Iterable[tuple[str, Any]]:
    return ((name, getattr(task, name)) for name in columns)


def _that_run(count: int) -> Callable[[CellRef | None], bool]:
    return lambda cell: cell is not None and cell.execution_count == count
