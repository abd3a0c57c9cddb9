"""What a stack leaves while it is parked, so that others may have it, and takes up again."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from loopnb.internals import asyncio_state as state
from loopnb.internals import contexts
from loopnb.internals.patching import Patch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from greenlet import greenlet


class Absence:
    """A stack's task, Contexts and handle, from the moment it is parked until `end`.

    Args:
        loop: The loop.
        task: The task whose step is parked.
        stack: The calling stack.
        parked_time: Where to count how long the handle has been parked.
        outermost: The class of greenlet on which nothing stands but a pass of the loop.
    """

    __slots__ = ("_below", "_contexts", "_handle", "_loop", "_parked_time", "_since", "_task")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        task: asyncio.Task[Any] | None,
        stack: greenlet,
        parked_time: ParkedTime,
        outermost: type[greenlet],
    ) -> None:
        self._loop = loop
        self._task = task
        self._parked_time = parked_time
        self._handle = state.current_handle(loop)
        if self._handle is not None:
            self._since = monotonic()
            parked_time.watch()
            state.set_current_handle(loop, None)
        if task is not None:
            state.leave_task(loop, task)
        self._contexts = contexts.leave(stack)
        self._below = None if type(stack) is outermost else contexts.LeftBelow(outermost)

    def end(self) -> None:
        """Take everything up again, on the same stack."""
        if self._below is not None:
            self._below.enter()
        contexts.enter(self._contexts)
        if self._task is not None:
            state.enter_task(self._loop, self._task)
        if self._handle is not None:
            state.set_current_handle(self._loop, self._handle)
            self._parked_time.add(self._handle, monotonic() - self._since)


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
