"""The task class of the engine: `cancel()` reaches a task while its stack is parked."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from loopnb.frames import is_ours

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from weakref import WeakSet


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
        tell: Returns what its repr is; unset, it is asyncio's.
    """

    __slots__ = ("delivered", "parked", "tell")

    delivered: int
    parked: Parked | None
    tell: Callable[[LoopTask], str]

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
