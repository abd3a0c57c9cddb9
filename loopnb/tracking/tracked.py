"""The task class that serves nesting (cancelling a parked task) and tracking (where it came from)."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard
from weakref import ref

from loopnb.nesting.loop_task import LoopTask

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    from loopnb.records import CellRef

    #: What is left of a task that ended well or was cancelled: an `Origin`, its name, asyncio's own state.
    Ended = tuple[
        int, float, CellRef | None, CodeType | None, int, int | None, "Run | None", Any, str | None, str
    ]

_log = logging.getLogger("loopnb")


class Run:
    """One nested `asyncio.run()`, as all tasks that were spawned in it know it.

    Args:
        number: Of its main task.
        main: That task.
        code: Of the frame that called it.
        instruction: Where in that frame.

    Attributes:
        over_since: When it was first seen to be over, in monotonic seconds; None before.
    """

    __slots__ = ("_main", "code", "instruction", "number", "over_since")

    def __init__(self, number: int, main: asyncio.Task[Any], code: CodeType, instruction: int) -> None:
        self.number = number
        self.code = code
        self.instruction = instruction
        self.over_since: float | None = None
        self._main = ref(main)

    @property
    def main(self) -> asyncio.Task[Any] | None:
        """Its main task, until that has ended."""
        main = self._main()
        return None if main is None or main.done() else main

    def is_over(self) -> bool:
        """Say whether its main task has ended."""
        return self.main is None


class Origin(NamedTuple):
    """Where a task came from.

    Attributes:
        number: Its own on its loop.
        spawned_at: Monotonic seconds.
        cell: The cell whose code spawned it.
        code: The spawn site's; None if it is not known.
        instruction: Where in that code.
        parent: The number of the task that spawned it.
        run: The nested `asyncio.run()` it was spawned in.
        coro: Its coroutine.
    """

    number: int
    spawned_at: float
    cell: CellRef | None
    code: CodeType | None
    instruction: int
    parent: int | None
    run: Run | None
    coro: Any


_origin_of = attrgetter(*Origin._fields)


class TrackedTask(LoopTask):
    """A task of a tracked loop: it tells when it is gone. The engine alone makes do without.

    Where it came from, see `Origin`, is in slots of its own: a tuple more for each task would have
    the garbage collector run more often.

    Attributes:
        known_name: Its name, if anybody has given or asked for it; None otherwise. From Python 3.12 on the
            default one is not made before, and to make it at its end would take a tenth of a spawn.
    """

    __slots__ = (*Origin._fields, "known_name")

    number: int
    spawned_at: float
    cell: CellRef | None
    code: CodeType | None
    instruction: int
    parent: int | None
    run: Run | None
    coro: Any  # as `get_coro()`, but sooner
    known_name: str | None

    @property
    def origin(self) -> Origin:
        """Where it came from."""
        return Origin._make(_origin_of(self))

    def get_name(self) -> str:
        """Return its name, as `asyncio.Task.get_name` does."""
        self.known_name = name = super().get_name()
        return name

    def set_name(self, value: object) -> None:
        """Name it, as `asyncio.Task.set_name` does."""
        if value is not None:
            super().set_name(value)
            self.get_name()

    def __del__(self) -> None:
        # All that tracking costs at a task's end. A done-callback would cost ten times as much.
        # May run in any thread. What stock does here concerns only pending and failed tasks.
        try:
            if self._exception is None and (state := self._state) != "PENDING":
                keep((
                    self.number, self.spawned_at, self.cell, self.code, self.instruction, self.parent,
                    self.run, self.coro, self.known_name, state,
                ))  # fmt: skip
            else:
                _end_badly(self)
        except (AttributeError, RuntimeError):
            return  # its spawn was interrupted, or refused


# What their reprs begin with: asyncio's own tests, and those of others, look for it.
LoopTask.__name__ = TrackedTask.__name__ = asyncio.Task.__name__


def has_origin(task: asyncio.Task[Any]) -> TypeGuard[TrackedTask]:
    """Say whether it is known where *task* came from: not if its spawn was interrupted."""
    return isinstance(task, TrackedTask) and hasattr(task, "run")


#: Tracked tasks that nobody holds any more, and that did not fail.
finished: deque[Ended] = deque(maxlen=0)
keep = finished.append
#: Called with each failed task that nobody holds any more, in whatever thread dropped it.
on_failed: list[Callable[[TrackedTask], object]] = []

_stock_finalizer = asyncio.Task.__del__


def keep_finished(count: int) -> None:
    """Keep so many of the tasks that ended well or were cancelled; 0 keeps none."""
    global finished, keep
    finished = deque(finished, maxlen=count)
    keep = finished.append


def _end_badly(task: TrackedTask) -> None:
    for tell in on_failed:
        try:
            if has_origin(task):
                tell(task)
        except Exception:  # noqa: BLE001  an observer in a finalizer
            _log.exception("keeping a failed task failed")
    _stock_finalizer(task)
