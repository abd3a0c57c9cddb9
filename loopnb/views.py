"""Format tasks and the loop as plain text and static HTML. Everything here is pure."""

from __future__ import annotations

import html
import importlib
import time
from typing import TYPE_CHECKING, Any

from loopnb._cpython import name_of
from loopnb.records import TaskRecord

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

    from loopnb.records import CellRef, LoopState, Snapshot, WaitDetail

COLUMNS = ("#", "name", "coroutine", "state", "age", "spawned by", "waits for")
"""Columns of a table of tasks. The last column also says how a task ended, and shows its notes."""
NAME_WIDTH = 32
"""How many characters of a name a column shows."""
NAMES = 8
"""How many names are listed in one line."""

#: An instant of a record -> the column of a data frame that says how long ago that is.
_DURATIONS = {"spawned_at": "age_s", "waiting_since": "waiting_s"}

#: JupyterLab puts the text of cells to the right. A cell has no other style: a saved notebook keeps it with
#: each of them.
_CELL_STYLE = "text-align:left"
_SMALL_STYLE = "opacity:.75;font-size:12px"


def age_text(age_s: float) -> str:
    """Format an age, rounded down: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`, `3 d 04 h`.

    The front end has the same function. `tests/widget/ages.json` tests both.
    """
    age_s = max(age_s, 0.0)
    if age_s < 10:
        return f"{int(age_s * 10) / 10:.1f} s"
    minutes, seconds = divmod(int(age_s), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def seconds_text(seconds: float) -> str:
    """Format a duration: `40 ms`, `3.0 s`, `125 s`."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.2g} ms" if seconds < 0.00995 else f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 99.95 else f"{seconds:.0f} s"


def blocked_text(blocked_s: float) -> str:
    """Say for how long a task has blocked the loop; "" if it has not."""
    return f"blocked the loop {seconds_text(blocked_s)}" if blocked_s else ""


def condition_text(loop: LoopState) -> str:
    """Describe in one clause what the loop is doing."""
    if loop.condition == "set aside" and loop.detail:
        return _clean(loop.detail)
    cell = str(loop.cell) if loop.cell else "a cell"
    words = {
        "running": f"running, {cell} is executing",
        "idle": "idle",
        "nested": f"running, {cell} waits in a nested run",
        "set aside": "set aside",
        "closed": "closed",
    }[loop.condition]
    return f"{words} ({_clean(loop.detail)})" if loop.detail else words


def waits_text(task: TaskRecord) -> str:
    """Return what *task* waits for and where, or "" if neither is known."""
    where = f"at {task.waits_at}" if task.waits_at else ""
    return _clean(" ".join(filter(None, (task.waits_for, where))))


def wait_text(detail: WaitDetail, now: float) -> str:
    """Say in one clause what a task waits for: `sleep, 4.2 s left`.

    Args:
        detail: What it waits for.
        now: Monotonic seconds.
    """
    text = _clean(detail.text)
    if detail.since is not None and now - detail.since >= 1:
        text += f" for {age_text(now - detail.since)}"
    if detail.state:
        text += f" ({_clean(detail.state)})"
    if detail.due_at is not None:
        left = age_text(detail.due_at - now)
        text += f", {left} left" if detail.text == "sleep" else f", gives up in {left}"
    return text


def status_text(snapshot: Snapshot) -> str:
    """Describe the loop in a few aligned lines."""
    loop = snapshot.loop
    lines = (
        ("loop", f"#{loop.generation}, {loop.kind}, {condition_text(loop)}"),
        ("engine", loop.engine),
        ("parked", _count(loop.parked, "stack")),
        ("tasks", f"{snapshot.count} live"),
        *(("note", _clean(note)) for note in loop.notes),
    )
    return "\n".join(f"{label:<8}{value}" for label, value in lines)


def tasks_text(snapshot: Snapshot) -> str:
    """List the live tasks as an aligned table, oldest first."""
    return table_text(snapshot.tasks, snapshot.clock_s, more=snapshot.more)


def table_text(tasks: Sequence[TaskRecord], now: float, *, more: int = 0) -> str:
    """List *tasks* as an aligned table.

    Args:
        tasks: The tasks.
        now: Monotonic seconds; ages count until then.
        more: How many more there are. A last line says so.
    """
    if not tasks:
        return "No live tasks."
    rows = [COLUMNS, *(_cells(task, now) for task in tasks)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    if more:
        lines.append(not_shown_text(more))
    return "\n".join(lines)


def table_html(tasks: Sequence[TaskRecord], now: float, *, more: int = 0) -> str:
    """Return *tasks* as a table of static HTML, everything escaped.

    Args:
        tasks: The tasks.
        now: Monotonic seconds; ages count until then.
        more: How many more there are. A last line says so.
    """
    note = f'<div style="{_SMALL_STYLE}">{not_shown_text(more)}</div>' if more > 0 else ""
    return _table(tasks, now) + note


def _table(tasks: Sequence[TaskRecord], now: float) -> str:
    head = "".join(f"<th scope=col style={_CELL_STYLE}>{_escape(name)}</th>" for name in COLUMNS)
    body = "".join(_html_row(task, now) for task in tasks)
    return f"<table cellpadding=4><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def names_text(names: Iterable[str]) -> str:
    """Return task names in one line: the first few of them, long ones shortened."""
    names = list(names)
    shown = ", ".join(repr(_short(name)) for name in names[:NAMES])
    return f"{shown} and {len(names) - NAMES:,} more" if names[NAMES:] else shown


def names_of(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """Return the names of live tasks in one line, as `names_text` does."""
    return names_text(name_of(task) for task in tasks)


def _cells(task: TaskRecord, now: float) -> tuple[str, ...]:
    return (
        "-" if task.is_kernel else str(task.number),
        _short(task.name) or "-",
        _short(task.coro),
        task.state,
        age_text(now - task.spawned_at),
        str(task.cell or "-"),
        "; ".join(
            filter(
                None,
                (waits_text(task), _clean(task.error), blocked_text(task.blocked_s), _clean(task.note)),
            )
        ),
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    number, *rest = row
    aligned = [number.rjust(widths[0]), *map(str.ljust, rest, widths[1:])]
    return "  ".join(aligned).rstrip()


def _html_row(task: TaskRecord, now: float) -> str:
    cells = "".join(f"<td style={_CELL_STYLE}>{_escape(text)}</td>" for text in _cells(task, now))
    return f"<tr>{cells}</tr>"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


def _short(text: str) -> str:
    text = _clean(text)
    return text if len(text) <= NAME_WIDTH else text[: NAME_WIDTH - 1] + "…"


def lines_text(lines: Iterable[str]) -> str:
    """Join lines that hold names from user code: nothing in them breaks a line or drives a terminal."""
    return "\n".join(map(_clean, lines))


def _clean(text: str) -> str:
    """Replace control characters, which would break a line or drive a terminal: names come from user code."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def not_shown_text(more: int) -> str:
    """Say how many tasks are missing."""
    return "1 more task is not shown." if more == 1 else f"{more:,} more tasks are not shown."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class TaskList(list[TaskRecord]):
    """The records that `loopnb.tasks()` returns, oldest first. A notebook shows the list as a table.

    Args:
        records: The records.
        every_run_of: Given N of In[N], returns a predicate that matches every run of that cell. By default
            it matches that one run.
        now: Monotonic seconds; the ages that it shows count until then. None for the moment of this call.
        most: At most so many tasks are shown, the first ones; 0 shows all. The list always has all of them.
    """

    def __init__(
        self,
        records: Iterable[TaskRecord] = (),
        every_run_of: Callable[[int], Callable[[CellRef | None], bool]] | None = None,
        now: float | None = None,
        most: int = 0,
    ) -> None:
        super().__init__(records)
        self._most = most
        self._now = time.monotonic() if now is None else now
        self._every_run_of = every_run_of or _that_run

    def filter(
        self, *, name: str | None = None, state: str | None = None, cell: int | None = None
    ) -> TaskList:
        """Return the tasks that match every condition that is given.

        Args:
            name: The task's name.
            state: Its state, such as `waiting` or `raised`.
            cell: N of In[N], the cell that spawned it; all runs of that cell count.
        """
        is_wanted = self._every_run_of(cell) if cell is not None else lambda _cell: True
        return TaskList(
            (
                task
                for task in self
                if name in (None, task.name) and state in (None, task.state) and is_wanted(task.cell)
            ),
            self._every_run_of,
            self._now,
            self._most,
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
        # A clock reading means nothing to a reader of the frame: durations take the place of instants.
        columns = [_DURATIONS.get(name, name) for name in TaskRecord._fields]
        rows = [dict(zip(columns, self._values(task), strict=True)) for task in self]
        return pandas.DataFrame(rows, columns=columns)

    def _values(self, task: TaskRecord) -> Iterable[Any]:
        for name, value in task._asdict().items():
            if name in _DURATIONS:
                yield None if value is None else self._now - value
            else:
                yield str(value) if name == "cell" and value else value

    def _shown(self) -> tuple[list[TaskRecord], int]:
        """Return the tasks that are shown, and how many more there are."""
        shown = self[: self._most or len(self)]
        return shown, len(self) - len(shown)

    def __repr__(self) -> str:
        shown, more = self._shown()
        return table_text(shown, self._now, more=more) if self else "No tasks."

    def _repr_html_(self) -> str | None:
        shown, more = self._shown()
        return table_html(shown, self._now, more=more) if self else None

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(repr(self))


def _that_run(count: int) -> Callable[[CellRef | None], bool]:
    return lambda cell: cell is not None and cell.execution_count == count
