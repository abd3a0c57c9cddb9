"""Guard a shell's loop: answer the loop's guard as far as kernel and terminal do so in the same way."""

from __future__ import annotations

import asyncio
import traceback
import warnings
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from loopnb.errors import LoopWarning
from loopnb.frames import NOBODYS, users_place
from loopnb.loop.guard import LoopGuard
from loopnb.texts import error_text
from loopnb.tracking.background import is_background
from loopnb.tracking.cells import current_cell

if TYPE_CHECKING:
    from contextlib import ExitStack

    from loopnb.loop.guard import Nested
    from loopnb.records import Describe
    from loopnb.session import Session
    from loopnb.shell.all_tasks import AllTasks
    from loopnb.shell.cells import Cells
    from loopnb.shell.ending import ShellsEnd
    from loopnb.shell.interrupts import Interrupts


class Warnings:
    """Shows warnings at the user's line, once for each line of a cell. Any thread.

    Args:
        describe: Formats file and line for people.
    """

    def __init__(self, describe: Describe) -> None:
        self._describe = describe
        self._shown: set[tuple[str | None, str, int, str]] = set()

    def warn(self, text: str) -> None:
        """Warn of what the user's innermost line is doing."""
        filename, line = users_place()
        if filename == NOBODYS:
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


class ShellHost(ABC):
    """Answers the questions of the loop's guard for a shell: a `Host`. The loop's thread.

    Args:
        shell: The shell.
        session: The session.
        cells: Knows which cell executes.
        ends: Ends the tasks of the session.
        warnings: Shows warnings.
        interrupts: Ends the cell that executes.

    Attributes:
        session: The session.
        cells: Knows which cell executes.
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
        self._shell = shell
        self.session = session
        self.cells = cells
        self._ends = ends
        self._warnings = warnings
        self._interrupts = interrupts

    @abstractmethod
    def is_ending(self) -> bool:
        """Return True if the shell is shutting down, so that code may stop or close the loop."""

    @abstractmethod
    def end(self) -> None:
        """Begin to shut down, in order."""

    async def wind_down(self) -> None:
        """End the user's tasks in order."""
        await self._ends.wind_down()

    def warn(self, text: str) -> None:
        """Show a warning at the user's line."""
        self._warnings.warn(text)

    def innermost_run(self) -> Nested | None:
        """Return the nested run that `loop.stop()` ends: the cell's newest, or the newest if no cell waits.

        A run that a callback has begun belongs to no task, and counts as nested in the cell's run. Returns
        None if the caller is a cell that waits in no nested run.
        """
        if self.session.nesting.name == "nest-asyncio":
            return self.session.nesting.newest_reentrant()
        engine = self.session.engine
        waits = list(reversed(engine.waits)) if engine is not None else []
        if any(wait.is_foreground for wait in waits):
            waits = [wait for wait in waits if wait.is_foreground or wait.task is None]
        elif self.cells.is_inside_cell():
            return None
        return waits[0] if waits else None

    def run_of_caller(self) -> asyncio.Task[Any] | None:
        """Return the main task of the run that the caller is part of; None in the cell itself.

        That is the main task of its `asyncio.run()`. Without `asyncio.run()` it is the outermost task that
        awaits the running task, as `gather()` and `wait_for()` do. A callback is part of the run that
        `loop.stop()` would end there.
        """
        owner, tracker = self.session.owner, self.session.tracker
        if not owner.is_home():
            return None
        task = asyncio.current_task(owner.loop) if owner.is_inside() else None
        if task is None:
            future = getattr(self.innermost_run(), "future", None)
            return future if isinstance(future, asyncio.Task) else None
        run = tracker.origin_of(task).run
        if run is not None and run.main is not None:
            return run.main
        chain = tracker.awaiting(task)
        for awaiter in chain:
            if self.cells.is_foreground(awaiter):  # the cell's own task, or its `%%aloop`, which is a run
                return None if self.cells.is_top_level(awaiter) else awaiter
        users = [awaiter for awaiter in chain if not tracker.is_kernels_own(awaiter)]
        # None if the kernel itself calls the user's code, of a widget for instance.
        return users[-1] if users else None

    def park(self, future: asyncio.Future[Any]) -> None:
        """Park the calling stack until *future* is done: a nested `run_forever()`."""
        if self.session.nesting.name == "nest-asyncio":
            self.session.loop.run_until_complete(future)
            return
        engine = self.session.engine
        if engine is None:
            raise RuntimeError("This event loop is already running")
        engine.check_can_park()
        engine.wait(future, owned=True)

    def is_background(self, task: asyncio.Task[Any]) -> bool:
        """Return True if no cell executes that has spawned *task*, or if it runs in the background."""
        cell = self.session.cell
        return cell is None or is_background(task) or self.session.tracker.origin_of(task).cell != cell

    def is_idle(self) -> bool:
        """Return True if no cell executes."""
        return self.session.cell is None

    def is_callers_cell(self, run: asyncio.Task[Any] | None) -> bool:
        """Return True if the caller is part of the executing cell, and not of a background run.

        Args:
            run: The main task of the caller's run; None in the cell itself.
        """
        cell = self.session.cell
        return cell is not None and current_cell.get() == cell and (run is None or not is_background(run))

    def is_sigint_reset(self) -> bool:
        """Return True if the shell itself sets the handler of SIGINT before the next cell."""
        return False

    def give_to_cell(self, error: BaseException) -> bool:
        """End the innermost nested run of the executing cell with *error*. If there is none, end its await.

        Returns:
            False if no cell executes, or if it waits for nothing.
        """
        if self.session.nesting.newest_reentrant() is not None:
            raise error  # it comes out of the innermost run, which turns the loop
        engine = self.session.engine if self.session.cell is not None else None
        for wait in reversed(list(engine.waits) if engine is not None else []):
            if wait.is_foreground or wait.task is None or not self.is_background(wait.task):
                wait.end(error)
                return True
        return self._interrupts.take_fatal(error)

    def report_handler(self, name: str, error: BaseException) -> None:
        """Log that a handler of the signal *name*, set by code in the current Context, raised *error*."""
        trace = "".join(traceback.format_exception(error)).rstrip()
        self._ends.log(
            f"a handler of {name}, set by {current_cell.get() or 'other code'}, raised "
            f"{error_text(error)}, and no cell was waiting that could get it:\n{trace}"
        )

    def is_own_stop(self) -> bool:
        """Return True if the shell itself, and no code of the user's, stops the loop now."""
        return False

    def is_programs_stop(self) -> bool:
        """Return True if a program that the shell is embedded in stops the loop now. Any thread."""
        return False

    def begin_again(self) -> None:
        """Mend what the orderly end has shut down, in silence."""
        self.session.owner.begin_again()
        self.session.healer.mend()

    def is_own_handler(self) -> bool:
        """Return True if the shell itself, and no code of the user's, sets a signal handler now."""
        return False

    def after_cell(self) -> None:
        """Repair what the cell that has ended may have left damaged, and warn of it."""
        for sentence in self.session.healer.mend():
            self._warnings.warn_once(sentence)


def guard_loop(host: ShellHost, hidden: AllTasks, parts: ExitStack) -> LoopGuard:
    """Guard the loop of *host* until *parts* is closed.

    Args:
        host: The kernel or terminal.
        hidden: Hides the shell's own tasks from user code.
        parts: Takes everything back when it is closed.
    """
    guard = LoopGuard(host.session.loop, host)
    for patches in (guard.patches, hidden):
        patches.install()
        parts.callback(patches.restore)
    for fn in (guard.after_cell, host.after_cell):
        parts.callback(host.cells.call_after(fn))
    return guard
