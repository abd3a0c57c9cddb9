"""The task class that serves nesting (cancelling a parked task) and tracking (where it came from)."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextvars import ContextVar
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeGuard
from weakref import ref

from loopnb.internals.frames import is_ours

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType
    from weakref import WeakSet

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


class Parked(Protocol):
    """What a parked task needs to know of the wait it is parked in."""

    stack: Any

    def cancel(self, msg: Any) -> None:
        """Cancel what is waited for; if it is done already, let the wait end in CancelledError."""


class LoopTask(asyncio.Task[Any]):
    """A C task whose `cancel()` reaches it while its stack is parked in a nested run.

    A stock task that is in the middle of a step only notes a cancel request and delivers it at
    the next await. While the step is parked there is a better place: the future it waits for.

    Attributes:
        parked: The wait this task is parked in; None or unset otherwise.
        delivered: How many cancel requests went to nested waits and so are unknown to the C task.
        watcher: Who will hear of its end; unset otherwise.
        tell: Returns what its repr is; unset, it is asyncio's.
    """

    __slots__ = ("delivered", "parked", "tell", "watcher")

    delivered: int
    parked: Parked | None
    tell: Callable[[LoopTask], str]
    watcher: object

    def __repr__(self) -> str:
        try:
            return self.tell(self)
        except AttributeError:
            return super().__repr__()

    def cancel(self, msg: Any | None = None) -> bool:
        """Request cancellation, as `asyncio.Task.cancel` does."""
        parked = getattr(self, "parked", None)
        if parked is None:
            return super().cancel(msg)
        self.delivered = getattr(self, "delivered", 0) + 1
        parked.cancel(msg)
        return True

    def cancelling(self) -> int:
        """Return the number of pending cancel requests, as `asyncio.Task.cancelling` does."""
        return super().cancelling() + getattr(self, "delivered", 0)

    def uncancel(self) -> int:
        """Take one cancel request back, as `asyncio.Task.uncancel` does."""
        delivered: int = getattr(self, "delivered", 0)
        if not delivered:
            return super().uncancel()
        self.delivered = delivered - 1
        return self.cancelling()

    def get_stack(self, *, limit: int | None = None) -> list[FrameType]:
        """Return the frames, the newest last, as `asyncio.Task.get_stack` does.

        The coroutine of a parked task is executing, and `cr_frame.f_back` of such a one leads
        outwards, to the loop. What matters is where it waits, further in.
        """
        stack = getattr(getattr(self, "parked", None), "stack", None)
        if stack is None:
            return super().get_stack(limit=limit)
        outermost: Any = getattr(self.get_coro(), "cr_frame", None)
        frames: list[FrameType] = []
        frame: FrameType | None = stack.gr_frame
        while frame is not None:
            if frames or not is_ours(frame.f_code.co_filename):
                frames.append(frame)
            frame = None if frame is outermost else frame.f_back
        return frames[: None if limit is None else max(limit, 0)][::-1]

    def set_name(self, value: object) -> None:
        """Name the task. 3.13.0 says None where no name was given; the default name stays then."""
        if value is not None:
            super().set_name(value)


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


#: The tasks spawned below an `asyncio.Runner` that runs nested: what its `close()` has to end.
runner_tasks: ContextVar[WeakSet[asyncio.Task[Any]] | None] = ContextVar("runner_tasks", default=None)
#: One entry for each such runner until it is closed: while there is none, nobody need ask its Context.
open_runners: list[object] = []


def make_task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    """Make tasks that hear of a cancel while they are parked. A task factory."""
    task = LoopTask(coro, loop=loop, **options)
    if open_runners and (spawned := runner_tasks.get()) is not None:
        spawned.add(task)
    return task
