"""Hooking loopnb into a shell without a kernel: its cells, the guard of its loop, its orderly end."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from loopnb.frames import frame_outside
from loopnb.loop.guard import LoopGuard
from loopnb.loop.healing import Healer
from loopnb.nesting._cpython import running_loop, silence_destroyed_warning
from loopnb.session import current
from loopnb.shell import guarding
from loopnb.shell.ending import ShellsEnd
from loopnb.terminal._ipython import is_end_of_run
from loopnb.terminal.cells import TerminalCells
from loopnb.tracking.all_tasks import AllTasks

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from loopnb.loop.closed import ClosedLoops
    from loopnb.session import Session
    from loopnb.shell.cells import Cells
    from loopnb.shell.error_notes import ErrorNotes
    from loopnb.shell.interrupts import Interrupts


class TerminalGuard(LoopGuard):
    """A guard that lets the shell's own use of the loop pass.

    Cells and prompt are runs of their own, so the loop stops after each of them.

    Args:
        is_shells_own: Says whether the prompt, and no code of the user's, runs now.
        options: Those of `LoopGuard`.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, is_shells_own: Callable[[], bool], **options: Any
    ) -> None:
        super().__init__(loop, **options)
        self._is_shells_own = is_shells_own

    def stop(self, stop_loop: Callable[[], None]) -> None:
        """Stop the loop at the end of a run; else do what `LoopGuard.stop` does."""
        if is_end_of_run(frame_outside()):
            stop_loop()
        else:
            super().stop(stop_loop)

    def add_signal_handler(
        self, add: Callable[..., None], sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        """Add a handler; the prompt takes its own off itself."""
        if self._is_shells_own():
            add(sig, callback, *args)
        else:
            super().add_signal_handler(add, sig, callback, *args)


def hook_terminal(
    shell: Any,
    session: Session,
    cells: Cells,
    interrupts: Interrupts,
    error_notes: ErrorNotes,
    parts: ExitStack,
    *,
    closed: ClosedLoops,
    load: Callable[[], None],
    unload: Callable[[], None],
) -> None:
    """Put *shell* on the loop of *session*, and guard that, until *parts* is closed.

    *load* and *unload* do so with the extension; they are called when shell or loop has ended.
    """
    ends = ShellsEnd(session, interrupts, error_notes, log_line)
    ending = Ending(session, ends, unload)
    warned = guarding.Warnings(session.describe)
    guard = _make_guard(shell, session, cells, interrupts, warned.warn)
    hidden = AllTasks(session.tracker.is_kernels_own)
    ensure_open = partial(_replace_closed, session, closed, load, unload, warned.warn_once)
    terminal = TerminalCells(shell, session, interrupts, end=ending.end, ensure_open=ensure_open)
    for begin, end in (
        (guard.patches.install, guard.patches.restore),
        (hidden.install, hidden.restore),
        (terminal.start, terminal.stop),
    ):
        begin()
        parts.callback(end)
    healer = Healer(session.loop, warned.warn_once)
    session.notes = lambda: (*healer.notes(), *session.tracker.notes())
    cells.after += [healer.after_cell, guard.after_cell]


def _make_guard(
    shell: Any, session: Session, cells: Cells, interrupts: Interrupts, warn: Callable[[str], None]
) -> TerminalGuard:
    return TerminalGuard(
        session.loop,
        is_shells_own=lambda: _is_shells_own(session),
        is_ending=lambda: False,
        wind_down=asyncio.Event().wait,  # never called: nobody else ends this loop
        innermost=lambda: guarding.innermost(session, cells),
        wait=lambda future: guarding.wait_forever(session, future),
        warn=warn,
        end_kernel=lambda: _end_shell(shell, interrupts),
        run=lambda: guarding.run_of_caller(session, cells),
        is_background=lambda task: guarding.is_background(session, task),
    )


class Ending:
    """Ends tasks, async generators and executor when the shell ends, then the loop.

    Args:
        session: The session.
        ends: Ends its tasks.
        unload: Unloads the extension.
    """

    def __init__(self, session: Session, ends: ShellsEnd, unload: Callable[[], None]) -> None:
        self._session = session
        self._ends = ends
        self._unload = unload

    def end(self) -> None:
        """End them all, in order. Outside the loop, in its thread; raises nothing."""
        loop = self._session.loop
        # Embedded into somebody's running loop, the shell ends without it.
        is_ours = running_loop() is None and not loop.is_running() and not loop.is_closed()
        try:
            if is_ours:
                loop.run_until_complete(self._ends.wind_down())
                self._ends.check()
        except KeyboardInterrupt:
            log_line("interrupted; what was still ending is left as it is")
        except Exception as error:  # noqa: BLE001  IPython would take it for a crash of its own
            log_line(f"the loop did not end in order: {error!r}")
        finally:
            self._ends.rest.sigterm.lower()
            self._unload()
        if is_ours:
            loop.close()


def _replace_closed(
    session: Session,
    closed: ClosedLoops,
    load: Callable[[], None],
    unload: Callable[[], None],
    warn: Callable[[str], None],
) -> None:
    """Go on with a new loop, since somebody got past the guard and closed the old one."""
    tasks = session.tracker.live()
    lost = [f"{one.name!r} of {one.cell or 'other code'}" for one in session.tracker.records_of(tasks)]
    for task in tasks:
        silence_destroyed_warning(task)  # it is named here
    where = closed.where(session.loop)
    unload()
    load()
    new = current()
    new.owner.generation = session.owner.generation + 1
    warn(
        f"Event loop #{session.owner.generation} was closed{f' at {where}' if where else ''}; cells and "
        f"prompt now run on loop #{new.owner.generation}. Tasks lost with it: {', '.join(lost) or 'none'}."
    )


def log_line(text: str) -> None:
    """Tell the user something while the shell ends. There is no log to write to."""
    sys.stderr.write(f"loopnb: {text}\n")


def _is_shells_own(session: Session) -> bool:
    task = asyncio.current_task() if running_loop() is not None else None
    # A cell's task counts as the shell's own, too; but then the session knows of a cell.
    return task is not None and session.cell is None and session.tracker.is_kernels_own(task)


def _end_shell(shell: Any, interrupts: Interrupts) -> None:
    """End the shell as `exit` does, also from behind a prompt that waits or a cell that awaits."""
    shell.ask_exit()
    if not interrupts.interrupt_wait():
        for task in interrupts.awaiting:
            task.cancel()
    prompt = getattr(shell, "pt_app", None)
    if prompt is not None and prompt.app.is_running:
        prompt.app.exit(result="")
