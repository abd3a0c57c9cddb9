"""What a session knows of its loop by watching it: blocks, lag, and who keeps it busy."""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from loopnb._cpython import coro_of, name_of
from loopnb.records import Pace, PlaceTotal, Standstill
from loopnb.watch import _cpython
from loopnb.watch.busy import BusyTable, RecentShares, RecentTasks
from loopnb.watch.garbage import GarbageWatch
from loopnb.watch.judging import Judge
from loopnb.watch.lateness import Lateness
from loopnb.watch.looking import Lookout, TaskFacts
from loopnb.watch.passes import Passes
from loopnb.watch.watchdog import INTERVAL_S, Watchdog

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from loopnb.records import Block, Busy, CellRef
    from loopnb.tracking.tracker import Tracker
    from loopnb.watch.judging import Step
    from loopnb.watch.looking import Look

_log = logging.getLogger("loopnb")

#: How many blocks, and how many places of blocks, are kept.
_BLOCKS = 50
_PLACES = 200
#: Onlookers are told of a block when it has lasted so many seconds, and again every so many seconds.
_TOLD_AFTER_S = 0.4
_TOLD_EVERY_S = 0.5

#: In a browser, Python cannot start threads, and nothing is watched.
_HAS_THREADS = sys.platform != "emscripten"


class Cells(Protocol):
    """Knows which cells execute. Any thread may ask."""

    @property
    def executing(self) -> CellRef | None:
        """The outermost cell that executes in the main thread."""

    def cell_in(self, task: asyncio.Task[Any]) -> CellRef | None:
        """Return the cell of the main thread that executes in *task*."""


class MessageQueue(Protocol):
    """Knows what the front end has sent."""

    def has_messages(self) -> bool:
        """Return True if messages wait to be handled. The loop's thread."""


class Watch:
    """Watches one loop. Every method may be called from any thread, unless it says otherwise.

    Args:
        loop: The loop. Make the object in its thread.
        tracker: Knows its tasks.
        cells: Knows which cells execute.
        messages: Knows whether messages wait; None where there are none.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tracker: Tracker,
        cells: Cells,
        messages: MessageQueue | None = None,
    ) -> None:
        self._loop = loop
        self._tracker = tracker
        self._cells = cells
        self._messages = messages
        self._thread_id = threading.get_ident()
        self._lookout = Lookout(loop, self._thread_id, self)
        self._judge = Judge(tracker.describe)
        self._garbage = GarbageWatch()
        self._watchdog: Watchdog | None = None
        self._blocked_after = 0.0
        self._numbers = itertools.count(1)
        self._blocks: deque[Block] = deque(maxlen=_BLOCKS)
        self._totals: dict[str, PlaceTotal] = {}
        self._lateness = Lateness(INTERVAL_S)
        self._shares = RecentShares()
        self._tasks = RecentTasks()
        self._onlookers: list[Callable[[Block | Standstill | None], object]] = []
        self._told_at: float | None = None
        self._busy: BusyTable | None = None
        self._watchers: set[object] = set()
        self._passes = Passes(loop)

    # -- coming and going -------------------------------------------------------------------------

    def set_blocked_after(self, seconds: float) -> None:
        """Keep steps of *seconds* or more as blocks from now on; 0 ends the thread. The loop's thread."""
        self._blocked_after = seconds
        if seconds == 0 or self.fault is not None:
            self._end()
        if seconds > 0 and self._watchdog is None and _HAS_THREADS:
            self._garbage.start()
            self._watchdog = Watchdog(self._loop, self._lookout, self._thread_id, self, self._passes)
            self._set_watching()
            self._watchdog.start()

    def stop(self) -> None:
        """End the thread, and undo what was changed. What was measured stays. The loop's thread."""
        self._watchers.clear()
        self._passes.stop()
        self._end()

    def _end(self) -> None:
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.stop()
            self._garbage.stop()

    def wake(self, *_event: object) -> None:
        """Look soon, since code of the user's is about to run. Any thread; takes a microsecond."""
        watchdog = self._watchdog
        if watchdog is not None:
            watchdog.wake()

    # -- what was measured ------------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        """True unless `LoopNB.blocked_after` is 0, watching has failed, or there are no threads."""
        return self._watchdog is not None and self._watchdog.fault is None

    @property
    def fault(self) -> str | None:
        """Why watching has ended by itself, or None."""
        return None if self._watchdog is None else self._watchdog.fault

    def notes(self) -> tuple[str, ...]:
        """Return a note for `%loopnb` if watching has failed."""
        if self.fault is None:
            return ()
        return (f"the loop is no longer watched, because of an error of loopnb's own: {self.fault}",)

    def blocks(self) -> list[Block]:
        """Return the last blocks, oldest first. The last one may not be over."""
        current = self.current()
        return [*self._blocks] + ([current] if current is not None else [])

    def current(self) -> Block | None:
        """Return the block that goes on, with its length so far; None if there is none."""
        watchdog = self._watchdog
        step = watchdog.step if watchdog is not None else None
        # Take its length at the last look: the step may have ended since, too short to be kept as a block.
        if step is None or not self._is_block(step.lasted_s):
            return None
        step = step.so_far(time.monotonic())
        return self._block_of(step, 0, is_over=False, messages=False)

    def watch_blocks(self, fn: Callable[[Block | Standstill | None], object]) -> None:
        """Call *fn* with each block or standstill, twice a second while it lasts, and with None at its end.

        The first call comes after 0.4 s, or after `LoopNB.blocked_after` if that is less. The watchdog's
        thread calls *fn* while the loop does not turn, so *fn* must ask no loop. If it raises, it is not
        called again.
        """
        self._onlookers.append(fn)

    def unwatch_blocks(self, fn: Callable[[Block | Standstill | None], object]) -> None:
        """Call *fn* no more. Does nothing if it is not called now."""
        if fn in self._onlookers:
            self._onlookers.remove(fn)

    def latest(self) -> Block | None:
        """Return the block that goes on, or else the last one that has ended; None if there was none."""
        return self.current() or (self._blocks[-1] if self._blocks else None)

    def totals(self) -> list[PlaceTotal]:
        """Return how often and for how long each place has blocked, the longest first."""
        return sorted(self._totals.copy().values(), key=lambda total: -total.total_s)

    def pace(self) -> Pace:
        """Return how fast the loop turns."""
        now = time.monotonic()
        return Pace(
            self._lateness.recent(now),
            self._lateness.total(),
            self._shares.shares(now),
            self._passes.per_second(now),
        )

    def worst_lags(self) -> list[float]:
        """Return the worst lag of each of the last 60 seconds, the oldest first, in seconds."""
        return self._lateness.worst(time.monotonic())

    def busy_shares(self) -> dict[int, float]:
        """Return which share of the last minute each task has kept the loop busy, by number.

        Tasks that no look has found at work are left out.
        """
        return self._tasks.shares(time.monotonic())

    # -- who is busy ------------------------------------------------------------------------------

    def watch_busy(self, watcher: object) -> None:
        """Look all the time from now on, until each watcher has called `unwatch_busy`. The loop's thread.

        Each look costs the loop's thread 0.1 ms, 50 times a second.
        """
        if not self._watchers:
            self._busy = BusyTable()
            self._passes.start()
        self._watchers.add(watcher)
        self._set_watching()
        self.wake()

    def unwatch_busy(self, watcher: object) -> None:
        """Stop looking all the time for *watcher*. What was measured stays. The loop's thread."""
        self._watchers.discard(watcher)
        if not self._watchers:
            self._passes.stop()
        self._set_watching()

    @property
    def is_busy_watched(self) -> bool:
        """True while there is a watcher."""
        return bool(self._watchers)

    def busy(self) -> Busy | None:
        """Return who has kept the loop busy since watching was last begun; None if it never was."""
        return None if self._busy is None else self._busy.busy()

    def _set_watching(self) -> None:
        if self._watchdog is not None:
            self._watchdog.set_watching(bool(self._watchers))

    # -- for the watchdog: see `Host` and `Known` --------------------------------------------------

    def is_busy(self) -> bool:
        """Return True if code of the user's executes, or may do so at any time. The loop's thread."""
        return (
            bool(self._watchers)
            or self._cells.executing is not None
            or self._tracker.has_users_task()
            or _cpython.has_handlers(self._loop)
        )

    def has_messages(self) -> bool:
        """Return True if messages of the front end wait. The loop's thread."""
        return self._messages is not None and self._messages.has_messages()

    @property
    def executing(self) -> CellRef | None:
        """The outermost cell that executes in the main thread."""
        return self._cells.executing

    def facts_of(self, task: asyncio.Task[Any]) -> TaskFacts:
        """Return what *task* is."""
        origin = self._tracker.known_origin(task)
        return TaskFacts(
            None if origin is None else origin.number,
            name_of(task),
            getattr(coro_of(task), "__qualname__", "?").replace(".<locals>", ""),
            None if origin is None else origin.cell,
            self._tracker.is_kernels_own(task),
            self._cells.cell_in(task),
        )

    def step_ended(self, step: Step, messages: bool) -> None:
        """Keep the block that *step* was, if it was one. The watchdog's thread."""
        self.turns_again()
        if self._is_block(step.lasted_s):
            number = next(self._numbers)
            self._keep(self._block_of(step, number, is_over=True, messages=messages))

    def unseen(self, began: float, until: float) -> None:
        """Keep a block that no look has seen, if it was one. The watchdog's thread."""
        if self._is_block(until - began):
            garbage_s = self._garbage.seconds_between(began, until)
            number, cell = next(self._numbers), self._cells.executing
            self._keep(self._judge.unseen(number, began, until - began, garbage_s, cell))

    def still_late(self, step: Step, now: float) -> None:
        """Tell the onlookers of *step* if it has lasted long enough: see `watch_blocks`.

        The watchdog's thread.
        """
        least_s = min(self._blocked_after or _TOLD_AFTER_S, _TOLD_AFTER_S)
        is_due = self._told_at is None or now - self._told_at >= _TOLD_EVERY_S
        if self._onlookers and is_due and step.lasted_s >= least_s:
            self._told_at = now
            self._tell(self._block_of(step, 0, is_over=False, messages=False))

    def stands_still(self, since: float, now: float) -> None:
        """Tell the onlookers that the loop has stood still since then. The watchdog's thread."""
        is_due = self._told_at is None or now - self._told_at >= _TOLD_EVERY_S
        if self._onlookers and is_due and now - since >= _TOLD_AFTER_S:
            self._told_at = now
            self._tell(Standstill(now - since))

    def turns_again(self) -> None:
        """Tell the onlookers that it is over, if they were told anything. The watchdog's thread."""
        if self._told_at is not None:
            self._told_at = None
            self._tell(None)

    def _tell(self, block: Block | Standstill | None) -> None:
        for fn in list(self._onlookers):
            try:
                fn(block)
            except Exception:  # noqa: BLE001  an observer: the loop is watched on without it
                _log.exception("an observer of blocks raised")
                self.unwatch_blocks(fn)

    def answered(self, late_s: float, now: float) -> None:
        """Count how late a marker was. The watchdog's thread."""
        self._lateness.add(late_s, now)

    def looked(self, look: Look, seconds: float, now: float) -> None:
        """Count a look. The watchdog's thread."""
        self._shares.add(look, seconds, now)
        self._tasks.add(look, seconds, now)
        busy = self._busy
        if busy is not None and self._watchers:
            busy.add(look, seconds)

    def _is_block(self, seconds: float) -> bool:
        return 0 < self._blocked_after <= seconds

    def _block_of(self, step: Step, number: int, *, is_over: bool, messages: bool) -> Block:
        garbage_s = self._garbage.seconds_between(step.began, step.until)
        return self._judge.block(number, step, is_over=is_over, garbage_s=garbage_s, messages=messages)

    def _keep(self, block: Block) -> None:
        self._blocks.append(block)
        if block.task is not None:
            self._tracker.note_block(block.task, block.lasted_s)
        place = block.place or block.name
        before = self._totals.pop(place, PlaceTotal(place, 0, 0.0, 0.0))
        self._totals[place] = PlaceTotal(
            place,
            before.count + 1,
            before.total_s + block.lasted_s,
            max(before.longest_s, block.lasted_s),
        )
        if len(self._totals) > _PLACES:
            del self._totals[next(iter(self._totals))]
