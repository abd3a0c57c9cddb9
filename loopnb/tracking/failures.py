"""Find tasks whose failure nobody has looked at, without a callback on each task.

The aim: a plain `asyncio.create_task()` whose task fails is reported in the cell that spawned it, not in
whichever cell runs when the garbage collector finds the task.

What does not work: a done-callback on each task makes spawning 40 % slower.

Instead, failed tasks are found in three ways.

* Nothing refers to the task any more, so nobody can await it. Its finalizer tells us, and we report the
  failure at the end of its cell.
* Tasks that are still alive at the end of a cell get a done-callback. For a long task its cost is negligible.
* If a task failed before the end of its cell, and something refers to it, a look at all finished tasks finds
  it. Up to Python 3.13 asyncio's own weak set has them. From 3.14 on we scan every object of the process,
  which takes 15 ms or more. So the scan waits until no cell executes, and is skipped if the user's code has
  spawned no task since the last scan.

A later cell may still await a failed task that something refers to. So we report it only when no cell has
executed for a while.

Limit: if a task is spawned after its cell has ended, fails at once, and something refers to it, we find it
only after the next cell.
"""

from __future__ import annotations

import contextlib
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from loopnb._cpython import held_finished_tasks, live_tasks, unseen_error
from loopnb.nesting._cpython import silence_destroyed_warning, warns_if_destroyed
from loopnb.nesting.fatal import is_fatal, was_taken
from loopnb.tracking import _cpython, tracked
from loopnb.tracking.history import EndedTask, waiting_place
from loopnb.tracking.tracked import has_origin, ledger_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from loopnb.records import CellRef
    from loopnb.tracking.tracked import TrackedTask

    Report = Callable[[CellRef | None, list[EndedTask]], None]

#: How many failures are remembered for the log at the kernel's end.
_REMEMBERED = 100


class Failures:
    """Finds the failures that nobody saw. The loop's thread, unless said otherwise.

    Args:
        loop: The loop whose tasks are looked at.
        is_ignored: Returns True for a task whose failure is not the user's.
        is_executing: Given a cell, returns True if it executes; given None, if any cell does.
        delay: Returns how many seconds after the end of a cell to report its failed tasks, if something
            refers to them.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        is_ignored: Callable[[asyncio.Task[Any]], bool],
        is_executing: Callable[[CellRef | None], bool],
        delay: Callable[[], float],
    ) -> None:
        self._loop = loop
        self._is_ignored = is_ignored
        self._is_executing = is_executing
        self._delay = delay
        self._report: Report | None = None
        self._due: deque[EndedTask] = deque()
        self._unseen: dict[int, EndedTask] = {}
        self._in_full: set[int] = set()  # the numbers of those whose traceback was shown
        ledger = ledger_of(loop)
        self._shown = ledger.shown
        self._spawned = ledger.spawned
        self._places = ledger.places
        self._watched: WeakSet[TrackedTask] = WeakSet()  # have our done-callback
        self._late: WeakSet[asyncio.Task[Any]] = WeakSet()  # failed after their cell had ended
        self._has_stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._context = Context()  # empty: our timers and callbacks must keep no cell's Context alive

    def start(self, report: Report) -> None:
        """Watch for failures. Call *report* once per cell, with the failures of that cell."""
        self._report = report
        tracked.on_failed.append(self._dropped)

    def stop(self) -> None:
        """Leave failures to asyncio again, except for those that have been reported."""
        self._has_stopped = True
        tracked.on_failed.remove(self._dropped)
        for watched in list(self._watched):  # their callback would keep us alive, and so the session
            watched.remove_done_callback(self._ended)
        self._places.clear()
        for task in self._held() if self._shown else ():
            if self._is_shown(task):
                _mark_retrieved(task)
        if self._timer is not None:
            self._timer.cancel()

    def after_cell(self) -> None:
        """Look for failures of the cell that has just ended."""
        self._watch_live()
        self._flush()
        # Start no timer without need, since each pass of the loop looks at it.
        if self._may_find_more() or any(map(self._is_to_report, self._found())):
            self._settle_later()

    def remember(self, task: asyncio.Task[Any], *, in_full: bool = False) -> None:
        """Remember a failure that was shown where perhaps nobody looks, until somebody retrieves it.

        Args:
            task: The task that has failed.
            in_full: Its traceback was shown, not only a line about it.
        """
        if self._dropped not in tracked.on_failed:
            _mark_retrieved(task)  # or the next session would report it again
        elif has_origin(task):
            self._remember(EndedTask.of(task))
            self._shown.add(task.origin.number)
            if in_full:
                self._in_full.add(task.origin.number)

    def was_shown_in_full(self, number: int) -> bool:
        """Return True if the traceback of that task, one of `unseen`, was shown in the notebook."""
        return number in self._in_full

    def seen(self, number: int) -> None:
        """Note that the user has looked at the failure of that task."""
        self._unseen.pop(number, None)
        self._in_full.discard(number)

    def unseen(self) -> list[EndedTask]:
        """Return the failures that nobody has looked at, as far as loopnb can know.

        From Python 3.14 on this looks at every object of the process, which takes 15 ms and more.
        """
        held = []
        for task in self._held():
            if self._is_shown(task):
                if not self._has_failed(task):
                    self.seen(task.origin.number)
            elif self._has_failed(task) or self._has_ended_kernel(task):
                held.append(EndedTask.of(task))
        due = [failure for failure in self._due if failure.state != "dropped"]
        return [*self._unseen.values(), *due, *held]

    def take_unseen(self, is_wanted: Callable[[CellRef | None], bool]) -> list[EndedTask]:
        """Return the failures that nobody has looked at, oldest first. They count as looked at from now on.

        From Python 3.14 on this looks at every object of the process, which takes 15 ms and more, if tasks
        were spawned or have failed lately.

        Args:
            is_wanted: Given the cell that spawned a task, returns True if its failure is wanted.
        """
        taken: dict[int, EndedTask] = {}
        # A reported failure may have been retrieved since: only the task itself tells.
        for task in list(self._held()) if self._may_find_more() or self._unseen else self._found():
            if self._is_ignored(task) or not is_wanted(task.origin.cell):
                continue
            if self._has_failed(task):
                taken[task.origin.number] = EndedTask.of(task)
                self._shown.add(task.origin.number)  # no other session reports it
                _mark_retrieved(task)
            elif self._is_shown(task):
                self.seen(task.origin.number)  # somebody has retrieved it since
        for failure in [*self._unseen.values(), *self._due]:
            if failure.error is None or is_fatal(failure.error):  # dropped, or it went through the loop
                continue
            if is_wanted(failure.origin.cell):
                taken.setdefault(failure.origin.number, failure)
        self._due = deque(failure for failure in self._due if failure.origin.number not in taken)
        for number in taken:
            self.seen(number)
        return [taken[number] for number in sorted(taken)]

    def _dropped(self, task: TrackedTask) -> None:
        """Take from its finalizer a task that has failed, or was lost while it waited. Any thread."""
        if task.get_loop() is not self._loop or self._is_ignored(task):
            return
        if not task.done():
            self._drop_pending(task)
            return
        if self._is_shown(task):
            self._drop_shown(task)
            return
        if not self._has_failed(task):
            if self._has_ended_kernel(task):
                self._remember(EndedTask.of(task))
            _mark_retrieved(task)  # its error went to a cell, or ends the kernel
            return
        self._due.append(EndedTask.of(task))
        _mark_retrieved(task)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the log will name it
            self._loop.call_soon_threadsafe(self._flush, context=self._context)

    def _drop_pending(self, task: TrackedTask) -> None:
        """Take over asyncio's report that *task* is destroyed though it has not ended.

        asyncio says nothing of the task of a coroutine that was given to `gather()`. We do, since it is lost
        like any other task.
        """
        if (warns_if_destroyed(task) or _cpython.is_of_gather(task)) and not self._loop.is_closed():
            self._due.append(EndedTask.of(task))  # `_flush` forgets the place: the history wants it, too
            silence_destroyed_warning(task)
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                self._loop.call_soon_threadsafe(self._flush, context=self._context)

    def _drop_shown(self, task: TrackedTask) -> None:
        self._shown.discard(task.origin.number)
        if self._has_failed(task):
            _mark_retrieved(task)
        else:
            self.seen(task.origin.number)

    def _is_shown(self, task: TrackedTask) -> bool:
        return task.origin.number in self._shown

    def _watch_live(self) -> None:
        for task in live_tasks(self._loop):
            if has_origin(task) and task not in self._watched:
                self._watched.add(task)
                with contextlib.suppress(Exception):  # of the user's awaitables
                    if (place := waiting_place(task)) is not None:
                        self._places[task.number] = place
                task.add_done_callback(self._ended, context=self._context)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if has_origin(task):
            self._places.pop(task.number, None)
        if not self._has_stopped and self._has_failed(task):
            self._late.add(task)
            self._settle_later()

    def _settle_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._delay(), self._settle, context=self._context)

    def _settle(self) -> None:
        """Report the failed tasks to which something refers."""
        self._timer = None
        if self._is_executing(None):
            return  # the end of that cell starts the timer again
        found = self._found()
        if self._may_find_more():
            self._spawned.forget_users()
            self._watch_live()  # tasks spawned since the last scan: perhaps no later scan looks for them
            found = list(self._held())
        for task in found:
            if self._is_to_report(task):
                self._due.append(EndedTask.of(task))
                self._shown.add(task.origin.number)
        self._flush()

    def _may_find_more(self) -> bool:
        """Return True if only a look at every object can tell whether a task has failed."""
        return _cpython.FINISHED_ARE_SCANNED_FOR and self._spawned.has_users

    def _found(self) -> list[TrackedTask]:
        """Return finished tasks to which something refers, as far as they can be found without a scan."""
        if _cpython.FINISHED_ARE_SCANNED_FOR:
            return [task for task in self._late if has_origin(task)]
        return list(self._held())

    def _held(self) -> Iterator[TrackedTask]:
        for task in held_finished_tasks(self._loop):
            if has_origin(task):
                yield task

    def _flush(self) -> None:
        """Report the failures that are due, for cells that have ended."""
        by_cell: dict[CellRef | None, list[EndedTask]] = {}
        for _ in range(len(self._due)):
            failure = self._due.popleft()
            self._places.pop(failure.origin.number, None)
            cell = failure.origin.cell
            if cell is not None and self._is_executing(cell):
                self._due.append(failure)
            else:
                by_cell.setdefault(cell, []).append(failure)
                if failure.state != "dropped":  # the line that is shown now says all that is known
                    self._remember(failure)
        for cell, failures in by_cell.items():
            if self._report is not None:
                self._report(cell, failures)

    def _remember(self, failure: EndedTask) -> None:
        self._unseen[failure.origin.number] = failure
        if len(self._unseen) > _REMEMBERED:
            self.seen(next(iter(self._unseen)))

    def _is_to_report(self, task: TrackedTask) -> bool:
        return self._has_failed(task) and not self._is_ignored(task) and not self._is_shown(task)

    def _has_failed(self, task: asyncio.Task[Any]) -> bool:
        # KeyboardInterrupt and SystemExit do not count: they went through the loop, so the user has seen
        # them.
        error = unseen_error(task)
        return error is not None and not is_fatal(error)

    def _has_ended_kernel(self, task: asyncio.Task[Any]) -> bool:
        error = unseen_error(task)
        return isinstance(error, SystemExit) and not was_taken(error)


def _mark_retrieved(task: asyncio.Task[Any]) -> None:
    """Keep asyncio from reporting the failure of *task*, since we have."""
    task.exception()
