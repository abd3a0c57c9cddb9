"""Private names of IPython for cells that are interrupted in IPython's own code.

Checked on IPython 7.34.0, 8.14.0, 8.37.0 and 9.18.1. Call in the main thread; none blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import ExecutionResult

from loopnb.patching import Patch, PatchSet, looking_like

if TYPE_CHECKING:
    from collections.abc import Callable


def patch_run_cell(shell: Any, around: Callable[..., Any]) -> PatchSet:
    """Return the patch that lets *around* run those cells of *shell* that do not await.

    `InteractiveShell._run_cell` (7.34 to 9.18): executes a cell and returns its result. `run_cell` calls it,
    and then fires the events of the cell's end. If the method is missing, nothing is patched, and an
    interrupt in the microseconds after a cell costs its reply.

    Args:
        shell: The shell.
        around: Called with the stock method, the text of the cell and the other arguments.
    """
    stock = getattr(shell, "_run_cell", None)
    if stock is None:
        return PatchSet()

    def _run_cell(raw_cell: str, *args: Any, **options: Any) -> Any:
        return around(stock, raw_cell, *args, **options)

    return PatchSet(Patch(shell, "_run_cell", looking_like(stock, _run_cell)))


def result_of_interrupted(shell: Any, raw_cell: str, earlier: Any, error: BaseException) -> Any:
    """Return the result of a cell whose IPython code was broken off by *error*.

    That code may have run the cell, or shown or stored its result. IPython keeps the result as
    `displayhook.exec_result` until the last statement has ended, and from then on as `last_execution_result`.
    If the cell has succeeded by then, the interrupt is too late, and the result stays as it is. Otherwise
    *error* replaces the cell's own error, and is shown. ipykernel calls `str()` on the result's error for its
    reply, and that `__str__` may be just what the user has interrupted.

    If the cell itself has called `run_cell`, that call has put another result into both places.

    Call while *error* is handled.

    Args:
        shell: The shell.
        raw_cell: The text of the cell.
        earlier: The shell's `last_execution_result` from before the cell.
        error: The KeyboardInterrupt.
    """
    hook = shell.displayhook
    result, hook.exec_result = hook.exec_result, None
    if not _is_of(result, raw_cell):
        result = shell.last_execution_result
        if result is earlier or not _is_of(result, raw_cell):
            result = ExecutionResult(None)  # IPython has not begun to execute the cell, or lost its result
        elif result.success:
            return result
    result.error_in_exec = error
    shell.showtraceback((type(error), error, error.__traceback__))
    return result


def _is_of(result: Any, raw_cell: str) -> bool:
    """Return True if *result* is that of the cell with that text."""
    return getattr(getattr(result, "info", None), "raw_cell", None) == raw_cell
