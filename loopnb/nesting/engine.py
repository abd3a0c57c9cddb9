"""Nested runs by parked stacks and a driver that moves.

The wish. Synchronous code inside a running loop -- a cell, a task, a bare callback -- asks for the
result of a coroutine, and everything else in the loop goes on meanwhile.

What does not work. Running the loop *on top of* the waiting stack (nest_asyncio) ends waits only
last-in-first-out: a wait of 0.1 s under a wait of 1 s takes 1 s, and a wait that depends on an
earlier one hangs for ever. Its depth is bounded by the recursion limit, and whatever shares a
`Context` with a waiting stack cannot run at all.

The mechanism. Stacks live in greenlets. The one that turns the loop is the *driver*: it calls the
loop's own one-pass method, over and over. When code below it asks for a nested run, its stack is
*parked* where it stands, and another driver turns the loop on. When the awaited future is done,
whoever drives then switches back to the parked stack, and is idle until the next one parks. No
stack stands on another one, so waits end in any order, and nothing but the switch costs anything.

    owner    run_forever()            waits in `_run_once` until stop; runs no handle itself
    driver A   pass: task 1 -> asyncio.run(x)   parked, resumed as soon as x is done
    driver B   pass: task 2 -> asyncio.run(y)   parked, while A's or C's passes go on
    driver C   pass, pass, pass ...             turns the loop now

Five rules keep this true to what the stock loop does:

*   A pass counts its handles first, then runs that many. Handles that another driver ran meanwhile
    make a resumed pass run dry: the IndexError says no more than that (`turn`). The pass in
    which the engine is installed has no driver to swallow it, so it is topped up (`FirstPass`).
*   The owner of `run_forever` never runs handles. Parked itself, it would keep stop, shutdown and
    fatal exceptions waiting for a bystander.
*   Before the loop may block in select, every stack that can go on goes on (`_settle`).
*   A parked stack leaves its task and its Contexts, so that others may enter them, and takes them
    up again when it is resumed.
*   A new greenlet inherits the depth of the stack that starts it. Drivers are started by the
    *spawner*, which was itself started in the shallow frame of the owner.

What it cannot do. A nested run inside another greenlet's C++ frames that keep a stack of their own
(pybind11) must end last-in-first-out, and nothing can tell; below Tk it can be told, and is seen to.
A loop that cannot be turned one pass at a time (uvloop) is refused. A parked stack can be resumed by
its own thread only.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections import OrderedDict
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from loopnb.errors import NestingError
from loopnb.frames import is_ours, without_any_frames_of
from loopnb.nesting import _cpython
from loopnb.nesting._cpython import cancel_message, clear_cancel_flag, error_of, has_cancel_flag, ready_queue
from loopnb.nesting.eager import MAY_BE_EAGER, creators_of
from loopnb.nesting.fatal import note_taken, was_taken
from loopnb.nesting.greenlets import GreenletExit, getcurrent, greenlet
from loopnb.nesting.loop_task import LoopTask, make_task
from loopnb.nesting.readers import handle_of
from loopnb.nesting.refusals import clear_of_nesting, is_called_by_tk, passes_on_top, refusal, why_not_here
from loopnb.nesting.released import Absences
from loopnb.patching import Patch, PatchSet, TaskFactoryPatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from loopnb.nesting.released import LeftBelow

_log = logging.getLogger("loopnb")
_switch = greenlet.switch  # a bound method each time would be made for nothing

#: After a burst of nested runs this many drivers are kept for the next one.
_IDLE_DRIVERS = 4
#: At least so many frames are ours: `Handoff.check_place` and what leads to it from the patched names.
_OUR_FRAMES = 4


class _Driver(greenlet):  # type: ignore[misc]  # greenlet is untyped
    """A greenlet that turns the loop; told by its class from the stacks of other people."""


class Handoff:
    """The engine of one loop. All of it runs in the loop's thread, `interrupt` included.

    Args:
        loop: A loop for which `why_not_drivable` knows no reason.

    Attributes:
        is_pinned: Stay installed between runs of the loop, until `remove`.
        lot: The waits, and what may end them.
        waits: The waits whose stacks are parked, oldest first.
        is_closing: Let no stack be parked: the loop is about to be closed.
        turning, handed_to: The driver whose pass or handle runs now; who is about to have the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.is_pinned = False
        self._foreground: Foreground | None = None
        self.lot = ParkingLot(loop)
        self.waits = self.lot.waits
        self.is_removed = False
        self.is_closing = False
        self._stock_pass = _cpython.stock_run_once.__get__(loop)
        self._patches = PatchSet(Patch(loop, "_run_once", self.run_once), TaskFactoryPatch(loop, make_task))
        self._thread_id: int | None = None
        self._owner: greenlet | None = None
        self._owner_error: BaseException | None = None
        self._spawner: greenlet | None = None
        self._idle: list[greenlet] = []
        self._batch = object()  # of spawner and drivers; another one, once they are to be thrown away
        self._first_pass = FirstPass(loop, _Driver)
        self._absences = Absences(self, _Driver)
        self.turning: greenlet | None = None
        self.handed_to: greenlet | None = None

    # -- coming and going ---------------------------------------------------------------------

    def install(self) -> None:
        """Take over the loop's passes. Works in the middle of one, too."""
        if _cpython.running_loop() is self.loop and self._owner is None:
            self._first_pass.begin()
            self._thread_id = threading.get_ident()
        self.is_removed = False
        self._patches.install()

    def remove(self) -> None:
        """Give the loop back: at once, or when the last parked stack has been resumed."""
        self.is_removed = True
        if self._thread_id != threading.get_ident() and self.loop.is_running():
            self.loop.call_soon_threadsafe(self._remove_here, context=self.lot.wake_context)
        else:
            self._remove_here()

    def _remove_here(self) -> None:
        if self.is_removed and not self.waits:
            self._uninstall()  # the driver that runs then gives the loop back to its owner, in `_settle`

    def _uninstall(self) -> None:
        self._patches.restore()
        self._absences.parked_time.restore()
        if self._owner is None:
            self._drop_drivers()

    def _drop_drivers(self) -> None:
        # A suspended greenlet keeps what its frames refer to, us included. The cycle is cut here,
        # by dropping references: `throw()` would land in the parent.
        self._batch = object()
        self.turning = self.handed_to = self._spawner = None
        self._idle.clear()

    # -- the waiting side ---------------------------------------------------------------------

    def check_place(self) -> None:
        """Raise NestingError if no stack can be parked here, before anything is begun that would wait."""
        if self.is_removed or self.is_closing or why_not_here(_OUR_FRAMES):
            raise refusal(is_removed=self.is_removed, is_closing=self.is_closing)

    def wait(self, future: asyncio.Future[Any], owned: bool) -> None:
        """Park the calling stack until *future* is done, and let the loop go on meanwhile.

        The place must have been checked.

        Args:
            future: A future of this loop. Its result is not looked at here.
            owned: An interrupt may cancel *future*, since it was made for this wait.

        Raises:
            CancelledError: The calling task was cancelled.
            KeyboardInterrupt: The wait was interrupted, or it was chosen to receive one.
            RuntimeError: The loop was stopped, and nothing will turn it for this wait.
            NestingError: No stack can be parked any more, since the place was checked.
        """
        if self.is_removed or self.is_closing:
            raise refusal(is_removed=self.is_removed, is_closing=self.is_closing)
        wait = Wait(self.lot.ready, future, _cpython.current_task(self.loop), owned)
        foreground = self._foreground
        if wait.task is None or foreground is None or not _is_awaited(foreground, wait.task):
            self._park(wait)
        else:
            wait.is_foreground = True
            # First and last: in between no interrupt is raised in here, where it would break the order.
            foreground.stack_parked()
            try:
                self._park(wait)
            finally:
                foreground.stack_resumed()
        if wait.ending is not None:
            wait.raise_ending()

    @clear_of_nesting("stacks are being switched")
    def _park(self, wait: Wait) -> None:
        """Leave task and Contexts, hand the loop to whoever goes on, and take all up again."""
        wait.stack, wait.driver = getcurrent(), self.turning
        try:  # already: a signal handler may raise in any of these
            self.lot.begin(wait)
            if self._first_pass.is_under_way:
                wait.owed = self._first_pass.owed(wait.stack)
            self._absences.begin(wait)
            self._hand_to(self._next_stack())
        finally:
            try:
                self._take_up(wait)
            except BaseException:
                self._take_up(wait)  # a signal handler has raised in there: what is left to do
                raise
            wait.driver = None

    def _take_up(self, wait: Wait) -> None:  # broken off, it can be done again
        self._absences.end(wait)
        self.turning = wait.driver  # not always below: the handle may have switched to this stack
        self.lot.forget(wait)
        if wait.owed:
            self._first_pass.repay(wait.owed)
        if wait.task is None:
            # Interrupted by a signal handler, select goes on for what was the next event when it began.
            _cpython.wake(self.loop)
        if self.is_removed and not self.waits:
            self._uninstall()

    def _next_stack(self) -> greenlet:
        """Choose who goes on when a stack has just parked, or when the owner wants the loop turned."""
        if self.lot.ready and (wait := self.lot.next_ready()) is not None:
            return wait.stack
        if self._idle:
            return self._idle.pop()
        if not self._spawner:  # also if an exception has ended it
            self._spawner = greenlet(self._spawn)
        return self._spawner

    def _hand_to(self, stack: greenlet) -> None:
        """Switch to *stack*, until this one is handed the loop.

        What ends *here* is passed on to who turns the loop, as if both were one stack: somebody else's
        greenlet, started here and used there; or a driver that a signal handler kept from beginning.
        """
        self.handed_to = stack
        go_on: Callable[[], Any] | None = None
        while True:
            try:
                result = _switch(stack) if go_on is None else go_on()
            except GreenletExit:
                raise  # this very stack was thrown away
            except BaseException as error:
                if not self.turning or getcurrent() in (self.handed_to, self.turning):
                    raise
                go_on = partial(self.turning.throw, error)
            else:
                if self.handed_to is getcurrent() or not self.turning:
                    self.handed_to = None
                    return
                go_on = partial(self.turning.switch, result)

    # -- the driving side ---------------------------------------------------------------------

    @clear_of_nesting("stacks are being switched")
    def run_once(self) -> None:
        """Stand in for the loop's own pass: have drivers make passes until stop or removal.

        Called by `run_forever`, in what becomes the owner's stack. Raises what came out of a pass and
        is for nobody who waits.
        """
        self.check_thread()
        if self._first_pass.is_under_way:
            # Those drivers were started deep below a handle; these start here.
            self._first_pass.is_under_way = False
            self._drop_drivers()
        self._owner = getcurrent()
        try:
            wait = self.lot.next_after_pass()  # futures can become done while the loop is stopped
            self._hand_to(self._next_stack() if wait is None else wait.stack)
        finally:
            self._owner = None
        if not self.waits:
            self._drop_drivers()
            if self.is_removed or not self.is_pinned:
                self._uninstall()
        # A call: a signal that came while the drivers were thrown away raises in there, and not when
        # `run_forever` begins to clean up, which from 3.13 on would leave the loop set as running.
        self._raise_owners()

    def _raise_owners(self) -> None:
        if self._owner_error is not None:
            error, self._owner_error = self._owner_error, None
            raise error

    def check_thread(self) -> None:
        """Make the calling thread the loop's. NestingError: only another can resume what is parked there."""
        if self._owner is not None:
            raise passes_on_top(len(self.waits))
        thread_id = threading.get_ident()
        if thread_id == self._thread_id:
            return
        if self.waits:
            raise NestingError(
                f"{len(self.waits)} stacks of this loop are parked in another thread",
                "Let their nested runs end there before running the loop in this one.",
            )
        self._thread_id = thread_id
        self._drop_drivers()

    # What a suspended greenlet's frames refer to is invisible to the garbage collector. So a driver
    # keeps no reference to itself in them, and none to the spawner, which refers to the last driver.
    #
    # A signal handler may raise at a jump backwards, which on 3.12 no `try` in the same function
    # covers. So what has to catch it does not loop itself, but after an error.

    def _spawn(self) -> None:
        """Start drivers at the depth of the stack that started this greenlet."""
        error: BaseException | None = None
        batch = self._batch
        while True:
            try:
                self._spawn_each(error)
            except GreenletExit:
                raise
            except BaseException as caught:  # noqa: BLE001  a signal handler's: the next driver delivers it
                if batch is not self._batch:
                    self._owner_error = caught
                    return
                error = caught

    def _spawn_each(self, error: BaseException | None) -> None:
        while True:
            _Driver(self._drive, getcurrent().parent).switch(error)
            error = None

    @clear_of_nesting("stacks are being switched")
    def _drive(self, error: BaseException | None = None) -> None:
        """Turn the loop. Ends only by retiring into the stack that goes on in its place.

        An *error* came out of a pass, or a signal handler has raised it in here.
        """
        is_due = error is None  # the first pass; before the others all go on who can
        batch = self._batch
        while True:
            try:
                self._drive_on(error, is_due)
                return
            except GreenletExit:
                raise  # this stack was thrown away: it turns nothing any more
            except BaseException as caught:  # noqa: BLE001  it is handed on, not swallowed
                if batch is not self._batch:  # raised while this stack was thrown away
                    self._owner_error = caught
                    return
                error, is_due = caught, False
                if getcurrent() in self._idle:
                    self._idle.remove(getcurrent())

    def _drive_on(self, error: BaseException | None, is_due: bool) -> None:
        if error is not None:
            self._deliver_fatal(error)
            error = None
        while True:
            if not is_due and not self._settle():
                return
            is_due = False
            self.turning = getcurrent()
            _cpython.turn(self.loop, self._stock_pass, self)

    def _settle(self) -> bool:
        """Let all go on who can; False if the driver is to return to its parent, which is one of them."""
        wait = self.lot.next_after_pass()
        if wait is None:
            must_leave = _cpython.is_stopping(self.loop) or (self.is_removed and not self.waits)
            if self._owner_error is None and not must_leave:
                return True
            if self._end_taskless_waits():
                return self._settle()
        elif len(self._idle) >= _IDLE_DRIVERS and wait.becomes_parent_of(getcurrent()):
            self.handed_to = wait.stack
            return False
        stack = self._owner if wait is None else wait.stack
        if stack is not None:
            self._idle.append(getcurrent())
            self._hand_to(stack)
        return True

    def _end_taskless_waits(self) -> bool:
        """At a stop, end the waits that no later run of the loop could resume."""
        return _cpython.is_stopping(self.loop) and self.lot.end_all(
            Wait.stop, lambda wait: wait.task is None or self._first_pass.holds(wait.stack)
        )

    def _deliver_fatal(self, error: BaseException) -> None:
        """Hand what came out of a pass to whoever it is for.

        That is the stack that waits for the task which raised it, else the newest waiting cell,
        else the loop's owner. It may be any error: a signal handler has raised it in select.
        """
        error.__traceback__ = without_any_frames_of(error.__traceback__, is_ours)
        if self.lot.take_fatal(error, self._foreground):
            return
        if self._owner is not None:
            self._owner_error = error
        elif not self.lot.end_with(error, lambda wait: self._first_pass.holds(wait.stack)):
            _log.error("an error of the event loop had nobody to go to", exc_info=error)

    def interrupt(self) -> bool:
        """Interrupt the newest wait of a cell, see `ParkingLot.interrupt`. Call it in a handle."""
        return self._foreground is not None and self.lot.interrupt(self._foreground)

    def set_foreground(self, foreground: Foreground) -> None:
        """Ask *foreground*, from now on, which stacks a user is waiting for."""
        self._foreground = foreground

    def note_set_aside(self) -> None:
        """Note that another loop is about to run in this thread, on top of this one. May raise."""
        if self._foreground is not None:
            self._foreground.loop_set_aside()


# -- foreground ------------------------------------------------------------
#
# What the engine is told of the stacks that a user is waiting for: a cell's, or the prompt's.


class Foreground(Protocol):
    """Knows the stacks that a user is waiting for. The engine calls it in the loop's thread."""

    def is_awaited(self, task: asyncio.Task[Any]) -> bool:
        """Return True if a user is waiting for *task*: a cell executes in it."""

    def stack_parked(self) -> None:
        """Note that the stack of such a task is about to be parked. May raise."""

    def stack_resumed(self) -> None:
        """Note that the stack of such a task goes on. May raise."""

    def cancel(self, future: asyncio.Future[Any]) -> None:
        """Cancel what such a stack waits for: the first interrupt."""

    def finish(self, future: asyncio.Future[Any]) -> bool:
        """End what has swallowed that: the second interrupt. Return False if it cannot be ended."""

    def take_fatal(self, error: BaseException) -> bool:
        """Take what came out of a pass, for a cell that awaits. Return False if no cell does."""

    def loop_set_aside(self) -> None:
        """Note that the loop cannot do what it was asked to: another loop runs on top of it. May raise."""


def _is_awaited(foreground: Foreground, task: asyncio.Task[Any]) -> bool:
    """Return True if a user is waiting for *task*, or for one in whose step it has its own first one."""
    return foreground.is_awaited(task) or (
        MAY_BE_EAGER and any(map(foreground.is_awaited, creators_of(task)))
    )


# -- first_pass ------------------------------------------------------------
#
# The pass that was under way when the engine was installed: nothing of ours is below it.


class FirstPass:
    """Keeps the stock pass from popping an empty queue, where no driver would swallow the error.

    That pass has counted its handles and will pop as many. While a stack of its own is parked,
    drivers run handles too; so when it goes on, the queue is topped up with handles that do
    nothing. Only for this one pass: doing it always makes nested runs quadratic.

    Args:
        loop: The loop.
        driver: The class of the engine's own greenlets; any other stack is this pass's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, driver: type[greenlet]) -> None:
        self._loop = loop
        self._driver = driver
        self.is_under_way = False
        self._owed = 0

    def begin(self) -> None:
        """Take the pass that runs now for the one that must not run dry."""
        before = self._owed if self.is_under_way else 0
        # What it may still pop is in the queue now, with what was scheduled since it began. Counted
        # anew for each stack, it would grow by the handles of the nested runs themselves.
        self._owed = max(before, len(ready_queue(self._loop)))
        self.is_under_way = True

    def holds(self, stack: greenlet | None) -> bool:
        """Say whether *stack* is this pass's: neither a driver nor started below one."""
        return self.is_under_way and stack is not None and stands_on(stack, self._driver) is None

    def owed(self, stack: greenlet) -> int:
        """Return how many handles the pass below *stack* may still pop without asking."""
        return self._owed if self.holds(stack) else 0

    def repay(self, owed: int) -> None:
        """Top the ready queue up to *owed* handles."""
        queue = ready_queue(self._loop)
        while len(queue) < owed:
            filler = asyncio.Handle(_nothing, (), self._loop)
            filler.cancel()
            queue.append(filler)


def _nothing() -> None: ...


# -- unaware ------------------------------------------------------------
#
# Cancel requests to parked tasks of a class that cannot tell us of them.


class UnawareTasks:
    """The waits of tasks born before nesting, or under somebody else's task factory.

    Attributes:
        seen: Those waits, each with such tasks and their counts of cancel requests when last looked at.
            A creator of an eager task is one as well, whatever its class.

    `LoopTask.cancel` knows that its task is parked. Another task's only leaves a note in it, so
    the notes of these few are looked at after each pass.
    """

    def __init__(self) -> None:
        self.seen: dict[Wait, dict[asyncio.Task[Any], int]] = {}

    def enrol(self, wait: Wait, task: asyncio.Task[Any]) -> None:
        """Watch *task*, whose stack is parked in *wait*."""
        self.seen.setdefault(wait, {})[task] = task.cancelling()

    def forget(self, wait: Wait) -> None:
        """Watch *wait* no more."""
        self.seen.pop(wait, None)

    def poll(self) -> None:
        """Deliver what has been noted since the last time."""
        for wait in list(self.seen):
            self.look_at(wait)

    def look_at(self, wait: Wait) -> None:
        """Deliver what has been noted for *wait*, if it is one of these."""
        tasks = self.seen.get(wait, {})
        for task, seen in tuple(tasks.items()):
            now = task.cancelling()
            # Where the note cannot be taken back it stays, and the count alone tells a new one.
            if now != seen:
                tasks[task] = now
            if task is not wait.task:
                if now > seen:
                    wait.cancel(cancel_message(task))  # and the note stays: it is not this wait's task's
            elif has_cancel_flag(task) and (now > seen or clear_cancel_flag(task)):
                deliver_noted(wait, task)


def deliver_noted(wait: Wait, task: asyncio.Task[Any]) -> None:
    """Have *wait* end in the cancel request that its *task* has noted in the middle of its step."""
    message = cancel_message(task)
    clear_cancel_flag(task)
    wait.cancel(message)


# -- waits ------------------------------------------------------------
#
# One wait: a parked stack, the future it is parked for, and all that may end it.


class _Ending:
    """What a wait ends in, if not in its future's outcome."""

    __slots__ = ("error", "is_cancelled", "is_finished", "is_interrupted", "message")

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.is_cancelled = self.is_interrupted = self.is_finished = False
        self.message: Any = None


class Wait:
    """A stack that waits for a future in a nested run.

    Everything here runs in the loop's thread.

    Args:
        ready: The engine's queue of waits whose stacks can go on: the keys.
        future: What is waited for.
        task: The task whose step is parked, if it is one.
        owned: *future* was made for this wait, so an interrupt may cancel it.

    Attributes:
        stack: It, until it goes on.
        is_foreground: A user is waiting for it.
        has_ended: The stack goes on, or is about to.
        ending: What it ends in otherwise.
        driver: The engine's driver that had called the stack. From here on kept by `Handoff` and `Absences`.
        owed: How many handles the first pass is owed.
        left_task, left_contexts, left_below, handle: What the stack has left and is to take up again.
        parked_at: When it has left the handle; not set without one.
    """

    __slots__ = (
        "__weakref__", "_callback", "_ready", "_retired", "driver", "ending", "future", "handle",
        "has_ended", "is_foreground", "is_owned", "left_below", "left_contexts", "left_task", "owed",
        "parked_at", "stack", "task",
    )  # fmt: skip

    left_task: asyncio.Task[Any] | None
    left_contexts: list[Context] | None
    left_below: LeftBelow | None
    handle: asyncio.Handle | None
    parked_at: float
    _retired: greenlet | None
    _callback: Callable[[object], object] | None

    def __init__(
        self,
        ready: OrderedDict[Wait, Any],
        future: asyncio.Future[Any],
        task: asyncio.Task[Any] | None,
        owned: bool,
    ) -> None:
        self._ready = ready
        self.future = future
        self.task = task
        self.is_owned = owned
        self.is_foreground = self.has_ended = False
        self.owed = 0
        self.stack: greenlet | None = None
        self.driver: greenlet | None = None
        self.ending: _Ending | None = None
        self.left_task = self.left_contexts = self.left_below = self.handle = None
        self._callback = self._retired = None

    def set_ready(self) -> None:
        """Have the stack resumed before the loop next blocks. Does nothing once it is due."""
        if not self.has_ended:
            self._ready.setdefault(self)

    def becomes_parent_of(self, driver: greenlet) -> bool:
        """Have the parked stack go on when *driver* returns; False if it must not.

        That is if it stands on *driver*, or is somebody else's greenlet: others whose parent *driver*
        was when they were made would switch to that one, once *driver* has ended.
        """
        if not isinstance(self.stack, type(driver)):
            return False
        try:
            driver.parent = self.stack
        except ValueError:
            return False
        self._retired = driver
        return True

    def end(self, error: BaseException) -> None:
        """Resume the stack with *error*, whatever becomes of the future."""
        self._end_otherwise().error = error
        self.set_ready()

    def _end_otherwise(self) -> _Ending:
        if self.ending is None:
            self.ending = _Ending()
        return self.ending

    def stop(self) -> None:
        """Resume the stack since the loop has stopped: with the outcome, if there is one already."""
        if self.future.done():
            self.set_ready()
        else:
            self.end(RuntimeError("Event loop stopped before Future completed."))

    def cancel(self, message: Any) -> None:
        """Deliver a cancel request of the parked task: cancel what it waits for."""
        if not self.future.cancel(message):
            # Done already, the wait is about to end. A cancelled `await` wins over its result, too.
            ending = self._end_otherwise()
            ending.is_cancelled, ending.message = True, message

    def interrupt(self, foreground: Foreground) -> None:
        """Make the wait end in KeyboardInterrupt.

        What is waited for is cancelled the first time, and what has swallowed that is finished the
        second time. If it cannot be, and the third time, only the wait ends.
        """
        is_pending = self.is_owned and not self.future.done()
        ending = self._end_otherwise()
        if is_pending and not ending.is_interrupted:
            ending.is_interrupted = True
            foreground.cancel(self.future)
        elif is_pending and not ending.is_finished and foreground.finish(self.future):
            ending.is_finished = True
        else:
            self.end(KeyboardInterrupt())

    def arm(self, context: Context) -> None:
        """Have the future's completion wake this wait, one pass after it."""
        if self._callback is None:
            # In C: a signal handler that raised in a function of ours would keep us from being woken.
            callback = partial(self._ready.setdefault, self)
            self.future.add_done_callback(callback, context=context)
            self._callback = callback

    def close(self) -> None:
        """Withdraw every wake-up and forget the stack: it is on its way already.

        The driver that ended in it forgets it, too: each driver that retires would keep the next
        one alive, and the spawner keeps the last.
        """
        self.has_ended = True
        if self._callback is not None:
            self.future.remove_done_callback(self._callback)
            self._callback = None
        stack = self.stack
        if self._retired is not None and stack is not None and stack.parent is not None:
            self._retired.parent = stack.parent
            self._retired = None
        self.stack = None

    def raise_ending(self) -> None:
        """Raise what this wait is to end in; just return if it is the future's outcome after all."""
        ending, self.ending = self.ending, None
        if ending is None:
            return
        if ending.error is not None:
            raise ending.error
        if ending.is_interrupted and self.future.cancelled():
            raise KeyboardInterrupt
        if ending.is_cancelled:
            if not self.future.cancelled():
                self.future.exception()  # seen: a cancelled `await` retrieves it, too
            message = ending.message
            raise asyncio.CancelledError(*(() if message is None else (message,)))


# -- lot ------------------------------------------------------------
#
# The waits of one loop: who is parked, who can go on, and who must end early.


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
        self._handles = _cpython.ready_queue(loop)
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
            if self._handles and _cpython.may_carry(self._loop, newest.future, context, _SHORT_QUEUE):
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
