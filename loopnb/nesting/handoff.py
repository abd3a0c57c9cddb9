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

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from loopnb.errors import NestingError
from loopnb.internals import asyncio_state as state
from loopnb.internals.frames import is_ours, without_any_frames_of
from loopnb.internals.greenlets import GreenletExit, getcurrent, greenlet
from loopnb.internals.patching import Patch, PatchSet, TaskFactoryPatch
from loopnb.internals.places import clear_of_nesting, why_not_here
from loopnb.internals.tasks import make_task
from loopnb.nesting.absence import Absences
from loopnb.nesting.first_pass import FirstPass
from loopnb.nesting.lot import ParkingLot
from loopnb.nesting.refusals import passes_on_top, refusal
from loopnb.nesting.waits import Wait

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from loopnb.nesting.foreground import Foreground

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
        foreground: Knows the stacks that a user is waiting for; None while nobody tells.
        is_closing: Let no stack be parked: the loop is about to be closed.
        turning, handed_to: The driver whose pass or handle runs now; who is about to have the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.is_pinned = False
        self.foreground: Foreground | None = None
        self.lot = ParkingLot(loop)
        self.waits = self.lot.waits
        self.is_removed = False
        self.is_closing = False
        self._stock_pass = state.stock_run_once.__get__(loop)
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
        if state.running_loop() is self.loop and self._owner is None:
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
        wait = Wait(self.lot.ready, future, state.current_task(self.loop), owned)
        foreground = self.foreground
        if wait.task is None or foreground is None or not foreground.awaits(wait.task):
            self._park(wait)
        else:
            wait.is_foreground = True
            # First and last: in between no interrupt is raised in here, where it would break the order.
            foreground.changed(+1)
            try:
                self._park(wait)
            finally:
                foreground.changed(-1)
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
            state.wake(self.loop)
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
            state.turn(self.loop, self._stock_pass, self)

    def _settle(self) -> bool:
        """Let all go on who can; False if the driver is to return to its parent, which is one of them."""
        wait = self.lot.next_after_pass()
        if wait is None:
            must_leave = state.is_stopping(self.loop) or (self.is_removed and not self.waits)
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
        return state.is_stopping(self.loop) and self.lot.end_all(
            Wait.stop, lambda wait: wait.task is None or self._first_pass.holds(wait.stack)
        )

    def _deliver_fatal(self, error: BaseException) -> None:
        """Hand what came out of a pass to whoever it is for.

        That is the stack that waits for the task which raised it, else the newest waiting cell,
        else the loop's owner. It may be any error: a signal handler has raised it in select.
        """
        error.__traceback__ = without_any_frames_of(error.__traceback__, is_ours)
        if self.lot.take_fatal(error, self.foreground):
            return
        if self._owner is not None:
            self._owner_error = error
        elif not self.lot.end_with(error, lambda wait: self._first_pass.holds(wait.stack)):
            _log.error("an error of the event loop had nobody to go to", exc_info=error)

    def interrupt(self) -> bool:
        """Interrupt the newest wait of a cell, see `ParkingLot.interrupt`. Call it in a handle."""
        return self.foreground is not None and self.lot.interrupt(self.foreground)
