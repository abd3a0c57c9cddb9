"""What a stack leaves while it is parked, so that others may have it, and takes up again."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from loopnb.internals import asyncio_state as state
from loopnb.internals import contexts
from loopnb.internals.patching import Patch
from loopnb.nesting.foreign_greenlets import ForeignGreenlets

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from greenlet import greenlet

    from loopnb.nesting.handoff import Handoff
    from loopnb.nesting.waits import Wait


class Absences:
    """Has parked stacks leave their task, Contexts and handle, and take them up again.

    Args:
        engine: The engine of the loop.
        outermost: The class of greenlet on which nothing stands but a pass of the loop.

    Attributes:
        parked_time: How long each handle has been parked.
    """

    def __init__(self, engine: Handoff, outermost: type[greenlet]) -> None:
        self.parked_time = ParkedTime(engine.loop)
        self._loop = engine.loop
        self._outermost = outermost
        self._foreign = ForeignGreenlets(engine, outermost)

    def begin(self, wait: Wait) -> None:
        """Have the calling stack, that of *wait*, leave everything. Broken off, `end` mends it."""
        loop, task, stack = self._loop, wait.task, wait.stack
        handle = state.current_handle(loop)
        if handle is not None:
            self.parked_time.watch()
            wait.parked_at = monotonic()
            wait.handle = handle
            state.set_current_handle(loop, None)
        if task is not None:
            wait.left_task = task
            state.leave_task(loop, task)
        left = wait.left_contexts = []
        contexts.leave(stack, left)
        if type(stack) is not self._outermost:
            wait.left_below = contexts.LeftBelow()
            wait.left_below.leave(self._outermost)
            self._foreign.begin(wait)

    def end(self, wait: Wait) -> None:
        """Have the calling stack take up what it has left. Broken off, it can be done again."""
        if wait.left_below is not None:
            self._foreign.end(wait)
            wait.left_below.enter()
        if wait.left_contexts:
            contexts.enter(wait.left_contexts)
        if (task := wait.left_task) is not None:
            wait.left_task = None
            state.enter_task(self._loop, task)
        if wait.handle is not None:
            state.set_current_handle(self._loop, wait.handle)
            self.parked_time.add(wait.handle, monotonic() - wait.parked_at)
            wait.handle = None


class ParkedTime:
    """Keeps the debug mode's "Executing ... took N seconds" from counting time spent parked.

    The loop takes the time of a handle itself, in a local variable, and compares it with
    `slow_callback_duration`. That number becomes one whose comparison makes the allowance.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Any = loop  # `slow_callback_duration` is documented, and missing in the stubs
        self._seconds: WeakKeyDictionary[asyncio.Handle, float] = WeakKeyDictionary()
        self._patch: Patch | None = None

    def watch(self) -> None:
        """Make the allowance from now on, whatever the user has set the duration to."""
        limit = self._loop.slow_callback_duration
        if not isinstance(limit, _PatientDuration):
            self._patch = Patch(self._loop, "slow_callback_duration", _PatientDuration.of(limit, self._take))
            self._patch.install()

    def add(self, handle: asyncio.Handle, seconds: float) -> None:
        """Count *seconds* that *handle* was parked."""
        self._seconds[handle] = self._seconds.get(handle, 0.0) + seconds

    def restore(self) -> None:
        """Make no allowance any more."""
        if self._patch is not None:
            self._patch.restore()
            self._patch = None

    def _take(self) -> float:
        handle = state.current_handle(self._loop)
        return self._seconds.pop(handle, 0.0) if handle is not None else 0.0


class _PatientDuration(float):
    """A `slow_callback_duration` in seconds; parked time is not held against a handle."""

    allowance: Callable[[], float]

    @classmethod
    def of(cls, seconds: float, allowance: Callable[[], float]) -> _PatientDuration:
        duration = cls(seconds)
        duration.allowance = allowance
        return duration

    def __le__(self, taken: float) -> bool:
        # Called for `taken >= duration`: a subclass on the right-hand side is asked first.
        return float(self) <= taken - self.allowance()
