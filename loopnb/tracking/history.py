"""Keep ended tasks in two bounded lists: the tasks that ended well, and those that failed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loopnb.nesting._cpython import error_of, waited_future
from loopnb.tracking import _cpython, tracked
from loopnb.tracking.suspended import line_where_suspended, only_line_of
from loopnb.tracking.tracked import Origin, ledger_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from loopnb.records import TaskState
    from loopnb.tracking.tracked import TrackedTask


@dataclass(frozen=True, slots=True)
class EndedTask:
    """A task that has ended, whether something still refers to it or not.

    Attributes:
        origin: Where it came from.
        name: Its name; "" if the task ended well and nobody ever set or read its name.
        state: How it ended.
        error: The error with which it failed. Its traceback holds the local variables of its frames.
        waited_at: File and line at which a dropped task was waiting. If the garbage collector destroyed its
            coroutine first, this is the place noted at the end of its cell, or else the only line at which
            the coroutine's own code can wait. None if unknown.
    """

    origin: Origin
    name: str
    state: TaskState
    error: BaseException | None = None
    waited_at: tuple[str, int] | None = None

    @classmethod
    def of(cls, task: TrackedTask) -> EndedTask:
        """Return how *task*, done or being destroyed, has ended. Does not mark its error as retrieved."""
        if not task.done():
            noted = ledger_of(task.get_loop()).places.get(task.number)
            place = waiting_place(task) or noted or only_line_of(task.coro)
            return cls(task.origin, task.get_name(), "dropped", waited_at=place)
        error = error_of(task)
        if task.cancelled():
            return cls(task.origin, task.get_name(), "cancelled")
        return cls(task.origin, task.get_name(), "returned" if error is None else "raised", error)


def waiting_place(task: asyncio.Task[Any]) -> tuple[str, int] | None:
    """Return file and line of the user's innermost frame in which *task* waits; None if there is none."""
    if waited_future(task) is None:
        return None
    return line_where_suspended(task.get_coro())


class History:
    """Keeps the tasks that have ended most recently. The failed ones have a list of their own.

    The finalizer of a task that ended well stores a tuple, which takes 0.15 us. Call all methods
    but `add_failed` in the loop's thread.

    Args:
        finished: How many returned or cancelled tasks to keep; 0 keeps none.
        failed: How many failed tasks to keep; 0 keeps none.
    """

    def __init__(self, *, finished: int, failed: int) -> None:
        self._failed: deque[EndedTask] = deque(maxlen=failed)
        self._finished = finished

    def start(self) -> None:
        """Begin to keep ended tasks."""
        _cpython.keep_finished(self._finished)
        tracked.on_failed.append(self.add_failed)

    def stop(self) -> None:
        """Forget all ended tasks, and keep no more."""
        _cpython.keep_finished(0)
        tracked.on_failed.remove(self.add_failed)
        self._failed.clear()

    def resize(self, *, finished: int, failed: int) -> None:
        """Change how many tasks are kept, from now on."""
        self._finished = finished
        _cpython.keep_finished(finished)
        self._failed = deque(self._failed, maxlen=failed)

    def add_failed(self, task: TrackedTask) -> None:
        """Keep a failed or dropped task. Called by its finalizer, in any thread."""
        if not task.cancelled():
            self._failed.append(EndedTask.of(task))

    def __iter__(self) -> Iterator[EndedTask]:
        """Yield the tasks that are kept, in no particular order."""
        yield from map(ended_well, self.well())
        yield from self.failed()

    def well(self) -> list[EndedWell]:
        """Return the tasks that returned or were cancelled, those first that ended first.

        Tasks of several loops are kept, and each loop counts its own. So two of them may have one number.
        """
        return list(_cpython.finished)

    def failed(self) -> list[EndedTask]:
        """Return the tasks that failed or were dropped, those first that ended first."""
        return list(self._failed)


#: What the finalizer has stored of a task that returned or was cancelled, its number first. Always the same
#: object. `ended_well` makes an `EndedTask` of it.
EndedWell = tuple[Any, ...]


def ended_well(kept: EndedWell) -> EndedTask:
    """Return the task of which the finalizer has stored *kept*."""
    *origin, name, _state = kept
    return EndedTask(Origin._make(origin), name or "", state_of(kept))


def coro_of(kept: EndedWell) -> object:
    """Return the coroutine of that task."""
    return kept[_CORO]


def spawned_at_of(kept: EndedWell) -> float:
    """Return when that task was spawned, in monotonic seconds."""
    return float(kept[_SPAWNED_AT])


def state_of(kept: EndedWell) -> TaskState:
    """Return how that task has ended."""
    return "cancelled" if kept[-1] == "CANCELLED" else "returned"


_CORO, _SPAWNED_AT = Origin._fields.index("coro"), Origin._fields.index("spawned_at")


#: How many tasks `BlockedTimes` remembers: the last ones that have blocked the loop.
_BLOCKED = 1_000


class BlockedTimes:
    """For how long each task has blocked the loop. Any thread may read; only one may add.

    Attributes:
        seconds: Seconds, by the number of the task. Always the same dictionary; do not change it.
    """

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}

    def add(self, number: int, seconds: float) -> None:
        """Note that the task with that number has blocked the loop for *seconds* more."""
        self.seconds[number] = self.seconds.pop(number, 0.0) + seconds
        if len(self.seconds) > _BLOCKED:
            del self.seconds[next(iter(self.seconds))]

    def of(self, number: int) -> float:
        """Return the seconds for which that task has blocked the loop."""
        return self.seconds.get(number, 0.0)
