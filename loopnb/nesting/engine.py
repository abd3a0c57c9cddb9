"""Nested runs by parked stacks and a driver that moves.

The wish. Synchronous code inside a running loop -- a cell, a task, a bare callback -- asks for the
result of a coroutine, and everything else in the loop goes on meanwhile.

What does not work. Running the loop *on top of* the waiting stack (nest_asyncio) ends waits only
last-in-first-out: a wait of 0.1 s under a wait of 1 s takes 1 s, and a wait that depends on an
earlier one hangs for ever. Its depth is bounded by the recursion limit, and whatever shares a
`Context` with a waiting stack cannot run at all.

The mechanism. Stacks live in greenlets. The one that turns the loop is the *driver*: it calls the
loop's own one-pass method, over and over. When code below it asks for a nested run, its stack is
*parked* where it stands, and another driver turns the loop on. When the awaited future is done, the driver of
that moment switches back to the parked stack, and is idle until another stack parks. No stack stands on
another one, so waits end in any order, and nothing but the switch costs anything.

    owner    run_forever()            waits in `_run_once` until stop; runs no handle itself
    driver A   pass: task 1 -> asyncio.run(x)   parked, resumed as soon as x is done
    driver B   pass: task 2 -> asyncio.run(y)   parked, while A's or C's passes go on
    driver C   pass, pass, pass ...             turns the loop now

Six rules keep this true to what the stock loop does:

*   A pass counts its handles first, then runs that many. If another driver ran some of them meanwhile, the
    resumed pass runs dry. Its IndexError means no more than that (`_cpython.turn`). The pass in which the
    engine is installed has no driver to swallow that error, so its queue is padded (`FirstPass`).
*   The owner of `run_forever` never runs handles. If it were parked itself, stop, shutdown and fatal
    exceptions would have to wait for a bystander.
*   Before the loop may block in select, every stack that can go on goes on (`_settle`).
*   A parked stack releases its task and its Contexts, so that others may enter them, and takes them
    back when it is resumed (`released.py`).
*   A new greenlet inherits the depth of the stack that starts it. Drivers are started by the
    *spawner*, which was itself started in the shallow frame of the owner.
*   A pass selects while handles of an earlier one are still parked or queued. A reader or writer among
    them is not queued once more for the same event (`once_for_each_event`).

One more rule keeps it whole. A signal handler or a finalizer may run between any two lines of this module,
and raise there. So we note a change before we make it, every undoing can be done twice, and no nested run
begins in here (`forbid_nesting`). `tests/nesting/test_engine_interrupted.py` tries every point.

What it cannot do. Below C++ code that keeps a stack of its own for each thread (pybind11), nested runs must
end last-in-first-out, and we cannot detect the frames of such code: see `order="lifo"`. We do detect Tk's
frames, and keep that order below them. A loop that cannot be turned one pass at a time (uvloop) is refused.
In some places no stack can be parked (`refusals.py`). A parked stack can be resumed by its own thread only.

The parts, in the order in which they follow: the engine of a loop (`Handoff`), one wait (`Wait`), all waits
of a loop (`ParkingLot`), and then the special cases: tasks that do not tell us of a cancel, eager tasks, the
first pass, readers, and what a user is waiting for. Everything runs in the loop's thread, unless a method
says otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections import OrderedDict
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from loopnb._cpython import live_tasks
from loopnb.frames import call_at_bottom, is_ours, outwards, without_any_frames_of, without_loops_frames
from loopnb.nesting import _cpython
from loopnb.nesting._cpython import (
    MAY_BE_EAGER,
    cancel_message,
    clear_cancel_flag,
    error_of,
    has_cancel_flag,
    is_in_first_step,
)
from loopnb.nesting.fatal import note_taken, was_taken
from loopnb.nesting.greenlets import Driver, GreenletExit, getcurrent, greenlet
from loopnb.nesting.loop_task import LoopTask, make_task
from loopnb.nesting.refusals import (
    forbid_nesting,
    is_called_by_tk,
    parked_elsewhere,
    passes_on_top,
    refusal,
    why_not_here,
)
from loopnb.nesting.released import ReleasedState, ReleasedStates
from loopnb.patching import PatchSet, TaskFactoryPatch, looking_like

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loopnb.patching import Patch

_log = logging.getLogger("loopnb")
_switch = greenlet.switch  # called as a function, since each `stack.switch` would make a bound method

#: How many idle drivers are kept after a burst of nested runs, for the next burst.
_IDLE_DRIVERS = 4
#: A driver begins with this: code that walks a stack to its end expects the frame of a module there.
_begin_driver = forbid_nesting("stacks are being switched")(call_at_bottom)
#: So many frames between the user's code and `why_not_here`, at least, are ours and need not be looked at.
_OUR_FRAMES = 4


class Handoff:
    """The engine of one loop. It runs in the loop's thread, `interrupt` included.

    Args:
        loop: A loop for which `why_not_drivable` knows no reason.

    Attributes:
        loop: The loop.
        lot: The waits, and what may end them.
        waits: The waits whose stacks are parked, oldest first.
        is_removed: No further stack is parked. The engine is removed when the last parked stack has resumed.
        turning: The driver whose pass or handle runs now.
        handed_to: The stack that the engine is switching to; None once that stack goes on. While a new driver
            makes passes, it is still the spawner.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._foreground: Foreground | None = None
        self.lot = ParkingLot(loop)
        self.waits = self.lot.waits
        self.is_removed = False
        self.turning: greenlet | None = None
        self.handed_to: greenlet | None = None
        self._is_pinned = False
        self._is_closing = False
        self._stock_pass = _cpython.stock_run_once.__get__(loop)
        self._patches = PatchSet(
            _cpython.patch_run_once(loop, self.run_once), TaskFactoryPatch(loop, make_task)
        )
        self._thread_id: int | None = None
        self._owner: greenlet | None = None
        self._owner_error: BaseException | None = None
        self._spawner: greenlet | None = None
        self._idle: list[greenlet] = []
        # Stands for the present spawner and drivers. When we throw them away, we put a new object here. So
        # those that still run see that they are no longer wanted.
        self._batch = object()
        self._first_pass = FirstPass(loop)
        self._released = ReleasedStates(self)
        self._parked_time = self._released.parked_time

    # -- coming and going ---------------------------------------------------------------------

    def install(self) -> None:
        """Take over the loop's passes. Works in the middle of one, too."""
        if _cpython.running_loop() is self.loop and self._owner is None:
            self._first_pass.begin()
            self._thread_id = threading.get_ident()
        self.is_removed = False
        self._patches.install()

    def pin(self) -> None:
        """Stay installed between runs of the loop, until `remove`. Any thread."""
        self._is_pinned = True

    def remove(self) -> None:
        """Give the loop back: at once, or when the last parked stack has been resumed.

        Any thread. If the loop runs in another one, this takes effect in the loop's next pass.

        Raises:
            RuntimeError: The other thread has closed the loop.
        """
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
        self._parked_time.restore()
        if self._owner is None:
            self._drop_drivers()

    def leave_closed_loop(self) -> None:
        """Give back a loop that was closed, so that it is freed without a garbage collection.

        The loop refers to the engine through its patches, and parts of the engine refer back to the loop. We
        cut these cycles. The engine cannot be used again.
        """
        self.is_removed = True
        self._uninstall()
        self._patches = PatchSet()
        del self._released

    def _drop_drivers(self) -> None:
        # A suspended greenlet keeps what its frames refer to, us included. Dropping our references cuts that
        # cycle. `throw()` would not do: its exception would land in the parent.
        self._batch = object()
        self.turning = self.handed_to = self._spawner = None
        self._idle.clear()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Let no stack be parked while the block runs: the loop is about to be closed."""
        self._is_closing = True
        try:
            yield
        finally:
            self._is_closing = False

    # -- the waiting side ---------------------------------------------------------------------

    def check_can_park(self) -> None:
        """Raise NestingError if no stack can be parked here, before anything is begun that would wait."""
        if self.is_removed or self._is_closing or why_not_here(_OUR_FRAMES):
            raise refusal(is_removed=self.is_removed, is_closing=self._is_closing)

    def wait(self, future: asyncio.Future[Any], owned: bool = True) -> Any:
        """Park the calling stack until *future* is done, let the loop go on meanwhile, and return the result.

        Call `check_can_park` first. Other tasks and callbacks run meanwhile; the caller's task does not.

        Args:
            future: A future of this loop.
            owned: *future* was made for this wait. So an interrupt may cancel it, and a wait that fails
                cancels it.

        Raises:
            CancelledError: The calling task was cancelled.
            KeyboardInterrupt: The wait was interrupted.
            RuntimeError: The loop was stopped, and nothing will turn it for this wait.
            NestingError: No stack can be parked any more, although that was checked.
            BaseException: *future* ended in it. Or it came out of a pass, and this wait was chosen to receive
                it.
        """
        try:
            # Check again, although `check_can_park` did: a task factory of the user's may have run since.
            if self.is_removed or self._is_closing:
                raise refusal(is_removed=self.is_removed, is_closing=self._is_closing)
            task = _cpython.current_task(self.loop)
            if task is None or self._foreground is None or not _is_awaited(self._foreground, task):
                wait = Wait(self.lot.ready, getcurrent(), future, task, owned)
                self._park(wait)
            else:
                foreground = self._foreground
                wait = Wait(self.lot.ready, getcurrent(), future, task, owned, is_foreground=True)
                # `stack_parked` may install a SIGINT handler that raises no KeyboardInterrupt while the stack
                # is parked. So it comes first, and its counterpart last: between the two, no interrupt can
                # break the order of what `_park` does.
                foreground.stack_parked()
                try:
                    self._park(wait)
                finally:
                    foreground.stack_resumed()
            if wait.ending is not None:
                wait.raise_ending()
        except BaseException:
            if owned and not future.done():
                future.cancel()
            elif owned and not future.cancelled():
                future.exception()  # marks it as retrieved: the caller gets what the wait raises instead
            raise
        return future.result()

    @forbid_nesting("stacks are being switched")
    def _park(self, wait: Wait) -> None:
        """Release task and Contexts, hand the loop to whoever goes on, and take everything back."""
        # The driver whose handle runs on this stack; None in the first pass. It is kept here, not in the
        # wait, since only this function needs it.
        driver, padding = self.turning, 0
        released = ReleasedState(self._released)
        try:  # begins this early because a signal handler may raise in any of these lines
            self.lot.begin(wait)
            if self._first_pass.is_under_way:
                padding = self._first_pass.missing_handles(wait.stack)
            released.release(wait.stack, wait.task)
            self._hand_to(self._next_stack())
        finally:
            try:
                self._reacquire(wait, released, driver, padding)
            except BaseException:
                self._reacquire(wait, released, driver, padding)  # a signal handler raised in there
                raise

    def _reacquire(self, wait: Wait, released: ReleasedState, driver: greenlet | None, padding: int) -> None:
        """Take back what the calling stack has released. If it is broken off, call it again."""
        released.reacquire()
        self.turning = driver  # not always our parent: the handle may have switched here
        self.lot.forget(wait)
        if padding:
            _cpython.pad_queue(self.loop, padding)
        if wait.task is None:
            # A signal handler may have nested in select. That select still has the timeout with which it
            # began, so make it return.
            _cpython.wake(self.loop)
        if self.is_removed and not self.waits:
            self._uninstall()

    def _next_stack(self) -> greenlet:
        """Choose the stack that goes on when one has parked, or when the owner wants the loop turned."""
        # First a stack whose wait is over, then an idle driver, then the spawner, which makes a new driver.
        if self.lot.ready and (wait := self.lot.next_ready()) is not None:
            return wait.stack
        if self._idle:
            return self._idle.pop()
        if not self._spawner:  # also if an exception has ended it
            self._spawner = greenlet(self._spawn)
        return self._spawner

    def _hand_to(self, stack: greenlet) -> None:
        """Switch to *stack*, and return when the calling stack is handed the loop again.

        Another greenlet may end *here*, because this stack is its parent: somebody else's greenlet that was
        started here and is used elsewhere, or a driver that a signal handler kept from beginning. We forward
        its value or error to the driver that turns the loop, as if the two were one stack.
        """
        self.handed_to = stack
        go_on: Callable[[], Any] | None = None
        while True:
            try:
                result = _switch(stack) if go_on is None else go_on()
            except GreenletExit:
                raise  # this stack itself was thrown away
            except BaseException as error:
                # It is meant for this stack itself, or there is nobody to forward it to.
                if not self.turning or getcurrent() in (self.handed_to, self.turning):
                    raise
                # Forwarding is a switch as well. What comes back from it may be the next thing to forward.
                go_on = partial(self.turning.throw, error)
            else:
                if self.handed_to is getcurrent() or not self.turning:
                    self.handed_to = None
                    return
                go_on = partial(self.turning.switch, result)

    # -- the driving side ---------------------------------------------------------------------

    @forbid_nesting("stacks are being switched")
    def run_once(self) -> None:
        """Stand in for the loop's own pass: have drivers make passes until stop or removal.

        Called by `run_forever`, in what becomes the owner's stack. Raises an error that came out of a pass,
        unless it was for one of the waits.
        """
        self.check_thread()
        if self._first_pass.is_under_way:
            # The drivers so far were started deep below a handle. New ones start from here.
            self._first_pass.end()
            self._drop_drivers()
        self._owner = getcurrent()
        try:
            wait = self.lot.next_after_pass()  # futures can become done while the loop is stopped
            self._hand_to(self._next_stack() if wait is None else wait.stack)
        finally:
            self._owner = None
        if not self.waits:
            self._drop_drivers()
            if self.is_removed or not self._is_pinned:
                self._uninstall()
        # A signal may have come while the drivers were thrown away. Call a function, so that the signal
        # raises in there. If it raised when `run_forever` begins to clean up, the loop would stay set as
        # running from 3.13 on.
        self._raise_owners()

    def _raise_owners(self) -> None:
        if self._owner_error is not None:
            error, self._owner_error = self._owner_error, None
            raise error

    def check_thread(self) -> None:
        """Make the calling thread the loop's.

        Raises:
            NestingError: Stacks are parked in another thread, and only that thread can resume them. Or the
                loop is being turned already.
        """
        if self._owner is not None:
            raise passes_on_top(len(self.waits))
        thread_id = threading.get_ident()
        if thread_id == self._thread_id:
            return
        if self.waits:
            raise parked_elsewhere(len(self.waits))
        self._thread_id = thread_id
        self._drop_drivers()

    # Up to 3.14, what a suspended greenlet's frames refer to is invisible to the garbage collector. So a
    # driver keeps no reference to itself in them, and none to the spawner, which refers to the last driver.
    # From 3.15 on, the collector sees those frames. A stack that stays parked while its loop is stopped is
    # not lost: it is in the step of a task, and the C function of that step holds the task, out of sight.
    #
    # A signal handler may raise at a jump backwards, which on 3.12 no `try` in the same function
    # covers. So the function that catches it leaves the looping to the function it calls, and loops only
    # after an error.

    def _spawn(self) -> None:
        """Start drivers at the depth of the stack that started this greenlet."""
        error: BaseException | None = None
        batch = self._batch
        while True:
            try:
                self._spawn_each(error)
            except GreenletExit:
                raise
            except BaseException as caught:  # noqa: BLE001  by a signal handler: the next driver delivers it
                if batch is not self._batch:
                    self._owner_error = caught
                    return
                error = caught

    def _spawn_each(self, error: BaseException | None) -> None:
        while True:
            # The parent is this greenlet's own, since a driver must not refer to this one. The switch returns
            # when the next driver is needed.
            Driver(_begin_driver, getcurrent().parent).switch(self._drive, error)
            error = None

    @forbid_nesting("stacks are being switched")
    def _drive(self, error: BaseException | None = None) -> None:
        """Turn the loop. Ends only by retiring into the stack that goes on in its place, or when thrown away.

        Args:
            error: What a signal handler raised before the driver could begin. It is delivered first.
        """
        is_due = error is None  # the first pass; before each later pass, stacks that can go on do so
        batch = self._batch
        # In a list that is emptied: this frame may be idle for long, and would keep an error's frames alive.
        errors = [] if error is None else [error]
        error = None
        while True:
            try:
                self._drive_on(errors, is_due)
                return
            except GreenletExit:
                raise  # this stack was thrown away: it turns nothing any more
            except BaseException as caught:  # noqa: BLE001  it is handed on, not swallowed
                if batch is not self._batch:  # raised while this driver was thrown away
                    self._owner_error = caught
                    return
                errors.append(caught)
                is_due = False
                if getcurrent() in self._idle:
                    self._idle.remove(getcurrent())

    def _drive_on(self, errors: list[BaseException], is_due: bool) -> None:
        """Make passes. Before each, resume every stack that can go on. Returns when the driver must retire.

        Args:
            errors: What came out of the pass before, or what a signal handler raised in here. Emptied.
            is_due: Begin with a pass.
        """
        while errors:
            self._deliver_fatal(errors.pop())
        while True:
            if not is_due and not self._settle():
                return
            is_due = False
            self.turning = getcurrent()
            _cpython.turn(self.loop, self._stock_pass, self)

    def _settle(self) -> bool:
        """Resume every stack that can go on. Let the owner go on if the loop is to stop, or to be given back.

        Returns False if the driver is to end, so that its parent goes on.
        """
        wait = self.lot.next_after_pass()
        if wait is None:
            # No stack can go on. So the driver makes another pass, unless the owner is to have the loop back.
            must_leave = _cpython.is_stopping(self.loop) or (self.is_removed and not self.waits)
            if self._owner_error is None and not must_leave:
                return True
            if self._end_taskless_waits():
                return self._settle()  # now some stacks can go on
        elif len(self._idle) >= _IDLE_DRIVERS and wait.retire_driver(getcurrent()):
            # Enough drivers are idle. A greenlet ends into its parent, so `retire_driver` has made the stack
            # that goes on the parent.
            self.handed_to = wait.stack
            return False
        stack = self._owner if wait is None else wait.stack
        wait = None  # this frame may be idle for long, and would keep the wait and its task
        if stack is not None:  # None in the first pass, whose owner goes on by itself
            # Idle before the switch: the stack that goes on may park at once, and then needs a driver.
            self._idle.append(getcurrent())
            self._hand_to(stack)
        return True

    def _end_taskless_waits(self) -> bool:
        """At a stop, end the waits that no later run of the loop could resume.

        Returns False if there are none.
        """
        return _cpython.is_stopping(self.loop) and self.lot.end_all(
            Wait.stop, lambda wait: wait.task is None or self._first_pass.holds(wait.stack)
        )

    def _deliver_fatal(self, error: BaseException) -> None:
        """Hand an error that came out of a pass to the stack it is for.

        That is the stack that waits for the task which raised it, else the newest cell that waits in a nested
        run, else the newest that awaits, else the loop's owner. It may be an error of any class: a signal
        handler may have raised it in select.
        """
        # Without this, the error, raised again elsewhere, would show the user how the engine got it there.
        # Besides, the frame of the pass holds the handle and the task that ended in the error: whoever keeps
        # the error would keep both.
        tb = without_loops_frames(error.__traceback__)
        error.__traceback__ = without_any_frames_of(tb, is_ours)
        if self.lot.take_fatal(error, self._foreground):
            return
        if self._owner is not None:
            self._owner_error = error
        elif not self.lot.end_with(error, lambda wait: self._first_pass.holds(wait.stack)):
            _log.error(
                "an error came out of the event loop, and nothing waits that could receive it", exc_info=error
            )

    def interrupt(self) -> bool:
        """Interrupt the newest wait of a cell, see `Wait.interrupt`. Call it in a handle.

        Returns:
            False if no cell waits.
        """
        if self._foreground is None or (wait := self.lot.newest_foreground()) is None:
            return False
        wait.interrupt(self._foreground)
        return True

    def set_foreground(self, foreground: Foreground) -> None:
        """Ask *foreground*, from now on, which stacks a user is waiting for.

        Not an argument of the constructor: an engine may be there before the session that knows the user, for
        `loopnb.nesting.apply()`. A new engine in its place could not resume the stacks parked by the old one.
        """
        self._foreground = foreground

    def note_set_aside(self) -> None:
        """Note that another loop is about to run in this thread, on top of this one. May raise."""
        if self._foreground is not None:
            self._foreground.loop_set_aside()


# -- one wait ------------------------------------------------------------------------------------


class _Outcome:
    """What a wait ends in instead of the result of its future."""

    __slots__ = ("error", "is_cancelled", "is_finished", "is_interrupted", "message")

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.is_cancelled = self.is_interrupted = self.is_finished = False
        self.message: Any = None


class Wait:
    """A parked stack, the future for which it is parked, and whatever may end the wait. The loop's thread.

    Args:
        ready: The engine's queue: its keys are the waits whose stacks can go on.
        stack: The stack.
        future: What is waited for.
        task: The task whose step is parked; None if the stack is no task's.
        owned: *future* was made for this wait, so an interrupt may cancel it.
        is_foreground: A user is waiting for it.

    Attributes:
        stack: The stack; None as soon as it goes on.
        is_foreground: A user is waiting for it.
        has_ended: The stack goes on, so nothing is to wake it any more.
        ending: What the wait ends in, if not in the outcome of the future.
    """

    __slots__ = (
        "__weakref__", "_callback", "_ready", "_retired", "ending", "future", "has_ended", "is_foreground",
        "is_owned", "stack", "task",
    )  # fmt: skip

    _callback: Callable[[object], object] | None
    _retired: greenlet | None

    def __init__(
        self,
        ready: OrderedDict[Wait, Any],
        stack: greenlet,
        future: asyncio.Future[Any],
        task: asyncio.Task[Any] | None,
        owned: bool,
        is_foreground: bool = False,
    ) -> None:
        self._ready = ready
        self.stack: greenlet | None = stack
        self.future = future
        self.task = task
        self.is_owned = owned
        self.is_foreground = is_foreground
        self.has_ended = False
        self.ending: _Outcome | None = None
        self._callback = self._retired = None

    def set_ready(self) -> None:
        """Have the stack resumed before the loop next blocks. Does nothing once it goes on."""
        if not self.has_ended:
            self._ready.setdefault(self)

    def retire_driver(self, driver: greenlet) -> bool:
        """Make the parked stack the parent of *driver*, so that it goes on when *driver* ends.

        Returns:
            False if that is impossible. Either the stack stands on *driver*. Or it is somebody else's
            greenlet: then other greenlets made on *driver* would switch to it once *driver* has ended.
        """
        if not isinstance(self.stack, Driver):
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

    def fail(self, error: BaseException, foreground: Foreground) -> None:
        """Make the wait end in *error*, which came out of a pass, when what is waited for has cleaned up.

        A script does the same: `asyncio.run` cancels its main task and waits for it. A second such error ends
        the wait at once. So does the first, if the future was not made for this wait.
        """
        is_cleaning_up = self.ending is not None and self.ending.error is not None
        if is_cleaning_up or not self.is_owned or self.future.done():
            self.end(error)
        else:
            self._end_otherwise().error = error
            foreground.cancel(self.future)

    def _end_otherwise(self) -> _Outcome:
        if self.ending is None:
            self.ending = _Outcome()
        return self.ending

    def stop(self) -> None:
        """Resume the stack because the loop has stopped: with the future's outcome, if it has one already."""
        if self.future.done():
            self.set_ready()
        else:
            self.end(RuntimeError("Event loop stopped before Future completed."))

    def cancel(self, message: Any) -> None:
        """Deliver a cancel request of the parked task: cancel what it waits for."""
        if not self.future.cancel(message):
            # The future is done, so the wait is about to end. The request wins over the result, as with
            # `await`.
            ending = self._end_otherwise()
            ending.is_cancelled, ending.message = True, message

    def interrupt(self, foreground: Foreground) -> None:
        """Make the wait end in KeyboardInterrupt.

        The first interrupt cancels the awaited future. The second finishes the task that has swallowed the
        cancellation. If that is impossible, or at the third interrupt, only the wait ends. The same goes for
        the first if the future was not made for this wait.
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
        """Add a callback to the future that makes this wait ready, one pass after the future is done."""
        if self._callback is None:
            # A C function: if a signal handler raised in a Python function here, the stack would never be
            # woken.
            callback = partial(self._ready.setdefault, self)
            self.future.add_done_callback(callback, context=context)
            self._callback = callback

    def close(self) -> None:
        """Withdraw every wake-up, and forget the stack: it is running again."""
        self.has_ended = True
        if self._callback is not None:
            self.future.remove_done_callback(self._callback)
            self._callback = None
        stack = self.stack
        if self._retired is not None and stack is not None and stack.parent is not None:
            # The driver that ended into this stack must forget the stack as well. Otherwise each driver that
            # retires would keep the next one alive, and the spawner keeps the last.
            self._retired.parent = stack.parent
            self._retired = None
        self.stack = None

    def raise_ending(self) -> None:
        """Raise what this wait is to end in. Returns if that is the future's outcome after all."""
        ending, self.ending = self.ending, None
        if ending is None:
            return
        if ending.error is not None:
            raise ending.error
        if ending.is_interrupted and self.future.cancelled():
            raise KeyboardInterrupt
        if ending.is_cancelled:
            if not self.future.cancelled():
                self.future.exception()  # marks it as retrieved, as an `await` that is cancelled does
            message = ending.message
            raise asyncio.CancelledError(*(() if message is None else (message,)))


# -- all waits of a loop -------------------------------------------------------------------------


#: How far into the ready queue a nested run looks for the user's callbacks before it takes the long way.
_SHORT_QUEUE = 8
#: Returns False. It is called after each pass, and `bool` is faster than any Python function.
_never: Callable[[], bool] = bool


class ParkingLot:
    """The waits of one loop: who is parked, who can go on, and who must end early. The loop's thread.

    A stack becomes ready in one of three ways. The newest wait has no callback on its future; after each pass
    the driver asks that future whether it is done (`is_newest_done`). Every older wait has a callback that
    puts it into `ready`. And whatever ends a wait early puts it there, too.

    A done-callback for each wait would be simpler, but it costs a nested run a whole pass of the loop.

    Args:
        loop: The loop.

    Attributes:
        waits: All of them, oldest first.
        ready: Its keys are the waits whose stacks can go on, first come, first served. A wait in it may have
            ended already, if its callback came late.
        newest: The newest wait, while it has no callback on its future.
        is_newest_done: The `done` of the future of `newest`.
        unaware: The waits whose tasks cannot tell us of a cancel.
        wake_context: The Context of all wake-ups. One serves all, since they neither park nor run user code.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.waits: dict[Wait, None] = {}
        self.ready: OrderedDict[Wait, Any] = OrderedDict()
        self.newest: Wait | None = None
        self.is_newest_done: Callable[[], bool] = _never
        self.unaware = UnawareTasks()
        self.wake_context = Context()
        self._is_lifo = False
        self._below_tk: dict[Wait, None] = {}
        self._loop = loop
        self._queue = _cpython.ready_queue(loop)
        # The handles that parked stacks are part of: one for each wait that `runs` has seen, and the set of
        # them.
        self._handle_of: dict[Wait, asyncio.Handle | None] = {}
        self._parked_handles: set[asyncio.Handle | None] | None = None

    def set_order(self, *, lifo: bool) -> None:
        """With *lifo*, let only the newest wait go on, even if the futures of older waits are done.

        Waits below Tk are always held to that among themselves. The calls into Tcl share a C stack of their
        own, and returning to them in any other order would crash the process.
        """
        self._is_lifo = lifo

    def begin(self, wait: Wait) -> None:
        """Enter *wait*, which the running task or handle is about to begin."""
        self.waits[wait] = None
        if "tkinter" in sys.modules and is_called_by_tk():
            self._below_tk[wait] = None
        if self.newest is not None:
            # The driver asks only the future of the newest wait. The previous one is not the newest any
            # more, so its future has to tell us.
            self.newest.arm(self.wake_context)
            self.newest, self.is_newest_done = None, _never
        task = wait.task
        if isinstance(task, LoopTask):
            task.parked = wait
        elif task is not None:
            self.unaware.enrol(wait, task)
        if task is not None and has_cancel_flag(task):
            _deliver_noted(wait, task)  # at once, as with `await`
        if MAY_BE_EAGER and task is not None and (creators := creators_of(task)):
            self.unaware.enrol_creators(wait, creators)
        is_done = wait.future.done
        if is_done():
            wait.arm(self.wake_context)  # the next pass would block: nothing is scheduled for it
        else:
            self.newest = wait
            self.is_newest_done = is_done

    def forget(self, wait: Wait) -> None:
        """Withdraw all that could wake *wait*.

        A wake-up left behind would end the next, unrelated wait early.
        """
        # Each line can be done again: a signal handler may break this off anywhere.
        wait.close()
        self.waits.pop(wait, None)
        if self._handle_of:
            self._handle_of.pop(wait, None)
            self._parked_handles = None
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

    # -- who goes on --------------------------------------------------------------------------

    def next_after_pass(self) -> Wait | None:
        """Return the wait whose stack goes on next.

        Also asks the newest future, which has no callback of ours.
        """
        if self.unaware.seen and not self.ready:
            # Not while stacks are ready: once for each stack that goes on after one pass would be quadratic.
            self.unaware.poll()
        newest, is_done = self.newest, self.is_newest_done
        if newest is not None and is_done():
            # Callbacks that the user added must have run by the time the wait returns, as they have in the
            # stock loop. If the ready queue holds one, or is too long to look, a callback of ours runs after
            # them. And if an older wait is ready, this one queues up behind it.
            context = self.wake_context
            if self._queue and _cpython.may_carry(self._loop, newest.future, context, _SHORT_QUEUE):
                newest.arm(context)
            elif self.ready:
                newest.set_ready()
            else:
                return newest  # and it stays `newest` until its stack goes on: see `forget`
            self.newest, self.is_newest_done = None, _never
        return self.next_ready() if self.ready else None

    def next_ready(self) -> Wait | None:
        """Return the wait whose stack goes on next.

        It stays in the queue until its stack goes on: see `forget`.
        """
        if self._is_lifo or self._below_tk or self.unaware.seen:
            return self._next_in_order()
        while (wait := next(iter(self.ready), None)) is not None and wait.has_ended:
            del self.ready[wait]
        return wait

    def _next_in_order(self) -> Wait | None:
        """Do what `next_ready` does if order matters, or if a wait may have been cancelled."""
        ordered = self._ordered()
        newest = next(reversed(ordered), None)
        free = (wait for wait in tuple(self.ready) if wait is newest or wait not in ordered)
        wait = next((wait for wait in free if not wait.has_ended), None)
        if wait is not None:
            self.unaware.look_at(wait)
        return wait

    def _ordered(self) -> dict[Wait, None]:
        """Return the waits that have to go on in order, the newest first. The dictionary has it last."""
        return self.waits if self._is_lifo else self._below_tk

    def runs(self, handle: asyncio.Handle) -> bool:
        """Return True if a parked stack is part of *handle*."""
        for wait in reversed(self.waits):
            if wait in self._handle_of:
                break  # and so are all older waits
            self._handle_of[wait] = _cpython.handle_on(wait.stack)
            self._parked_handles = None
        if self._parked_handles is None:
            self._parked_handles = set(self._handle_of.values())
        return handle in self._parked_handles

    # -- who must end early -------------------------------------------------------------------

    def newest_foreground(self) -> Wait | None:
        """Return the newest wait of a cell, or None."""
        return next((wait for wait in reversed(self.waits) if wait.is_foreground), None)

    def take_fatal(self, error: BaseException, foreground: Foreground | None) -> bool:
        """Have a waiting cell end in *error*, unless a cell or a wait has it already.

        That is the cell of the newest nested run; if there is none, the newest that awaits. The same error
        may come out of several passes, since each task that awaits the failed one raises it again. By then
        the cell that it ended is over.

        Returns:
            False if the error has to go to the loop's owner.
        """
        done = (wait.future for wait in self.waits if wait.future.done())
        if was_taken(error) or any(error_of(future) is error for future in done):
            is_taken = True
        elif foreground is not None and (cell := self.newest_foreground()) is not None:
            cell.fail(error, foreground)
            is_taken = True
        else:
            is_taken = foreground is not None and foreground.take_fatal(error)
        if is_taken:
            note_taken(error)
        return is_taken

    def end_with(self, error: BaseException, must_end: Callable[[Wait], bool]) -> bool:
        """End the waits for which *must_end* is true with *error*. Those about to go on do that instead.

        But if all of them were about to go on, each ends with *error* after all.

        Returns:
            False if there was none.
        """
        ending = [wait for wait in self.waits if must_end(wait)]
        if not self.end_all(lambda wait: wait.end(error), lambda wait: wait in ending):
            for wait in ending:
                wait.end(error)
        return bool(ending)

    def cancel_all(self) -> None:
        """End each wait that is not about to go on in CancelledError, whatever becomes of its future."""
        self.end_all(lambda wait: wait.end(asyncio.CancelledError()), lambda _wait: True)

    def end_all(self, end: Callable[[Wait], object], must_end: Callable[[Wait], bool]) -> bool:
        """Call *end* on each wait that *must_end* and is not about to go on, the newest first.

        Where waits end in order, the newer ones have to end, too.

        Returns:
            False if there was none, or if all of them were about to end already.
        """
        ordered, is_held_up = self._ordered(), False
        ending: list[Wait] = []
        for wait in self.waits:
            # An ordered wait can go on only after all newer ordered waits.
            is_ordered = wait in ordered
            if must_end(wait) or (is_held_up and is_ordered):
                is_held_up = is_held_up or is_ordered
                ending.append(wait)
        ending = [wait for wait in reversed(ending) if wait not in self.ready]
        for wait in ending:
            end(wait)
        return bool(ending)


# -- tasks that do not tell of a cancel ----------------------------------------------------------


class UnawareTasks:
    """The waits of tasks that were born before nesting, or under somebody else's task factory.

    `LoopTask.cancel` knows that its task is parked. The `cancel` of another class only leaves a note in the
    task. So after each pass we look at the notes of these few tasks.

    Attributes:
        seen: For each of those waits, its tasks and how many cancel requests each had when last looked at.
    """

    def __init__(self) -> None:
        self.seen: dict[Wait, dict[asyncio.Task[Any], int]] = {}

    def enrol(self, wait: Wait, task: asyncio.Task[Any]) -> None:
        """Watch *task*, whose stack is parked in *wait*."""
        self.seen.setdefault(wait, {})[task] = task.cancelling()

    def enrol_creators(self, wait: Wait, creators: list[asyncio.Task[Any]]) -> None:
        """Watch *creators*, in whose steps an eager task is parked: cancelling a creator ends *wait*, too.

        A creator need not await that task. So it keeps the request, and gets it at its next await.
        """
        for creator in creators:
            self.enrol(wait, creator)
            if has_cancel_flag(creator):
                wait.cancel(cancel_message(creator))

    def forget(self, wait: Wait) -> None:
        """Stop watching *wait*."""
        self.seen.pop(wait, None)

    def poll(self) -> None:
        """Deliver the cancel requests that have been noted since the last call."""
        for wait in list(self.seen):
            self.look_at(wait)

    def look_at(self, wait: Wait) -> None:
        """Deliver the cancel requests that have been noted for *wait*, if it is watched."""
        tasks = self.seen.get(wait, {})
        for task, seen in tuple(tasks.items()):
            now = task.cancelling()
            # If this interpreter cannot clear a note, the note stays. Then only the count tells of a new
            # request.
            if now != seen:
                tasks[task] = now
            if task is not wait.task:
                if now > seen:
                    wait.cancel(cancel_message(task))  # the note stays, for the creator's next await
            elif has_cancel_flag(task) and (now > seen or clear_cancel_flag(task)):
                _deliver_noted(wait, task)


def _deliver_noted(wait: Wait, task: asyncio.Task[Any]) -> None:
    """Have *wait* end in the cancel request that its *task* has noted in the middle of its step."""
    message = cancel_message(task)
    clear_cancel_flag(task)
    wait.cancel(message)


# -- eager tasks ---------------------------------------------------------------------------------


def creators_of(task: asyncio.Task[Any]) -> list[asyncio.Task[Any]]:
    """Return the tasks in whose steps the running *task* takes its own first step.

    An eager task (3.12 and later) takes its first step on the stack of its creator. So parking it parks its
    creators, too. Most tasks are not in such a step, and have no creators here.
    """
    if not is_in_first_step(task):
        return []
    frames = set(outwards(getattr(task.get_coro(), "cr_frame", None)))
    return [
        other
        for other in live_tasks(task.get_loop())
        if other is not task and getattr(other.get_coro(), "cr_frame", None) in frames
    ]


# -- the pass in which the engine is installed ---------------------------------------------------


class FirstPass:
    """Keeps the pass that was under way at installation from popping an empty queue.

    That pass has counted its handles and will pop as many, and no code of ours would catch the IndexError.
    While a stack of that pass is parked, drivers take handles from the same queue. So when the stack goes on,
    we pad the queue with handles that do nothing. Padding it for every stack would be simpler, but would make
    nested runs quadratic.

    Args:
        loop: The loop.

    Attributes:
        is_under_way: That pass has not ended.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.is_under_way = False
        self._loop = loop
        self._length = 0

    def begin(self) -> None:
        """Begin to protect the pass that runs now."""
        before = self._length if self.is_under_way else 0
        # The pass pops no more handles than are in the queue now. If we counted anew for each stack, the
        # number would grow by the handles of the nested runs themselves.
        self._length = max(before, len(_cpython.ready_queue(self._loop)))
        self.is_under_way = True

    def end(self) -> None:
        """Note that the pass has ended."""
        self.is_under_way = False

    def holds(self, stack: greenlet | None) -> bool:
        """Return True if *stack* belongs to that pass: neither it nor any of its parents is a driver."""
        if stack is None or not self.is_under_way:
            return False
        while stack is not None and not isinstance(stack, Driver):
            stack = stack.parent
        return stack is None

    def missing_handles(self, stack: greenlet | None) -> int:
        """Return how many handles the pass below *stack* may still pop without asking."""
        return self._length if self.holds(stack) else 0


# -- readers and writers -------------------------------------------------------------------------

#: Callbacks of these packages read from the socket before they call user code, and cope with an empty socket.
#: So the loop may call them again while one of their calls is parked.
_READ_FIRST = ("asyncio.", "tornado.", "zmq.")


def _add_callback(self: Any, handle: asyncio.Handle) -> None:
    engine = _cpython.owner_of_pass(self)
    # Handles of signals come here as well, and each of them has to run.
    if not isinstance(engine, Handoff) or not engine.waits or not _cpython.is_called_for_an_event():
        _cpython.stock_add_callback(self, handle)
        return
    owner: Any = getattr(_cpython.callback_of(handle), "__self__", None)
    reads_first = type(owner).__module__.startswith(_READ_FIRST)
    if reads_first or not (engine.lot.runs(handle) or handle in _cpython.ready_queue(self)):
        _cpython.stock_add_callback(self, handle)


def once_for_each_event() -> Patch:
    """Return a patch that queues a reader or writer once for each event, and never while it runs.

    The stock loop selects when all handles of a pass have returned. If a handle is parked, the next pass
    selects while others of the same pass are still queued, or before the parked handle has read. The event is
    still there, and would be handled once more (`BaseEventLoop._add_callback`). Transports are left alone: a
    protocol that nests may wait for the data that comes next.
    """
    return _cpython.patch_add_callback(looking_like(_cpython.stock_add_callback, _add_callback))


# -- what a user is waiting for ------------------------------------------------------------------


class Foreground(Protocol):
    """Knows the stacks that a user is waiting for. The engine calls it in the loop's thread."""

    def is_awaited(self, task: asyncio.Task[Any]) -> bool:
        """Return True if a user is waiting for *task*: a cell executes in it."""

    def stack_parked(self) -> None:
        """Note that the stack of such a task is about to be parked. May raise."""

    def stack_resumed(self) -> None:
        """Note that the stack of such a task goes on. May raise."""

    def cancel(self, future: asyncio.Future[Any]) -> None:
        """Cancel what such a stack waits for. Called for the first interrupt."""

    def finish(self, future: asyncio.Future[Any]) -> bool:
        """End the task that has swallowed the first interrupt. Called for the second one.

        Return False if it cannot be ended.
        """

    def take_fatal(self, error: BaseException) -> bool:
        """Take a fatal error that came out of a pass, for a cell that awaits.

        Return False if no cell awaits that could get it.
        """

    def loop_set_aside(self) -> None:
        """Note that the loop cannot do what was asked of it, since another loop runs on top. May raise."""


def _is_awaited(foreground: Foreground, task: asyncio.Task[Any]) -> bool:
    """Return True if a user is waiting for *task*, or for a task that has spawned it eagerly just now."""
    return foreground.is_awaited(task) or (
        MAY_BE_EAGER and any(map(foreground.is_awaited, creators_of(task)))
    )
