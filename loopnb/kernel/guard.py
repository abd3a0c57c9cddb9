"""Guard a kernel's loop, and the loops of its subshells."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from loopnb.frames import Owner, outwards, owner_of
from loopnb.kernel.ending import ExitWatch, KernelShutdown
from loopnb.kernel.gui import GuiEvents
from loopnb.kernel.subshells import SubshellLoops
from loopnb.nesting._cpython import running_loop
from loopnb.shell.all_tasks import AllTasks
from loopnb.shell.ending import ShellsEnd
from loopnb.shell.guarding import ShellHost, Warnings, guard_loop
from loopnb.tracking.cells import current_cell

if TYPE_CHECKING:
    from contextlib import ExitStack

    from loopnb.kernel.replies import ReplyGuard
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
        interrupts: Ends the cell that executes.

    Attributes:
        exit_watch: Logs what keeps Python from ending.
    """

    def __init__(
        self,
        shell: Any,
        session: Session,
        cells: Cells,
        ends: ShellsEnd,
        warnings: Warnings,
        interrupts: Interrupts,
    ) -> None:
        super().__init__(shell, session, cells, ends, warnings, interrupts)
        self._is_embedded = _is_embedded()
        self.exit_watch = ExitWatch(ends)

    def is_ending(self) -> bool:
        """Return True if the kernel is shutting down: `exit()`, a request of the front end, a signal."""
        return bool(self._shell.exit_now)

    async def wind_down(self) -> None:
        """End the user's tasks in order, and watch what Python does after that."""
        await super().wind_down()
        self.exit_watch.begin()

    def end(self) -> None:
        """Shut the kernel down as `exit()` does: the guard ends the tasks before the loop stops."""
        self._shell.exit_now = True

    def is_programs_stop(self) -> bool:
        """Return True if the program that embeds the kernel stops the loop.

        False if a cell or a callback of a cell stops it. A thread that a cell has started counts as one of
        the program's: nothing tells them apart.
        """
        if not self._is_embedded or current_cell.get() is not None:
            return False
        loop = self.session.loop
        task = asyncio.current_task(loop) if running_loop() is loop else None
        # A comm's callback runs in a task of the kernel's own, and does not count either.
        return task is None or not self.session.tracker.is_kernels_own(task)

    def is_sigint_reset(self) -> bool:
        """Return True: the kernel sets the handler itself after its reply (`Kernel.post_handler_hook`)."""
        return True


def _is_embedded() -> bool:
    """Return True if the user's own program has started the kernel, not a launcher. Call it while loading."""
    owners = [owner_of(frame.f_code.co_filename) for frame in outwards(inspect.currentframe())]
    # Keep only the frames further out than all of ipykernel. A cell that loads us is further in.
    while Owner.KERNEL in owners:
        del owners[: owners.index(Owner.KERNEL) + 1]
    return Owner.USER in owners


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
    host = KernelHost(shell, session, cells, ends, warnings, interrupts)
    parts.callback(host.exit_watch.cancel)
    guard = guard_loop(host, hidden, parts)
    shutdown = KernelShutdown(kernel, session.loop, guard, ends, replies, subshells)
    for part in (subshells, shutdown, GuiEvents(kernel, session.loop, warnings.warn)):
        part.start()
        parts.callback(part.stop)
