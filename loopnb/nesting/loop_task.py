"""The task class of the engine: `cancel()` reaches a task while its stack is parked.

Tasks of other classes work too, see `engine.UnawareTasks`. This class only makes cancelling fast and exact.

Call everything in the loop's thread. Nothing here blocks.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from loopnb._cpython import cancelling_of, stock_cancelling
from loopnb.frames import is_ours

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from weakref import WeakSet


class Parked(Protocol):
    """What a task must know of the wait in which its stack is parked."""

    stack: Any

    def cancel(self, msg: Any) -> None:
        """Cancel the awaited future. If it is done already, let the wait end in CancelledError."""


class LoopTask(asyncio.Task[Any]):
    """A C task whose `cancel()` reaches it while its stack is parked in a nested run.

    A stock task in the middle of a step only notes a cancel request, and delivers it at the next await. While
    the step is parked there is a better place to deliver it: the future that the step waits for.

    The slots stay unset until they are needed. A constructor that sets them would make every spawn 13 to 15 %
    slower (CPython 3.11 and 3.13), nested or not.

    Attributes:
        parked: The wait in which this task is parked. Set by the engine; None or unset while it is not
            parked.
        delivered: How many cancel requests went to nested waits and were not taken back. The C task does not
            know of them.
        live_repr: Returns the repr of this task. While it is unset, asyncio's repr is used. See `show_as`.
    """

    __slots__ = ("delivered", "live_repr", "parked")

    delivered: int
    live_repr: Callable[[LoopTask], str]
    parked: Parked | None

    def __repr__(self) -> str:
        try:
            return self.live_repr(self)
        except AttributeError:
            return super().__repr__()

    def show_as(self, live_repr: Callable[[LoopTask], str]) -> None:
        """Have *live_repr* make the repr of this task from now on."""
        self.live_repr = live_repr

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

        The coroutine of a parked task counts as executing, and the `f_back` of its frame leads outwards, to
        the loop. But a reader wants to know where the task waits. So we return the frames from the coroutine
        inwards.
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
        """Name the task. CPython 3.13.0 passes None if no name was given; then the default name stays."""
        if value is not None:
            super().set_name(value)


# Reprs begin with this name. The tests of asyncio and of others look for it.
LoopTask.__name__ = asyncio.Task.__name__


def wait_of(task: asyncio.Task[Any]) -> Parked | None:
    """Return the wait that *task* is parked in. None if it is not parked, or no task of ours."""
    return getattr(task, "parked", None) if isinstance(task, LoopTask) else None


def cancel_requests(task: asyncio.Task[Any]) -> int:
    """Return how often *task* was asked to end, less what it has taken back, whatever its class says."""
    if not isinstance(task, LoopTask):
        return cancelling_of(task)
    return stock_cancelling(task) + int(getattr(task, "delivered", 0))


# Both belong to no session: a runner may be open while loopnb is unloaded and loaded again.

#: The tasks spawned below an `asyncio.Runner` that runs nested. Its `close()` ends them.
runner_tasks: ContextVar[WeakSet[asyncio.Task[Any]] | None] = ContextVar("runner_tasks", default=None)
#: One entry for each such runner until it is closed. While it is empty, a spawn need not look at its Context.
open_runners: list[object] = []


def make_task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    """Make a task that `cancel()` reaches while it is parked. A task factory; the loop's thread."""
    task = LoopTask(coro, loop=loop, **options)
    if open_runners and (spawned := runner_tasks.get()) is not None:
        spawned.add(task)
    return task
