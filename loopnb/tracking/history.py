"""Keep ended tasks in two bounded lists: the tasks that ended well, and those that failed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loopnb.frames import is_users
from loopnb.nesting._cpython import error_of
from loopnb.tracking import _cpython, tracked
from loopnb.tracking.suspended import frames_of
from loopnb.tracking.tracked import Origin

if TYPE_CHECKING:
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
        error: What it failed with; its traceback holds the local variables of its frames.
        waited_at: File and line at which a dropped task waited. None if its coroutine was destroyed first,
            as the garbage collector does.
    """

    origin: Origin
    name: str
    state: TaskState
    error: BaseException | None = None
    waited_at: tuple[str, int] | None = None

    @classmethod
    def of(cls, task: TrackedTask) -> EndedTask:
        """Return how *task* ended: it is done, or being destroyed. Its error does not count as retrieved."""
        if not task.done():
            frames = [frame for frame in frames_of(task.get_coro()) if is_users(frame.f_code)]
            place = (frames[-1].f_code.co_filename, frames[-1].f_lineno) if frames else None
            return cls(task.origin, task.get_name(), "dropped", waited_at=place)
        error = error_of(task)
        if task.cancelled():
            return cls(task.origin, task.get_name(), "cancelled")
        return cls(task.origin, task.get_name(), "returned" if error is None else "raised", error)


class History:
    """Keeps the last tasks that have ended, the failed ones longest.

    The finalizer of a task that ended well stores a tuple, which takes 0.15 us. Call all
    methods but `add_failed` in the loop's thread.

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
        """Keep a failed or pending task that nobody refers to any more. Its finalizer; any thread."""
        if not task.cancelled():
            self._failed.append(EndedTask.of(task))

    def __iter__(self) -> Iterator[EndedTask]:
        """Yield the tasks that are kept, in no particular order."""
        for *origin, name, state in list(_cpython.finished):
            was_cancelled = state == "CANCELLED"
            yield EndedTask(Origin._make(origin), name or "", "cancelled" if was_cancelled else "returned")
        yield from list(self._failed)
