"""Notice from a thread that the loop is blocked, how late it is, and who keeps it busy.

The wish. Say who blocks the loop, while it is blocked and afterwards, and how late the loop runs what it is
asked to run. This has to work on every loop, and to cost nothing in a pass or a step.

What does not work. A stamp in each step or pass costs a step 3 to 10 %. Looking at the stack all the time
costs 2 to 10 % on a busy machine. A heartbeat on the loop itself tells afterwards that there was a block, but
not whose.

The solution. Four times a second a thread posts a *marker* by `call_soon_threadsafe`, and the loop answers
it. How late it does so is the *lag*. While a marker is late the thread looks at the stack of the loop's
thread every 20 ms (`looking.py`). Looks that find the same step are put together, and a step that lasts
longer than `LoopNB.blocked_after` is a block (`judging.py`). Before each marker the thread looks once, at
a moment that varies, to know where the time goes. It sleeps while nothing of the user's can run.

Four things are less simple than they seem:

*   When a block began. The marker is posted up to a quarter of a second later. But the pass that runs has
    noted when it began, in a local variable of the loop's own method. If that is newer than the last answer,
    it is the beginning of the block. If the pass has itself answered, and then runs what blocks, the answer
    is the beginning. A stack that was parked resumes in an old pass: there the block counts from the marker.
*   C code that holds the GIL stops this thread, too. It wakes up late, and knows that from its own clock. It
    then finds the stack of the call that has just returned, since Python hands the GIL over at the end of a
    call.
*   A thread that waits for the GIL asks for it only after a whole switch interval (5 ms) in which nobody has
    released it. If the loop is busy with short steps, each of its selects releases the GIL and takes it back
    before this thread has woken up, which then begins to wait anew. So this thread starves, for seconds, and
    longer where timers are coarse. If it gets the GIL by luck, that is at the beginning of a pass, so its
    looks find the wrong steps. Therefore a timer on the loop notices when this thread is overdue. From then
    on, busy passes mostly do not call select (`passes.py`). This thread then gets the GIL after 5 ms, in the
    middle of a step.
*   A short switch interval does not do instead. With 50 us, this thread gets the GIL sooner. But the loop's
    thread then asks for it back after 50 us, too, in the middle of a look (in 9 of 10 looks, when measured).
    On a loop that hides its select, such as uvloop's, there is nothing better.

What it cannot do. See a block while C code holds the GIL. Count passes, unless `%loopnb watch` is on. Tell
apart the steps of one task on a loop that is not built on asyncio's own, such as uvloop's. Look at random
moments while the steps themselves release the GIL all the time.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import random
import sys
import threading
import time
from contextvars import Context
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from loopnb.watch import _cpython
from loopnb.watch.judging import GIL_HELD_S, Step

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from loopnb.watch.looking import Look, Lookout
    from loopnb.watch.passes import Passes

_log = logging.getLogger("loopnb")

#: Seconds between two markers.
INTERVAL_S = 0.25
#: Seconds after which a marker is late, and between two looks while it is.
LATE_S = 0.02
#: Bounds of the seconds between two looks while somebody wants to know who is busy. Chosen at random.
_WATCH_S = (0.01, 0.03)
#: The interval between two markers varies by this share, so that looks do not keep step with the user's code.
_VARIES_BY = 0.1
#: The loop's timer allows this thread so many seconds to get the GIL, before it calls it overdue.
_OVERDUE_S = 0.01
#: The switch interval while this thread waits, in seconds, on a loop whose passes we cannot change.
_SHORT_S = 5e-5
#: There, this thread waits once more for so many seconds, to learn how long the GIL takes to come.
_ONCE_MORE_S = 0.001
#: While a marker is late, what waits for the loop is read at the first look, and again after so many looks.
_KEPT_EVERY = 25


class Host(Protocol):
    """Answers the watchdog, and is told what it finds. If a method raises, the watchdog notes it and ends."""

    def is_busy(self) -> bool:
        """Return True if code of the user's executes, or may do so at any time. The loop's thread."""

    def has_messages(self) -> bool:
        """Return True if messages of the front end wait. The loop's thread."""

    def step_ended(self, step: Step, messages: bool) -> None:
        """Note the end of *step*, which was seen while a marker was late. The watchdog's thread."""

    def still_late(self, step: Step, now: float) -> None:
        """Note that a marker is late, and the step that is seen. The watchdog's thread."""

    def stands_still(self, since: float, now: float) -> None:
        """Note that a marker is late, and that no step runs. The watchdog's thread."""

    def turns_again(self) -> None:
        """Note that this is over. The watchdog's thread."""

    def unseen(self, began: float, until: float) -> None:
        """Note that the loop did not turn in that time, and no look shows why. The watchdog's thread."""

    def answered(self, late_s: float, now: float) -> None:
        """Note how late a marker was. The watchdog's thread."""

    def looked(self, look: Look, seconds: float, now: float) -> None:
        """Note a look, and for how many seconds it stands. The watchdog's thread."""


class Watchdog:
    """The thread that posts markers and looks.

    Args:
        loop: The loop.
        lookout: Looks at the thread of the loop.
        thread_id: The identifier of that thread.
        host: Answers questions, and is told what was found.
        passes: The passes of the loop, which may keep the GIL from this thread.
        clock: Seconds, monotonic; the loop's own clock, if the loop is asyncio's.

    Attributes:
        step: The step that runs while a marker is late, as far as it was seen; None at other times.
        fault: Why the thread has ended by itself, or None.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lookout: Lookout,
        thread_id: int,
        host: Host,
        passes: Passes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._is_watching = False
        self.step: Step | None = None
        self.fault: str | None = None
        self._loop = loop
        self._lookout = lookout
        self._host = host
        self._passes = passes
        self._clock = clock
        self._thread_id = thread_id
        self._cpu = _cpython.cpu_clock(thread_id)
        self._context = Context()  # an empty one: a copy of a cell's would keep its request alive
        # Not an Event: a signal handler of the user's may raise in its `set`, which is written in Python, and
        # leave its lock locked. Each item of this queue is the time when the thread was asked to wake up.
        self._commands: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="loopnb watchdog", daemon=True)
        # Debuggers leave such threads alone; ipykernel marks its own in the same way.
        vars(self._thread).update(pydev_do_not_trace=True, is_pydev_daemon_thread=True)
        self._is_ended = False
        self._is_needed = False
        self._timer: asyncio.TimerHandle | None = None
        self._answer_at: float | None = None
        # A step counts from when the loop was last seen to turn at the earliest, and from no older pass.
        self._turned_at = self._oldest_pass = clock()
        self._has_messages = False
        self._looked_at = self._posted_at = 0.0
        self._was_woken = False
        self._overslept_s = 0.0
        self._cpu_before: float | None = None

    def start(self) -> None:
        """Start the thread, which posts a marker at once."""
        _active.add(self)
        self._thread.start()
        self.wake()

    def set_watching(self, is_watching: bool) -> None:
        """From now on, look all the time, or only once between markers and while one is late. Any thread."""
        self._is_watching = is_watching

    def stop(self) -> None:
        """End the thread, and wait for its end: a millisecond or so, a second at most. The loop's thread."""
        _active.discard(self)
        self._is_ended = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self._commands.put(self._clock())
        self._thread.join(_JOIN_S)

    def forget_after_fork(self) -> None:
        """Do nothing more in a forked child process, where the thread does not exist."""
        self._is_ended = True
        self._passes.expect(math.inf)
        _restore_interval()

    def wake(self) -> None:
        """Post a marker now: code of the user's is about to run. Any thread; costs a microsecond."""
        if not self._is_ended:
            self._is_needed = True
            if self._commands.empty():
                now = self._clock()
                self._passes.expect(now)
                if threading.get_ident() == self._thread_id:
                    self._check_in(_OVERDUE_S)
                self._commands.put(now)

    # -- the loop's thread ------------------------------------------------------------------------

    def _answer(self) -> None:
        now = self._clock()
        try:
            self._has_messages = now - self._posted_at >= INTERVAL_S and self._host.has_messages()
            self._is_needed = self._host.is_busy()
        except Exception as error:  # noqa: BLE001  an observer never raises into the loop
            self._fail(error)
        self._answer_at = now
        self._check_in(INTERVAL_S)

    def _check_in(self, seconds: float) -> None:
        """Have `_check` called after *seconds*. Does nothing if it is to be called anyway."""
        # The answer to the last marker may come when the thread has ended: nobody wants the GIL then.
        is_wanted = self._timer is None and self._passes.can_hold and not self._is_ended
        if is_wanted and not self._loop.is_closed():
            self._timer = self._loop.call_later(seconds, self._check, context=self._context)

    def _check(self) -> None:
        """Keep the GIL in the loop's passes if the watchdog's thread waits for it in vain; ask again soon."""
        self._timer = None
        if self._is_ended:
            return
        left_s = self._passes.hold_if_overdue()
        if self._is_needed:
            self._check_in(_OVERDUE_S + min(max(left_s, _OVERDUE_S), INTERVAL_S))

    # -- the watchdog's thread --------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_ended:
                if self._is_needed:
                    self._beat()
                else:
                    self._wait(None)
        except Exception as error:  # noqa: BLE001  an observer never raises; the status shows it
            self._fail(error)
        finally:
            self._passes.expect(math.inf)  # else they would keep the GIL for ever

    def _fail(self, error: Exception) -> None:
        self.fault = f"{type(error).__name__}: {error}"
        self._is_ended = True
        _log.warning("loopnb no longer watches the loop", exc_info=error)

    def _beat(self) -> None:
        """Post a marker, look while it is late, and rest until the next is due."""
        self._look_after_standstill()
        posted = self._posted_at = self._clock()
        self._answer_at = None
        if not self._passes.can_hold:
            _shorten_interval()  # posting writes to the loop's socket, which releases the GIL
        try:
            self._loop.call_soon_threadsafe(self._answer, context=self._context)
        except RuntimeError:  # the loop is closed
            self._is_needed = False
            return
        finally:
            _restore_interval()
        self._await_answer(posted)
        if self._answer_at is not None:
            # What blocks next may be a step of the very pass that has answered. It began after *posted*.
            self._turned_at, self._oldest_pass = self._answer_at, posted
        self._rest(posted + INTERVAL_S * random.uniform(1 - _VARIES_BY, 1 + _VARIES_BY))

    def _look_after_standstill(self) -> None:
        """Look at once if this thread could not run for long: C code held the GIL, and no marker was posted.

        It may also be that the machine was busy, or that this thread starved. Then the look finds a pass that
        has just begun, or the thread of the loop has used less CPU time than has passed.
        """
        held_s = self._overslept_s
        if held_s < GIL_HELD_S:
            return
        look, now = self._lookout.look(), self._clock()
        cpu, cpu_s = self._cpu_now(), None
        if cpu is not None and self._cpu_before is not None and not self._was_woken:
            cpu_s = cpu - self._cpu_before
        began = max(now - held_s, min(look.pass_began, now))
        if look.state in {"step", "kernel"}:
            self._see(look, now - held_s, now, cpu_s, held_s)
        elif look.state == "select" and cpu_s is not None and cpu_s > held_s / 2:
            self._host.unseen(began, now)
        else:
            return
        self._host.answered(now - began, now)

    def _await_answer(self, posted: float) -> None:
        was_elsewhere, count = False, 0
        before, cpu = posted, self._cpu_now()
        is_short = not self._passes.can_hold
        waited_s = self._wait(LATE_S, is_short=is_short)
        if is_short and self._answer_at is None:
            # How long the GIL takes to come tells Python code from C code, if the interval is the stock one.
            waited_s += self._wait(_ONCE_MORE_S)
        while self._answer_at is None and not self._is_ended:
            look = self._lookout.look()
            now, cpu_before, cpu = self._clock(), cpu, self._cpu_now()
            cpu_s = None if cpu is None or cpu_before is None else cpu - cpu_before
            if look.state in {"step", "kernel"}:
                self._see(look, before, now, cpu_s, waited_s)
            else:
                self._end_step(before)
                if look.state == "elsewhere":
                    was_elsewhere = True
                    # The pass may go on, and has not blocked the loop until now.
                    self._turned_at = self._oldest_pass = now
                    self._host.stands_still(posted, now)
            if self.step is not None and count % _KEPT_EVERY == 0:
                self.step.note_kept(_cpython.kept_waiting(self._loop, now))
            if self.step is not None:
                self._host.still_late(self.step, now)
            if self._is_watching or self.step is not None:
                self._count(look, now)
            before, count = now, count + 1
            waited_s = self._wait(LATE_S)
        if was_elsewhere:
            self._host.turns_again()
        answer = self._answer_at
        if answer is None:
            return
        if count == 0 and waited_s > LATE_S:
            self._host.unseen(posted, answer)
        self._end_step(answer)
        if not was_elsewhere:
            self._host.answered(max(0.0, answer - posted), answer)

    def _see(self, look: Look, before: float, now: float, cpu_s: float | None, waited_s: float) -> None:
        """Add a look to the step that was seen before. If it found another step, begin that one."""
        seconds = now - before
        step = self.step
        if step is None or step.key != look.step:
            self._end_step(before)
            began = before
            if step is None and look.pass_began >= self._oldest_pass:
                began = min(max(look.pass_began, self._turned_at), now)
            step = Step(look.step, began, now)
            if cpu_s is not None and seconds > 0:
                cpu_s *= (now - began) / seconds  # the CPU time before the marker was posted is not known
            seconds = now - began
        step.extend(now)
        step.add(look, seconds, cpu_s, waited_s)
        self.step = step  # not before it holds a look: other threads may ask

    def _end_step(self, ended: float) -> None:
        step, self.step = self.step, None
        if step is not None:
            step.extend(ended)
            self._host.step_ended(step, self._has_messages)

    def _rest(self, until: float) -> None:
        """Wait until *until*, or until woken. Look once at the end, or all the time while watching."""
        while not self._is_ended and self._is_needed:
            left_s = until - self._clock()
            if left_s <= 0:
                return
            pause_s = min(left_s, random.uniform(*_WATCH_S)) if self._is_watching else left_s
            self._wait(pause_s, is_short=not self._passes.can_hold)
            if self._was_woken or self._overslept_s >= GIL_HELD_S:
                return
            self._count(self._lookout.look(), self._clock())

    def _count(self, look: Look, now: float) -> None:
        """Tell the host of a look, and for how many seconds it stands.

        It stands for the time since the last look. But if it came late because the machine was busy, it says
        nothing about most of that time. So it stands for no more than the pass has lasted, or, if that is
        longer, than the longest usual time between two looks.
        """
        passed_s, self._looked_at = now - self._looked_at, now
        apart_s = _WATCH_S[1] if self._is_watching else INTERVAL_S
        lasted_s = now - look.pass_began if look.pass_began and look.state != "select" else apart_s
        self._host.looked(look, min(passed_s, max(lasted_s, apart_s)), now)

    def _cpu_now(self) -> float | None:
        return None if self._cpu is None else self._cpu()

    def _wait(self, seconds: float | None, *, is_short: bool = False) -> float:
        """Wait that long, or until woken. None waits until woken.

        Args:
            seconds: How long.
            is_short: Ask for the GIL soon after, not only after the whole switch interval.

        Returns:
            For how many seconds after that this thread still waited for the GIL.
        """
        due = self._clock() + (seconds or 0.0)
        self._cpu_before = self._cpu_now()
        self._was_woken = True
        # It stays due until the next call: looking may read a file, and release the GIL.
        self._passes.expect(math.inf if seconds is None else due)
        if is_short:
            _shorten_interval()
        try:
            due = self._commands.get(timeout=seconds)
        except queue.Empty:
            self._was_woken = False
        finally:
            _restore_interval()
        self._overslept_s = max(0.0, self._clock() - due)
        return self._overslept_s


#: Seconds that `stop` waits for the thread. It may be reading a source file from a slow disk.
_JOIN_S = 1.0
#: The switch interval that was set before `_shorten_interval`. Process-wide, as the interval is.
_stock_intervals = [sys.getswitchinterval()]
#: The watchdogs that have a thread. Process-wide: a function registered with `os.register_at_fork` stays.
_active: WeakSet[Watchdog] = WeakSet()


def _shorten_interval() -> None:
    """Make Python hand the GIL over soon, until `_restore_interval`."""
    if not _is_short():
        _stock_intervals[:] = [sys.getswitchinterval()]
        sys.setswitchinterval(_SHORT_S)


def _restore_interval() -> None:
    if _is_short():  # else somebody else has set it since
        sys.setswitchinterval(_stock_intervals[0])


def _is_short() -> bool:
    return abs(sys.getswitchinterval() - _SHORT_S) < _SHORT_S / 10


def _after_fork() -> None:
    for watchdog in list(_active):
        _active.discard(watchdog)
        watchdog.forget_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
