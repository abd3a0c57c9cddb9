"""The end of a shell: its cells and tasks end in order, and what could not end is named with its cell."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from loopnb.frames import Owner, owner_of
from loopnb.loop._cpython import call_of
from loopnb.loop.shutdown import OrderlyEnd
from loopnb.texts import error_text
from loopnb.tracking import chains
from loopnb.tracking.cells import current_cell

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from types import FrameType

    from loopnb.kernel.subshells import SubshellLoops
    from loopnb.session import Session
    from loopnb.shell.error_notes import ErrorNotes
    from loopnb.shell.interrupts import Interrupts


class ShellsEnd:
    """Ends the cell that executes and the tasks of a session, and names what failed or stayed.

    Args:
        session: The session.
        interrupts: Knows the cells that await, and interrupts those that nest.
        error_notes: Explains errors.
        log: Writes a line where people look after the end.

    Attributes:
        subshells: Keeps the loops of subshells, and ends what is parked there; None where there are none.
        was_requested: A front end has asked for the end; it was not `exit()` or a signal.
    """

    def __init__(
        self,
        session: Session,
        interrupts: Interrupts,
        error_notes: ErrorNotes,
        log: Callable[[str], None],
    ) -> None:
        self._session = session
        self._interrupts = interrupts
        self._error_notes = error_notes
        self._log = log
        self._told: set[int] = set()
        self._is_winding_down = False
        self.was_requested = False
        self.subshells: SubshellLoops | None = None
        interrupts.take_at_end = self._take_fatal
        self.rest = OrderlyEnd(
            live=lambda: [*session.tracker.live(), *interrupts.awaiting],
            is_ending=interrupts.was_interrupted,
            grace=lambda: float(session.settings.shutdown_grace),
            describe=self._describe,
            describe_thread=self._describe_thread,
            place=self._place,
            release=session.owner.end,
            log=log,
        )

    async def wind_down(self) -> None:
        """End everything in order, and name in the log what could not end. The loop's thread."""
        self._is_winding_down = True
        try:
            self._end_bare_waits()
            grace = float(self._session.settings.shutdown_grace)
            parked = self.subshells.begin_to_end() if self.subshells is not None else []
            await asyncio.gather(
                self.rest.wind_down(),
                *(one.wait_ended(parked, grace, self._log) for one in [self.subshells] if one is not None),
            )
        finally:
            self._is_winding_down = False
        self._tell_failures()

    def _end_bare_waits(self) -> None:
        """End the nested runs of cells that wait for no task: nothing that is cancelled would end them."""
        engine, newest = self._session.engine, self._session.nesting.newest_reentrant()
        waits: list[Any] = [] if newest is None else [newest]
        waits += [wait for wait in engine.waits if wait.is_foreground] if engine is not None else []
        for wait in waits:
            if isinstance(wait.future, asyncio.Future) and not isinstance(wait.future, asyncio.Task):
                wait.end(asyncio.CancelledError())

    def _take_fatal(self, error: BaseException) -> bool:
        """Keep a task that answers its cancellation with `sys.exit()` from ending all the others at once."""
        if self._is_winding_down:
            self._log(f"a task raised {error_text(error)} while it was ended; the others still end in order")
        return self._is_winding_down

    def check(self) -> None:
        """Name what nobody has ended or named before Python ends. Outside the loop, in its thread."""
        self.rest.check()
        self._tell_failures()

    def say_blocked(self) -> None:
        """Say that the loop does not turn, so that nothing can end. Any thread."""
        by = self._session.cell or "something that is no cell"
        self._log(f"{by} blocks the loop: no task can end in order before it goes on")

    def _tell_failures(self) -> None:
        for failure in self._session.failures.unseen():
            number, cell = failure.origin.number, failure.origin.cell
            if number not in self._told:
                self._told.add(number)
                self._log(
                    f"task {failure.name!r}, spawned by {cell or 'other code'}, failed and nobody "
                    f"awaited it: {self._error_notes.line(failure.error)}"
                )

    def _describe(self, task: asyncio.Task[Any]) -> str:
        if task in self._interrupts.awaiting:
            return f"cell {self._session.cell}"
        record = self._session.tracker.record(task)
        return f"task {record.name!r}, spawned by {record.cell or 'other code'}, {record.doing}"

    def _describe_thread(self, thread: threading.Thread, frame: FrameType) -> str:
        called, context = call_of(frame)
        users = [
            self._place(one)
            for one in chains.stack_of(frame)
            if owner_of(one.f_code.co_filename) in {Owner.USER, Owner.LIBRARY}
        ]
        cell = context.get(current_cell) if context is not None else None
        name = getattr(called, "__qualname__", None)
        parts = [
            f"thread {thread.name!r} is busy",
            f"with {name}()" if name is not None else "",
            f"at {users[0]}" if users else "",
            f"for {cell}" if cell is not None else "",
        ]
        return " ".join(filter(None, parts))

    def _place(self, frame: FrameType) -> str:
        return self._session.describe(frame.f_code.co_filename, frame.f_lineno)
