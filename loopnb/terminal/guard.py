"""Hook loopnb into a shell without a kernel: its cells, the guard of its loop, and its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from loopnb.frames import frame_outside
from loopnb.nesting._cpython import running_loop
from loopnb.shell.all_tasks import AllTasks
from loopnb.shell.ending import ShellsEnd
from loopnb.shell.guarding import ShellHost, Warnings, guard_loop
from loopnb.terminal._cpython import is_end_of_run
from loopnb.terminal.cells import TerminalCells
from loopnb.terminal.ending import TerminalLoop
from loopnb.texts import say

if TYPE_CHECKING:
    from contextlib import ExitStack

    from loopnb.loop.closed import ClosedLoops
    from loopnb.session import Session
    from loopnb.shell.cells import Cells
    from loopnb.shell.error_notes import ErrorNotes
    from loopnb.shell.interrupts import Interrupts
    from loopnb.terminal.ending import Extension


class TerminalHost(ShellHost):
    """Answers the questions of the loop's guard for a terminal.

    Cells and the prompt are runs of their own, so the loop stops after each of them. The loop's thread.
    """

    def is_ending(self) -> bool:
        """Return False, since the shell itself ends the loop, when nothing runs on the loop any more."""
        return False

    def end(self) -> None:
        """End the shell as `exit` does, even while the prompt waits or a cell awaits."""
        self._shell.ask_exit()
        if not self._interrupts.interrupt_nested():
            for task in self._interrupts.awaiting:
                task.cancel()
        prompt = getattr(self._shell, "pt_app", None)
        if prompt is not None and prompt.app.is_running:
            prompt.app.exit(result="")

    def is_own_stop(self) -> bool:
        """Return True if the loop stops because the run of a cell or of the prompt has ended."""
        return is_end_of_run(frame_outside())

    def is_own_handler(self) -> bool:
        """Return True if the prompt sets a signal handler. It removes that handler itself."""
        task = asyncio.current_task() if running_loop() is not None else None
        # The task of a cell counts as the kernel's own, too, so make sure that no cell executes.
        return task is not None and self.session.cell is None and self.session.tracker.is_kernels_own(task)


def hook_terminal(
    shell: Any,
    session: Session,
    cells: Cells,
    interrupts: Interrupts,
    error_notes: ErrorNotes,
    closed: ClosedLoops,
    extension: Extension,
    parts: ExitStack,
) -> None:
    """Put *shell* on the loop of *session* and guard it until *parts* is closed. The loop's thread."""
    warnings = Warnings(session.describe)
    hidden = AllTasks(session.tracker.is_kernels_own)
    ends = ShellsEnd(session, interrupts, error_notes, say)
    host = TerminalHost(shell, session, cells, ends, warnings, interrupts)
    guard_loop(host, hidden, parts)
    loop = TerminalLoop(shell, session, ends, closed, warnings, extension)
    terminal = TerminalCells(shell, session, interrupts, loop)
    terminal.start()
    parts.callback(terminal.stop)
