"""Make the table that a saved notebook shows of the widget, as static HTML and as text. Pure.

Tasks that wait at one place are one row. The table has no script and no colours of its own, and everything in
it is escaped. It is small, since it stays in the notebook for good.
"""

from __future__ import annotations

import datetime
from html import escape
from typing import TYPE_CHECKING, Any

from loopnb.views import age_text, lines_text

if TYPE_CHECKING:
    from loopnb.widgets.protocol import Shared, Window

MOST_ROWS = 50
"""How many rows are stored."""
MOST_BYTES = 12_000
"""How many bytes of HTML are stored."""

_COLUMNS = ("task", "state", "cell", "age", "waits for")
#: JupyterLab puts the text of cells to the right. End tags of cells and rows may be left out in HTML.
_CELL = "<td style=text-align:left>"


def html_of(shared: Shared, window: Window) -> str:
    """Return the table as HTML.

    Args:
        shared: The header.
        window: The rows, grouped. At most `MOST_ROWS` of them are stored.
    """
    rows = [_html_row(_cells(row, shared["clock_s"])) for row in _rows(window)]
    head = f"<div><b>loopnb</b> {_html(summary(shared))}</div>"
    as_of = f"As of {when_text(shared['taken_at'])}. Run the cell again for the live view."
    titles = "".join(f"<th style=text-align:left>{title}" for title in _COLUMNS)
    size = len((head + as_of + titles).encode()) + 400
    shown: list[str] = []
    for row in rows:
        size += len(row.encode())
        if size > MOST_BYTES:
            break
        shown.append(row)
    note = _left_out(window, len(shown))
    table = f"<table><thead><tr>{titles}</thead><tbody>{''.join(shown)}</tbody></table>" if shown else ""
    return f"<div>{head}{table}<div>{_html(f'{note} {as_of}'.strip())}</div></div>"


def text_of(shared: Shared, window: Window) -> str:
    """Return the table as text; see `html_of`."""
    rows = [_COLUMNS, *(_cells(row, shared["clock_s"]) for row in _rows(window))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [f"loopnb: {summary(shared)}"]
    if len(rows) > 1:
        lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines.append(f"{_left_out(window, len(rows) - 1)} As of {when_text(shared['taken_at'])}.".strip())
    return lines_text(lines)


def summary(shared: Shared) -> str:
    """Return what the header says in one line: `In[7] runs; 3 tasks: 2 waiting, 1 parked`."""
    head = shared["head"]
    tasks = head["tasks"]
    states = ", ".join(f"{count:,} {state}" for state, count in head["counts"].items() if count)
    count = "no live tasks" if not tasks else "1 task" if tasks == 1 else f"{tasks:,} tasks"
    parts = [head["text"], f"{count}: {states}" if states else count]
    if head["mended"]:
        parts.append(head["mended"])
    if head["finding"] is not None:
        parts.append(head["finding"]["summary"])
    return "; ".join(parts)


def gist(shared: Shared, window: Window) -> tuple[Any, ...]:
    """Return what tells one table from another: everything but ages and what the loop does."""
    rows = [_cells(row, shared["clock_s"]) for row in _rows(window)]
    tasks = shared["head"]["tasks"], shared["head"]["counts"]
    return (*tasks, [(who, state, cell, waits) for who, state, cell, _age, waits in rows])


def when_text(taken_at: float) -> str:
    """Return that wall-clock time for people, with the time zone."""
    return f"{datetime.datetime.fromtimestamp(taken_at).astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _rows(window: Window) -> list[dict[str, Any]]:
    return [window["rows"][key] for key in window["keys"][:MOST_ROWS]]


def _left_out(window: Window, shown: int) -> str:
    left = window["total"] - shown
    return (
        "" if left <= 0 else "1 more row is not shown." if left == 1 else f"{left:,} more rows are not shown."
    )


def _cells(row: dict[str, Any], clock_s: float) -> tuple[str, ...]:
    is_group = "count" in row
    who = f"{row['count']:,} x {row['coro']}" if is_group else row["name"] or row["coro"]
    began = row["oldest_s" if is_group else "spawned_s"]
    oldest = "oldest " if is_group else ""
    texts = (who, row["state"], row["cell"] or "-", f"{oldest}{age_text(clock_s - began)}", _waits(row))
    return tuple(map(_clean, texts))


def _waits(row: dict[str, Any]) -> str:
    """Return the user's line where the row waits, then in parentheses what it waits for there."""
    first = "; ".join(filter(None, (row.get("note"), row.get("line") or row["waits_at"])))
    return f"{first} ({row['waits_for']})" if first and row["waits_for"] else first or row["waits_for"]


def _clean(text: str) -> str:
    """Replace what would break a line, drive a terminal or turn the direction of writing."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _html(text: str) -> str:
    return escape(_clean(text), quote=True)


def _html_row(cells: tuple[str, ...]) -> str:
    return "".join(("<tr>", *(f"{_CELL}{_html(cell)}" for cell in cells)))
