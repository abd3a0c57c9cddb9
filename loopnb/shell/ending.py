"""End the cells and tasks of a shell in order, and log what could not end, with its cell."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from loopnb.frames import Owner, owner_of
from loopnb.loop._cpython import call_of
from loopnb.loop.shutdown import OrderlyEnd
from loopnb.shell._cpython import group_children
from loopnb.shell.library_errors import is_of_other_task
from loopnb.texts import error_text
from loopnb.tracking import chains
from loopnb.tracking.background import live_runs
from loopnb.tracking.cells import current_cell
from loopnb.tracking.holding import is_held

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from types import FrameType

    from loopnb.session import Session
    from loopnb.shell.error_notes import ErrorNotes
    from loopnb.shell.interrupts import Interrupts


class OtherLoops(Protocol):
    """The other loops on which cells run: those of a kernel's subshells."""

    async def end(self, timeout: float, log: Callable[[str], None]) -> None:
        """Cancel what is parked there, wait at most *timeout* seconds, and *log* what is still busy."""


class Requests(Protocol):
    """Knows which request the kernel is handling. Call in the loop's thread."""

    async def wait_answered(self, timeout: float) -> None:
        """Wait until that request has been answered, but at most *timeout* seconds."""


class ShellsEnd:
    """End the executing cell and the tasks of a session, and log what failed or did not end.

    Call in the loop's thread, unless said otherwise. It is the `Ending` that `OrderlyEnd` asks.

    Args:
        session: The session.
        interrupts: Knows the `await` cells, and collects fatal errors at the end.
        error_notes: Explains errors.
        log: Writes a line to a log that people can read after the end.
        others: The loops of subshells; None where there are none.
        requests: The requests of the kernel; None in a terminal.
    """

    def __init__(
        self,
        session: Session,
        interrupts: Interrupts,
        error_notes: ErrorNotes,
        log: Callable[[str], None],
        others: OtherLoops | None = None,
        requests: Requests | None = None,
    ) -> None:
        self._session = session
        self._interrupts = interrupts
        self._error_notes = error_notes
        self._log = log
        self._others = others
        self._requests = requests
        self._said: set[int] = set()
        self._rest = OrderlyEnd(self)

    async def wind_down(self) -> None:
        """End everything in order. Log what could not end."""
        self._rest = OrderlyEnd(self)  # a new one, since a program may start its kernel again after this
        with self._interrupts.collect_fatal(self._say_fatal):
            self._end_bare_waits()
            ends = [self._session.holds.release_all(self.grace()), self._rest.wind_down()]
            if self._others is not None:  # first, so that what is parked there is cancelled at once
                ends.insert(0, self._others.end(self.grace(), self._log))
            if self._requests is not None:
                # When its run has ended, the cell still has to wait for its turn to resume, and to be
                # answered.
                ends.append(self._requests.wait_answered(2 * self.grace()))
            await asyncio.gather(*ends)
        self._say_failures()
        # SIGTERM must work from now on: an `atexit` function may take for ever, and a program that embeds the
        # kernel goes on.
        self.lower_shield()

    def check(self) -> None:
        """Log what is left when Python ends, unless logged before. In the loop's thread, outside the loop."""
        self._rest.check()
        self._say_failures()

    def lower_shield(self) -> None:
        """Let SIGTERM end the process again, once everything has ended."""
        self._rest.lower_shield()

    def end_widgets(self, *, restart: bool) -> None:
        """Have the widgets on the pages say that the kernel ends. Any thread."""
        self._session.end_widgets("restarted" if restart else "shut down")

    def say_blocked(self) -> None:
        """Log that something blocks the loop, so that nothing can end. Any thread."""
        by = self._session.cell or "other code"
        self._log(f"{by} blocks the loop: no task can end in order until it returns")

    def _end_bare_waits(self) -> None:
        """End nested runs of cells that wait for a bare future: there is no task to cancel."""
        engine, newest = self._session.engine, self._session.nesting.newest_reentrant()
        waits: list[Any] = [] if newest is None else [newest]
        waits += [wait for wait in engine.waits if wait.is_foreground] if engine is not None else []
        for wait in waits:
            if isinstance(wait.future, asyncio.Future) and not isinstance(wait.future, asyncio.Task):
                wait.end(asyncio.CancelledError())

    def _say_fatal(self, error: BaseException) -> None:
        # A task that calls `sys.exit()` when cancelled would otherwise cut short the end of all the others.
        self._log(
            f"a task raised {error_text(error)} while it was being ended; the others still end in order"
        )

    def _say_failures(self) -> None:
        for failure in self._session.failures.unseen():
            number, cell = failure.origin.number, failure.origin.cell
            if number not in self._said:
                self._said.add(number)
                self._log(
                    f"task {failure.name!r}, spawned by {cell or 'other code'}, failed and nobody "
                    f"awaited it: {self._error_notes.line(failure.error)}"
                )

    # -- what `OrderlyEnd` asks ---------------------------------------------------------------

    def live(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that are to end, those of `await` cells included."""
        return [*self._session.tracker.live(), *self._interrupts.awaiting]

    def owners(self, tasks: set[asyncio.Task[Any]]) -> dict[asyncio.Task[Any], set[asyncio.Task[Any]]]:
        """Map each of *tasks* to those others of them that spawned it, or whose TaskGroup it is in.

        A background run also owns what the callbacks of its connections have spawned.
        """
        tracker = self._session.tracker
        runs: dict[int | None, asyncio.Task[Any]] = {
            run.number: task for task, run in live_runs.items() if run.number is not None and task in tasks
        }
        by_number: dict[int | None, asyncio.Task[Any]] = {tracker.number_of(task): task for task in tasks}
        owners: dict[asyncio.Task[Any], set[asyncio.Task[Any]]] = {}
        for task in tasks:
            origin = tracker.origin_of(task)
            background = None if origin.cell is None else runs.get(origin.cell.background)
            for owner in (by_number.get(origin.parent), background):
                if owner is not None:
                    owners.setdefault(task, set()).add(owner)
            for child in group_children(task):
                owners.setdefault(child, set()).add(task)
        return owners

    def is_ending(self, task: asyncio.Task[Any]) -> bool:
        """Return True if *task* is ending already, so that a second cancel would cut its cleanup short.

        Either an interrupt has cancelled it, or it holds a context manager, which is released elsewhere.
        """
        return self._interrupts.was_interrupted(task) or is_held(task)

    def is_of_other_task(self, error: BaseException) -> bool:
        """Return True if *error* says that a block was left in another task than the one that entered it."""
        return is_of_other_task(error)

    def grace(self) -> float:
        """Return how many seconds tasks get to end: `LoopNB.shutdown_grace`. Any thread."""
        return float(self._session.settings.shutdown_grace)

    def describe(self, task: asyncio.Task[Any]) -> str:
        """Name *task* and its cell, and say where it waits."""
        if task in self._interrupts.awaiting:
            return f"cell {self._session.cell}"
        record = self._session.tracker.record(task)
        return f"task {record.name!r}, spawned by {record.cell or 'other code'}, {record.doing}"

    def describe_thread(self, thread: threading.Thread, frame: FrameType) -> str:
        """Say what *thread* is busy with, at which line of user code, and for which cell."""
        called, context = call_of(frame)
        users = self._users_places(frame)
        cell = context.get(current_cell) if context is not None else None
        name = getattr(called, "__qualname__", None)
        parts = [
            f"thread {thread.name!r} is busy",
            f"with {name}()" if name is not None else "",
            f"at {users[0]}" if users else "",
            f"for {cell}" if cell is not None else "",
        ]
        return " ".join(filter(None, parts))

    def say_not_ended(self, frame: FrameType | None) -> None:
        """Log what keeps Python from ending while functions registered with `atexit` run. Any thread.

        Args:
            frame: The innermost frame of the main thread; None if that runs a function in C.
        """
        users = self._users_places(frame) if frame is not None else []
        where = f"is at {users[0]}" if users else "is in C"
        self._log(f"all tasks have ended, but Python has not: a function registered with atexit {where}")

    def _users_places(self, frame: FrameType) -> list[str]:
        """Return the lines of the user's and of libraries, outermost first, that have led to *frame*."""
        return [
            self.place(caller)
            for caller in chains.stack_of(frame)
            if owner_of(caller.f_code.co_filename) in {Owner.USER, Owner.LIBRARY}
        ]

    def place(self, frame: FrameType) -> str:
        """Return the name to show for the line that *frame* is at."""
        return self._session.describe(frame.f_code.co_filename, frame.f_lineno)

    def release(self) -> None:
        """Release the threads that wait for the loop."""
        self._session.owner.end()

    def log(self, line: str) -> None:
        """Write *line* to a log that people can read after the end. Any thread."""
        self._log(line)
