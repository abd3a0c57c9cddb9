"""Private names of Pyodide's loop that tracking uses. Checked on Pyodide 314.0.7.

Pyodide counts the tasks in progress, and calls a handler when none is left. When a task fails and nobody
awaits it, Pyodide reports that at once.
"""

from __future__ import annotations

from contextvars import Context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


def count_task(loop: Any, task: asyncio.Task[Any]) -> None:
    """Count *task* among those in progress until it ends, and leave the report of its failure to us.

    Private names: `WebLoop._in_progress`, and `WebLoop._decrement_in_progress(task=None)`, which reports the
    error of a task that it is given. If one is missing, nothing is counted.
    """
    uncount = getattr(loop, "_decrement_in_progress", None)
    if uncount is None or not hasattr(loop, "_in_progress"):
        return
    loop._in_progress += 1
    # Use an empty Context: otherwise the callback would keep the cell's Context alive.
    task.add_done_callback(lambda _task: uncount(), context=Context())
