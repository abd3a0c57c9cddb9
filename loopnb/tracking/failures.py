"""Tasks that failed and that nobody looked at: found without a callback on each task.

The wish. A plain `asyncio.create_task()` whose task fails is reported in the cell that spawned it, not
in whichever cell runs when the garbage collector finds the task.

What does not work. A done-callback on each task makes spawning 40 % slower.

What is done. A failed task that nothing refers to any more is found by its finalizer: nobody can await
it. It is reported at the end of its cell. The tasks that are left at the end of a cell are looked at
there: who lives on gets a done-callback after all, since it is no short task. Who has failed, and is
referred to, may still be awaited by a later cell, so it is reported only when no cell has executed for
a while.

What it cannot do. A task that is spawned after its cell has ended, fails at once and is referred to is
found at the end of the next cell.
"""

from __future__ import annotations

import contextlib
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from loopnb.nesting._cpython import unseen_error
from loopnb.nesting.fatal import is_fatal, was_taken
from loopnb.nesting.known_tasks import known_tasks
from loopnb.tracking import tracked
from loopnb.tracking.history import ended
from loopnb.tracking.tracked import has_origin

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from loopnb.records import CellRef
    from loopnb.tracking.history import Ended
    from loopnb.tracking.tracked import TrackedTask

#: Failures that are remembered for the log at the kernel's end.
_REMEMBERED = 100
#: By loop, since it outlives a reload: the numbers of tasks that somebody holds and whose failure was told.
_shown: WeakKeyDictionary[asyncio.AbstractEventLoop, set[int]] = WeakKeyDictionary()


class Failures:
    """Finds the failures that nobody saw. The loop's thread, unless said otherwise.

    Args:
        loop: The loop whose tasks are looked at.
        is_ignored: Says of a task whether its failure is not the user's.
        is_executing: Says whether a cell executes; of None, whether any does.
        delay: Returns the seconds after a cell's end until a failed task that is referred to is reported.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        is_ignored: Callable[[asyncio.Task[Any]], bool],
        is_executing: Callable[[CellRef | None], bool],
        delay: Callable[[], float],
    ) -> None:
        self._report: Callable[[CellRef | None, list[Ended]], None] | None = None
        self._loop = loop
        self._is_ignored = is_ignored
        self._is_executing = is_executing
        self._delay = delay
        self._due: deque[Ended] = deque()
        self._unseen: dict[int, Ended] = {}
        self._shown = _shown.setdefault(loop, set())
        self._has_stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._context = Context()  # ours: it must not pin a cell's

    def start(self, report: Callable[[CellRef | None, list[Ended]], None]) -> None:
        """Look out for failures, and call *report* with those of one cell."""
        self._report = report
        tracked.on_failed.append(self._dropped)

    def stop(self) -> None:
        """Leave failures to asyncio again, but for those that have been told."""
        self._has_stopped = True
        tracked.on_failed.remove(self._dropped)
        for task in self._known():
            if self._is_shown(task):
                task.exception()  # retrieved: asyncio would report it where it is collected
        if self._timer is not None:
            self._timer.cancel()

    def after_cell(self) -> None:
        """Look at what the cell that has just ended left."""
        have_failed = False
        for task in self._known():
            if task.done():
                have_failed = have_failed or self._is_to_report(task)
            elif getattr(task, "watcher", None) is not self:
                task.watcher = self
                task.add_done_callback(self._ended, context=self._context)
        self._flush()
        if have_failed:  # a timer that is not needed would be looked at in each pass
            self._settle_later()

    def remember(self, task: asyncio.Task[Any]) -> None:
        """Remember a failure that was shown where perhaps nobody looks, until somebody retrieves it."""
        if self._dropped not in tracked.on_failed:
            task.exception()  # retrieved: whoever looks out next would report it once more
        elif has_origin(task):
            self._remember(ended(task))
            self._shown.add(task.origin.number)

    def seen(self, number: int) -> None:
        """Note that the user has looked at the failure of that task."""
        self._unseen.pop(number, None)

    def unseen(self) -> list[Ended]:
        """Return the failures that nobody has looked at, as far as one can know."""
        held = []
        for task in self._known():
            if self._is_shown(task):
                if not self._has_failed(task):
                    self.seen(task.origin.number)
            elif self._has_failed(task) or self._has_ended_kernel(task):
                held.append(ended(task))
        return [*self._unseen.values(), *self._due, *held]

    def _dropped(self, task: TrackedTask) -> None:
        """Take a failed task from its finalizer. Any thread."""
        if task.get_loop() is not self._loop or self._is_ignored(task):
            return
        if self._is_shown(task):
            self._drop_shown(task)
            return
        if not self._has_failed(task):
            if self._has_ended_kernel(task):
                self._remember(ended(task))
            if task.done():  # it may be pending, and asyncio tells of that
                task.exception()  # retrieved: it went to a cell, or ends the kernel
            return
        self._due.append(ended(task))
        task.exception()  # retrieved, so that asyncio does not report it as well
        with contextlib.suppress(RuntimeError):  # the loop is closed: the log will name it
            self._loop.call_soon_threadsafe(self._flush, context=self._context)

    def _drop_shown(self, task: TrackedTask) -> None:
        self._shown.discard(task.origin.number)
        if self._has_failed(task):
            task.exception()  # retrieved: it was shown, and asyncio need not report it
        else:
            self.seen(task.origin.number)

    def _is_shown(self, task: TrackedTask) -> bool:
        return task.origin.number in self._shown

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not self._has_stopped and self._has_failed(task):
            self._settle_later()

    def _settle_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._delay(), self._settle, context=self._context)

    def _settle(self) -> None:
        self._timer = None
        if self._is_executing(None):
            return  # the end of that cell comes back here
        for task in self._known():
            if self._is_to_report(task):
                self._due.append(ended(task))
                self._shown.add(task.origin.number)
        self._flush()

    def _flush(self) -> None:
        """Report what is due, of those cells that have ended."""
        by_cell: dict[CellRef | None, list[Ended]] = {}
        for _ in range(len(self._due)):
            failure = self._due.popleft()
            cell = failure.origin.cell
            if cell is not None and self._is_executing(cell):
                self._due.append(failure)
            else:
                by_cell.setdefault(cell, []).append(failure)
                self._remember(failure)
        for cell, failures in by_cell.items():
            if self._report is not None:
                self._report(cell, failures)

    def _remember(self, failure: Ended) -> None:
        self._unseen[failure.origin.number] = failure
        if len(self._unseen) > _REMEMBERED:
            del self._unseen[next(iter(self._unseen))]

    def _known(self) -> Iterator[TrackedTask]:
        for task in known_tasks(self._loop):
            if has_origin(task):
                yield task

    def _is_to_report(self, task: TrackedTask) -> bool:
        return self._has_failed(task) and not self._is_ignored(task) and not self._is_shown(task)

    def _has_failed(self, task: asyncio.Task[Any]) -> bool:
        # KeyboardInterrupt and SystemExit went through the loop: everybody has seen them.
        error = unseen_error(task)
        return error is not None and not is_fatal(error)

    def _has_ended_kernel(self, task: asyncio.Task[Any]) -> bool:
        error = unseen_error(task)
        return isinstance(error, SystemExit) and not was_taken(error)
