"""Announce the end of cells that await, as other kernels do.

IPython announces the end of a cell that `run_cell` has run. A kernel has to do so for one that it runs by
`run_cell_async`. Pyodide's kernel does not. We would take such a cell for executing until the next one ends,
and report none of its failed tasks.
"""

from __future__ import annotations

from typing import Any

from loopnb.patching import Patch, looking_like
from loopnb.pyodide import _pyodide


def announce_ends(shell: Any) -> Patch:
    """Return the patch of `shell.run_cell_async`, from which the kernel gets the coroutine of such a cell."""
    stock = shell.run_cell_async

    def run_cell_async(*args: Any, **options: Any) -> Any:
        cell = stock(*args, **options)
        return _announced(shell, cell) if _pyodide.is_called_by_kernel(shell.kernel) else cell

    return Patch(shell, "run_cell_async", looking_like(stock, run_cell_async))


async def _announced(shell: Any, cell: Any) -> Any:
    result = None  # what ipykernel announces for a cell that was cancelled
    try:
        result = await cell
        return result
    finally:
        shell.events.trigger("post_execute")
        shell.events.trigger("post_run_cell", result)
