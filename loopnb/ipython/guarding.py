"""Guarding a kernel's loop: what to warn of where, and the kernel's orderly end."""

from __future__ import annotations

import asyncio
import atexit
import warnings
from typing import TYPE_CHECKING, Any

from loopnb.errors import LoopWarning
from loopnb.internals.frames import calling_frame
from loopnb.internals.kernel import patch_aborting
from loopnb.internals.loop_health import AllTasks
from loopnb.ipython.orderly_end import ShellsEnd, patch_do_shutdown
from loopnb.ipython.subshells import SubshellLoops
from loopnb.loop.guard import LoopGuard
from loopnb.loop.healing import Healer
from loopnb.tracking.chains import is_users
from loopnb.tracking.provenance import current_cell

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from loopnb.ipython.cells import Cells
    from loopnb.ipython.error_notes import ErrorNotes
    from loopnb.ipython.interrupts import Interrupts
    from loopnb.loop.guard import Nested
    from loopnb.records import Describe
    from loopnb.session import Session


#: Stands for the file of code that the loop itself has called, such as `loop.call_later(1, loop.stop)`.
_NOBODYS = "?"


class Warnings:
    """Shows a warning at the user's line, once for each line of each cell."""

    def __init__(self, describe: Describe) -> None:
        self._describe = describe
        self._shown: set[tuple[str | None, str, int, str]] = set()

    def warn(self, text: str) -> None:
        """Warn of what the user's innermost line does now."""
        filename, line = users_place()
        if filename == _NOBODYS:
            self.warn_once(text)
            return
        cell = current_cell.get()
        key = (None if cell is None else cell.cell_id, filename, line, text)
        if key not in self._shown:
            self._shown.add(key)
            text = f"{self._describe(filename, line, cell)}: {text}"
            warnings.warn_explicit(text, LoopWarning, filename, line)

    def warn_once(self, text: str) -> None:
        """Warn of something that no single line did."""
        if (None, "", 0, text) not in self._shown:
            self._shown.add((None, "", 0, text))
            warnings.warn_explicit(text, LoopWarning, "loopnb", 0)


def place_text(describe: Describe) -> str:
    """Return how a person would call the user's innermost line, such as `In[3], line 4`."""
    return describe(*users_place(), current_cell.get())


def users_place() -> tuple[str, int]:
    """Return file and line of the innermost frame that a user wrote or installed."""
    frame = calling_frame(1)
    while frame is not None and not is_users(frame.f_code):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else (_NOBODYS, 0)


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


#: Seconds that the control thread has to end in.
_CONTROL_ENDS_WITHIN = 2.0


class FinalCheck:
    """Looks, when Python ends, at what is left, and lets go of the loop: there is nothing to guard.

    Args:
        kernel: The kernel.
        ending: Names what is left.
        guard: The guard of the loop; other `atexit` functions may have to run and stop it.
    """

    def __init__(self, kernel: Any, ending: ShellsEnd, guard: LoopGuard) -> None:
        self._kernel = kernel
        self._ending = ending
        self._guard = guard

    def start(self) -> None:
        """Have it done."""
        atexit.register(self._check)

    def stop(self) -> None:
        """Have it done no more."""
        atexit.unregister(self._check)

    def _check(self) -> None:
        self._ending.check()
        self._guard.patches.restore()
        control = getattr(self._kernel, "control_thread", None)
        if self._ending.was_requested and control is not None:
            # It ends by itself after the request. ipykernel closes what it writes to without waiting
            # for that, and then waits for it: for 10 s, or for ever (7.4; 1 in 10 on a busy machine).
            control.join(_CONTROL_ENDS_WITHIN)


def innermost(session: Session, cells: Cells) -> Nested | None:
    """Return the nested run that `loop.stop()` ends: the cell's, or when no cell has any, the newest.

    What callbacks have begun since is nested in that: they belong to no task.
    """
    if session.nesting.name == "nest-asyncio":
        return session.nesting.newest_reentrant()
    engine = session.engine
    waits = list(reversed(engine.waits)) if engine is not None else []
    if any(wait.is_foreground for wait in waits):
        waits = [wait for wait in waits if wait.is_foreground or wait.task is None]
    elif cells.is_inside_cell():
        return None
    return waits[0] if waits else None


def run_of_caller(session: Session, cells: Cells) -> asyncio.Task[Any] | None:
    """Return the task with whose end the run ends that the caller is part of; None in a cell itself.

    That is the main task of its `asyncio.run()`, or else the outermost that awaits the running one, as
    `gather()` and `wait_for()` have it. A callback is part of what `loop.stop()` would end there.
    """
    if not session.owner.is_home():
        return None
    task = asyncio.current_task(session.loop) if session.owner.is_inside() else None
    if task is None:
        future = getattr(innermost(session, cells), "future", None)
        return future if isinstance(future, asyncio.Task) else None
    run = session.tracker.origin_of(task).run
    if run is not None and run.main is not None:
        return run.main
    chain = session.tracker.awaiting(task)
    for one in chain:
        if cells.is_foreground(one):  # a cell's own, or that of a `%%aloop`, which is a run
            return None if cells.is_top_level(one) else one
    return chain[-1]


def wait_forever(session: Session, future: asyncio.Future[Any]) -> None:
    """Park the calling stack until *future* is done: a nested `run_forever()`."""
    if session.nesting.name == "nest-asyncio":
        session.loop.run_until_complete(future)
        return
    engine = session.engine
    if engine is None:
        raise RuntimeError("This event loop is already running")
    engine.check_place()
    engine.wait(future, owned=True)


def is_background(session: Session, task: asyncio.Task[Any]) -> bool:
    """Say whether a cell executes that has not spawned *task*."""
    return session.cell is not None and session.tracker.origin_of(task).cell != session.cell


def _end_kernel(shell: Any) -> None:
    """Shut the kernel down as `exit()` does; the guard ends the tasks before the loop stops."""
    shell.exit_now = True
