"""The waits of one loop: who is parked, who can go on, and who must end early."""

from __future__ import annotations

import sys
from collections import OrderedDict
from contextvars import Context
from typing import TYPE_CHECKING, Any

from loopnb.internals import asyncio_state as state
from loopnb.internals.cancel_flag import cancel_message, has_cancel_flag
from loopnb.internals.eager import MAY_BE_EAGER, creators_of
from loopnb.internals.fatal import note_taken, was_taken
from loopnb.internals.places import is_called_by_tk
from loopnb.internals.selecting import handle_of
from loopnb.internals.task_state import error_of
from loopnb.internals.tasks import LoopTask
from loopnb.nesting.unaware import UnawareTasks, deliver_noted

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from greenlet import greenlet

    from loopnb.nesting.foreground import Foreground
    from loopnb.nesting.waits import Wait

#: How far into the ready queue a nested run looks for the user's callbacks before it takes the long way.
_SHORT_QUEUE = 8
#: Returns False, and is asked after each pass: nothing is called faster.
_never: Callable[[], bool] = bool


class ParkingLot:
    """Everything that waits in nested runs of one loop. The loop's thread.

    Attributes:
        waits: All of them, oldest first.
        is_lifo: Let only the newest go on, whether what older ones wait for is done or not.
            Those that Tk has called are always held to that among themselves: the calls into Tcl
            are on a stack of its own, and returns in any other order would crash the process.
        ready: Those whose stacks can go on, first come, first served: the keys. One that a callback was
            late for may have ended.
        newest: The newest, while it has no callback on its future: that is looked at after each pass.
        is_newest_done: Says whether its future is done.
        unaware: Those whose tasks cannot tell us of a cancel: they are asked after each pass.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.waits: dict[Wait, None] = {}
        self._handles_run: dict[Wait, asyncio.Handle | None] = {}  # of those that somebody has asked for
        self._all_run: set[asyncio.Handle | None] | None = None
        self.is_lifo = False
        self._below_tk: dict[Wait, None] = {}
        self._loop = loop
        self._handles = state.ready_queue(loop)
        self.ready: OrderedDict[Wait, Any] = OrderedDict()
        self.newest: Wait | None = None
        self.is_newest_done: Callable[[], bool] = _never
        self.unaware = UnawareTasks()
        # Shared by all wake-ups: they neither park nor run user code, and only in this thread.
        self.wake_context = Context()

    def begin(self, wait: Wait) -> None:
        """Enter *wait*, which the running task is about to begin."""
        self.waits[wait] = None
        if "tkinter" in sys.modules and is_called_by_tk():
            self._below_tk[wait] = None
        if self.newest is not None:
            self.newest.arm(self.wake_context)
            self.newest, self.is_newest_done = None, _never
        task = wait.task
        if isinstance(task, LoopTask):
            task.parked = wait
        elif task is not None:
            self.unaware.enrol(wait, task)
        if task is not None and has_cancel_flag(task):
            deliver_noted(wait, task)  # as with `await`: at once
        if MAY_BE_EAGER and task is not None and (creators := creators_of(task)):
            self._park_creators(wait, creators)
        is_done = wait.future.done
        if is_done():
            wait.arm(self.wake_context)  # the next pass would block: nothing is scheduled for it
        else:
            self.newest = wait
            self.is_newest_done = is_done

    def forget(self, wait: Wait) -> None:
        """Withdraw all that could wake *wait*, or the next unrelated wait would end early."""
        wait.close()
        self.waits.pop(wait, None)
        if self._handles_run:
            self._handles_run.pop(wait, None)
            self._all_run = None
        if self._below_tk:
            self._below_tk.pop(wait, None)
        if self.newest is wait:
            self.newest, self.is_newest_done = None, _never
        if self.ready:
            self.ready.pop(wait, None)
        if isinstance(wait.task, LoopTask):
            wait.task.parked = None
        if self.unaware.seen:
            self.unaware.forget(wait)

    def _park_creators(self, wait: Wait, creators: list[asyncio.Task[Any]]) -> None:
        """Have a cancel of those in whose steps an eager task has its first one end *wait*, too.

        It is theirs all the same: they need not await that task, and get it where they next await.
        """
        for creator in creators:
            self.unaware.enrol(wait, creator)
            if has_cancel_flag(creator):
                wait.cancel(cancel_message(creator))

    def next_after_pass(self) -> Wait | None:
        """Return the wait whose stack goes on next, also if it has ended without telling us."""
        if self.unaware.seen and not self.ready:
            # Not once for each of many that go on after one pass: that would be quadratic.
            self.unaware.poll()
        newest, is_done = self.newest, self.is_newest_done
        if newest is not None and is_done():
            # A done-callback would cost a whole pass per nested run. But callbacks that the user
            # added must have run by the time the wait returns, as they have in the stock loop:
            # where the ready queue holds one, or is too long to look, the callback it is. So it is
            # where an older wait is due: first come, first served.
            context = self.wake_context
            if self._handles and state.may_carry(self._loop, newest.future, context, _SHORT_QUEUE):
                newest.arm(context)
            elif self.ready:
                newest.set_ready()
            else:
                return newest  # and is so until its stack goes on: see `forget`
            self.newest, self.is_newest_done = None, _never
        return self.next_ready() if self.ready else None

    def next_ready(self) -> Wait | None:
        """Return the wait whose stack goes on next. It stays in the queue until it does: see `forget`."""
        if self.is_lifo or self._below_tk or self.unaware.seen:
            return self._next_in_order()
        while (wait := next(iter(self.ready), None)) is not None and wait.has_ended:
            del self.ready[wait]
        return wait

    def _next_in_order(self) -> Wait | None:
        """Do so where only the newest of those that are ordered may go on, or one may have been cancelled."""
        ordered = self._ordered()
        newest = next(reversed(ordered), None)
        free = (wait for wait in tuple(self.ready) if wait is newest or wait not in ordered)
        wait = next((wait for wait in free if not wait.has_ended), None)
        if wait is not None:
            self.unaware.look_at(wait)
        return wait

    def _ordered(self) -> dict[Wait, None]:
        """Return the waits of which only the newest may go on, oldest first."""
        return self.waits if self.is_lifo else self._below_tk

    def runs(self, handle: asyncio.Handle) -> bool:
        """Say whether a parked stack is part of *handle*."""
        for wait in reversed(self.waits):
            if wait in self._handles_run:
                break  # and so are all before
            self._handles_run[wait] = handle_of(wait.stack)
            self._all_run = None
        if self._all_run is None:
            self._all_run = set(self._handles_run.values())
        return handle in self._all_run

    def take_fatal(self, error: BaseException, foreground: Foreground | None) -> bool:
        """Have the newest wait of a cell end in *error*, unless that is what somebody's wait ends in anyway.

        Whoever awaits the task that has raised it raises it once more: out of a later pass, when the
        cell has had it and goes on, or another one runs.

        Returns:
            False if it has to go to the loop's owner.
        """
        done = (wait.future for wait in self.waits if wait.future.done())
        if was_taken(error) or any(error_of(future) is error for future in done):
            is_taken = True
        elif (cell := self.newest_foreground()) is not None:
            cell.end(error)
            is_taken = True
        else:
            is_taken = foreground is not None and foreground.take_fatal(error)
        if is_taken:
            note_taken(error)
        return is_taken

    def end_with(self, error: BaseException, must_end: Callable[[Wait], bool]) -> bool:
        """Have each wait that *must_end* end in *error*, also if it is due to end otherwise.

        Returns:
            False if there was none.
        """
        ending = [wait for wait in self.waits if must_end(wait)]
        if not self.end_all(lambda wait: wait.end(error), lambda wait: wait in ending):
            for wait in ending:
                wait.end(error)
        return bool(ending)

    def newest_foreground(self) -> Wait | None:
        """Return the newest wait of a cell."""
        return next((wait for wait in reversed(self.waits) if wait.is_foreground), None)

    def interrupt(self, foreground: Foreground) -> bool:
        """Interrupt the newest wait of a cell, see `Wait.interrupt`.

        Returns:
            False if no cell waits.
        """
        wait = self.newest_foreground()
        if wait is not None:
            wait.interrupt(foreground)
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
        ending = [wait for wait in reversed(ending) if wait not in self.ready]
        for wait in ending:
            end(wait)
        return bool(ending)


def stands_on(stack: greenlet | None, kind: type[greenlet]) -> greenlet | None:
    """Return the greenlet of that *kind* that *stack* is or was started below; None if there is none."""
    while stack is not None and not isinstance(stack, kind):
        stack = stack.parent
    return stack
