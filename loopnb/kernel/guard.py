"""Guard a kernel's loop, and the loops of its subshells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loopnb.kernel._ipykernel import patch_aborting
from loopnb.kernel.ending import KernelShutdown
from loopnb.kernel.subshells import SubshellLoops
from loopnb.shell.ending import ShellsEnd
from loopnb.shell.guarding import ShellHost, Warnings, guard_loop
from loopnb.tracking.all_tasks import AllTasks

if TYPE_CHECKING:
    from contextlib import ExitStack

    from loopnb.session import Session
    from loopnb.shell.cells import Cells
    from loopnb.shell.error_notes import ErrorNotes
    from loopnb.shell.interrupts import Interrupts


class KernelHost(ShellHost):
    """Answers the questions of the loop's guard for a kernel.

    Args:
        shell: The kernel's shell.
        session: The session.
        cells: Knows which cell executes.
        ends: Ends the tasks of the session.
        warnings: Shows warnings.
    """

    def __init__(
        self, shell: Any, session: Session, cells: Cells, ends: ShellsEnd, warnings: Warnings
    ) -> None:
        super().__init__(session, cells, ends, warnings)
        self._shell = shell

    def is_ending(self) -> bool:
        """Return True if the kernel is shutting down: `exit()`, a request of the front end, a signal."""
        return bool(self._shell.exit_now)

    def end(self) -> None:
        """Shut the kernel down as `exit()` does: the guard ends the tasks before the loop stops."""
        self._shell.exit_now = True


def guard_kernel(
    shell: Any,
    session: Session,
    cells: Cells,
    interrupts: Interrupts,
    error_notes: ErrorNotes,
    parts: ExitStack,
) -> None:
    """Guard the loop of *shell*'s kernel until *parts* is closed."""
    kernel = shell.kernel
    warnings = Warnings(session.describe)
    hidden = AllTasks(session.tracker.is_kernels_own)
    subshells = SubshellLoops(warnings.warn, hidden.every, patch_aborting(kernel))
    ends = ShellsEnd(session, interrupts, error_notes, kernel.log.warning, subshells)
    guard = guard_loop(KernelHost(shell, session, cells, ends, warnings), hidden, parts)
    shutdown = KernelShutdown(kernel, session.loop, guard, ends)
    for part in (subshells, shutdown):
        part.start()
        parts.callback(part.stop)
