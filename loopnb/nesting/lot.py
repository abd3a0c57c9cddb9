"""The waits of one loop: who is parked, who can go on, and who must end early."""

from __future__ import annotations

from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, Any

from loopnb.internals import asyncio_state as state
from loopnb.internals.cancel_flag import has_cancel_flag
from loopnb.internals.places import is_called_by_tk
from loopnb.internals.tasks import LoopTask
from loopnb.nesting.unaware import UnawareTasks, deliver_noted

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from greenlet import greenlet

    from loopnb.nesting.waits import Wait

#: How far into the ready queue a nested run looks for the user's callbacks before it takes the long way.
_SHORT_QUEUE = 8


class ParkingLot:
    """Everything that waits in nested runs of one loop. The loop's thread.

    Attributes:
        waits: All of them, oldest first.
        is_lifo: Let only the newest go on, whether what older ones wait for is done or not.
            Those that Tk has called are always held to that among themselves: the calls into Tcl
            are on a stack of its own, and returns in any other order would crash the process.
        ready: Those whose stacks can go on.
        newest: The newest, while it has no callback on its future: that is looked at after each pass.
        unaware: Those whose tasks cannot tell us of a cancel: they are asked after each pass.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.waits: dict[Wait, None] = {}
        self.is_lifo = False
        self._below_tk: dict[Wait, None] = {}
        self._loop = loop
        self.ready: deque[Wait] = deque()
        self.newest: Wait | None = None
        self.unaware = UnawareTasks()
        # Shared by all wake-ups: they neither park nor run user code, and only in this thread.
        self.wake_context = Context()

    def begin(self, wait: Wait) -> None:
        """Enter *wait*, which the running task is about to begin."""
        self.waits[wait] = None
        if is_called_by_tk():
            self._below_tk[wait] = None
        if self.newest is not None:
            self.newest.arm(self.wake_context)
            self.newest = None
        task = wait.task
        if isinstance(task, LoopTask):
            task.parked = wait
        elif task is not None:
            self.unaware.enrol(wait, task)
        if task is not None and has_cancel_flag(task):
            deliver_noted(wait, task)  # as with `await`: at once
        if wait.future.done():
            wait.arm(self.wake_context)  # the next pass would block: nothing is scheduled for it
        else:
            self.newest = wait

    def forget(self, wait: Wait) -> None:
        """Withdraw all that could wake *wait*, or the next unrelated wait would end early."""
        wait.close()
        self.waits.pop(wait, None)
        if self._below_tk:
            self._below_tk.pop(wait, None)
        if self.newest is wait:
            self.newest = None
        if wait.is_ready:
            wait.is_ready = False
            if wait in self.ready:
                self.ready.remove(wait)
        if not isinstance(wait.task, LoopTask):
            self.unaware.forget(wait)
        elif hasattr(wait.task, "parked"):
            del wait.task.parked

    def next_after_pass(self) -> Wait | None:
        """Return the wait whose stack goes on next, also if it has ended without telling us."""
        if self.unaware.seen and not self.ready:
            # Not once for each of many that go on after one pass: that would be quadratic.
            self.unaware.poll()
        newest = self.newest
        if newest is not None and newest.future.done():
            # A done-callback would cost a whole pass per nested run. But callbacks that the user
            # added must have run by the time the wait returns, as they have in the stock loop:
            # where the ready queue holds one, or is too long to look, the callback it is.
            self.newest = None
            if state.may_carry(self._loop, newest.future, _SHORT_QUEUE):
                newest.arm(self.wake_context)
            elif self.ready or newest.is_ready:
                newest.set_ready()
            else:
                return newest
        return self.next_ready() if self.ready else None

    def next_ready(self) -> Wait | None:
        """Take the wait whose stack goes on next off the queue."""
        if not self.ready:
            return None
        ordered = self._ordered()
        if not ordered:
            wait = self.ready.popleft()
        else:
            newest = next(reversed(ordered))
            free = next((wait for wait in tuple(self.ready) if wait is newest or wait not in ordered), None)
            if free is None:
                return None
            wait = free
            self.ready.remove(wait)
        wait.is_ready = False
        if self.unaware.seen:
            self.unaware.look_at(wait)
        return wait

    def _ordered(self) -> dict[Wait, None]:
        """Return the waits of which only the newest may go on, oldest first."""
        return self.waits if self.is_lifo else self._below_tk

    def has_outcome(self, error: BaseException) -> bool:
        """Say whether *error* is what somebody's wait ends in anyway."""
        futures = [wait.future for wait in self.waits if wait.future.done()]
        return any(not future.cancelled() and future.exception() is error for future in futures)

    def newest_foreground(self) -> Wait | None:
        """Return the newest wait of a cell."""
        return next((wait for wait in reversed(self.waits) if wait.is_foreground), None)

    def interrupt(
        self,
        cancel: Callable[[asyncio.Future[Any]], object],
        finish: Callable[[asyncio.Future[Any]], bool],
    ) -> bool:
        """Interrupt the newest wait of a cell, see `Wait.interrupt`.

        Returns:
            False if no cell waits.
        """
        wait = self.newest_foreground()
        if wait is not None:
            wait.interrupt(cancel, finish)
        return wait is not None

    def end_all(self, end: Callable[[Wait], object], must_end: Callable[[Wait], bool]) -> bool:
        """Call *end* on each wait that *must_end*, the newest first.

        Returns:
            False if there was none, or all were due to end already.
        """
        ordered, is_held_up = self._ordered(), False
        ending: list[Wait] = []
        for wait in self.waits:
            # What is ordered can go on only after all that are newer.
            is_ordered = wait in ordered
            if must_end(wait) or (is_held_up and is_ordered):
                is_held_up = is_held_up or is_ordered
                ending.append(wait)
        ending = [wait for wait in reversed(ending) if not wait.is_ready]
        for wait in ending:
            end(wait)
        return bool(ending)


def stands_on(stack: greenlet | None, kind: type[greenlet]) -> greenlet | None:
    """Return the greenlet of that *kind* that *stack* is or was started below; None if there is none."""
    while stack is not None and not isinstance(stack, kind):
        stack = stack.parent
    return stack
