"""Guarding a kernel's loop: builds what stands before it, and takes it off again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loopnb.kernel._ipykernel import patch_aborting
from loopnb.kernel.ending import FinalCheck, patch_do_shutdown
from loopnb.kernel.subshells import SubshellLoops
from loopnb.loop.guard import LoopGuard
from loopnb.loop.healing import Healer
from loopnb.shell.ending import ShellsEnd
from loopnb.shell.guarding import Warnings, innermost, is_background, run_of_caller, wait_forever
from loopnb.tracking.all_tasks import AllTasks

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from loopnb.session import Session
    from loopnb.shell.cells import Cells
    from loopnb.shell.error_notes import ErrorNotes
    from loopnb.shell.interrupts import Interrupts


def guard_kernel(
    shell: Any,
    session: Session,
    cells: Cells,
    interrupts: Interrupts,
    error_notes: ErrorNotes,
    parts: ExitStack,
) -> Healer:
    """Guard the loop of *shell*'s kernel until *parts* is closed, and return who mends it."""
    ending = ShellsEnd(session, interrupts, error_notes, shell.kernel.log.warning)
    warned = Warnings(session.describe)
    healer = Healer(session.loop, warned.warn_once)
    session.notes = lambda: (*healer.notes(), *session.tracker.notes())
    guard = _make_guard(shell, session, cells, ending, warned.warn)
    cells.after.append(guard.after_cell)
    shutdown = patch_do_shutdown(shell.kernel, session, guard, ending)
    check = FinalCheck(shell.kernel, ending, guard)
    hidden = AllTasks(session.tracker.is_kernels_own)
    aborting = patch_aborting(shell.kernel)
    if aborting is not None:
        parts.callback(aborting.restore)
    ending.subshells = subshells = SubshellLoops(warned.warn, hidden.every, aborting)
    for begin, end in (
        (guard.patches.install, guard.patches.restore),
        (subshells.patches.install, subshells.patches.restore),
        (shutdown.install, shutdown.restore),
        (hidden.install, hidden.restore),
        (check.start, check.stop),
    ):
        begin()
        parts.callback(end)
    return healer


def _make_guard(
    shell: Any, session: Session, cells: Cells, ending: ShellsEnd, warn: Callable[[str], None]
) -> LoopGuard:
    return LoopGuard(
        session.loop,
        is_ending=lambda: bool(shell.exit_now),
        wind_down=ending.wind_down,
        innermost=lambda: innermost(session, cells),
        wait=lambda future: wait_forever(session, future),
        warn=warn,
        end_kernel=lambda: _end_kernel(shell),
        run=lambda: run_of_caller(session, cells),
        is_background=lambda task: is_background(session, task),
    )


def _end_kernel(shell: Any) -> None:
    """Shut the kernel down as `exit()` does; the guard ends the tasks before the loop stops."""
    shell.exit_now = True
