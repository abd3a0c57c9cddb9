"""Hook loopnb into JupyterLite's kernel.

The loop needs no guard: JavaScript turns it, and its `stop()`, `close()` and `run_forever()` do nothing.
There are no signals. A page that is closed tells nobody, so there is no orderly shutdown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loopnb.nesting._cpython import running_loop
from loopnb.nesting.stack_switching import is_web_loop
from loopnb.pyodide import _pyodide
from loopnb.pyodide.cells import announce_ends
from loopnb.pyodide.output import CellOutput
from loopnb.shell.all_tasks import AllTasks

if TYPE_CHECKING:
    from contextlib import ExitStack

    from loopnb.session import Session


def is_pyodides(shell: Any) -> bool:
    """Return True if *shell* is that of Pyodide's kernel."""
    return getattr(shell, "kernel", None) is not None and is_web_loop(running_loop())


def hook_pyodide(shell: Any, session: Session, parts: ExitStack) -> None:
    """Follow the cells of *shell*, route output, and hide the kernel's own tasks, until *parts* is closed."""
    patches: list[Any] = [AllTasks(session.tracker.is_kernels_own)]
    if _pyodide.forgets_end_of_await_cells(shell.kernel):
        patches.append(announce_ends(shell))
    for patch in patches:
        patch.install()
        parts.callback(patch.restore)
    output = CellOutput(shell)
    output.start()
    parts.callback(output.stop)
