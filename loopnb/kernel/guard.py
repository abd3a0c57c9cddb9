"""Guard a kernel's loop, and the loops of its subshells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loopnb.kernel.ending import KernelShutdown
from loopnb.kernel.subshells import SubshellLoops
from loopnb.shell.all_tasks import AllTasks
from loopnb.shell.ending import ShellsEnd
from loopnb.shell.guarding import ShellHost, Warnings, guard_loop

if TYPE_CHECKING:
    from contextlib import ExitStack

    from loopnb.kernel.replies import ReplyGuard
    from loopnb.session import Session
    from loopnb.shell.cells import Cells
    from loopnb.shell.error_notes import ErrorNotes
    from loopnb.shell.interrupts import Interrupts


class KernelHost(ShellHost):
    """Answers the questions of the loop's guard for a kernel."""

    def is_ending(self) -> bool:
        """Return True if the kernel is shutting down: `exit()`, a request of the front end, a signal."""
        return bool(self._shell.exit_now)

    def end(self) -> None:
        """Shut the kernel down as `exit()` does: the guard ends the tasks before the loop stops."""
        self._shell.exit_now = True

    def is_sigint_reset(self) -> bool:
        """Return True: the kernel does so when it has replied (`Kernel.post_handler_hook`)."""
        return True


def guard_kernel(
    shell: Any,
    session: Session,
    cells: Cells,
    interrupts: Interrupts,
    error_notes: ErrorNotes,
    replies: ReplyGuard,
    parts: ExitStack,
) -> None:
    """Guard the loop of *shell*'s kernel until *parts* is closed. Call it in the loop's thread."""
    kernel = shell.kernel
    warnings = Warnings(session.describe)
    hidden = AllTasks(session.tracker.is_kernels_own)
    subshells = SubshellLoops(kernel, warnings.warn, hidden.every)
    ends = ShellsEnd(session, interrupts, error_notes, kernel.log.warning, subshells, replies)
    guard = guard_loop(KernelHost(shell, session, cells, ends, warnings, interrupts), hidden, parts)
    shutdown = KernelShutdown(kernel, session.loop, guard, ends, replies, subshells)
    for part in (subshells, shutdown):
        part.start()
        parts.callback(part.stop)
