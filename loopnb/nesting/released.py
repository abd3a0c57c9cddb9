"""Leaving and re-entering the `contextvars.Context` objects that a stack is inside of."""

from __future__ import annotations

import contextlib
import ctypes
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from loopnb.nesting import _cpython
from loopnb.nesting._cpython import running_loop
from loopnb.nesting.greenlets import getcurrent, settrace
from loopnb.patching import Patch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator
    from contextvars import Context

    from greenlet import greenlet

    from loopnb.nesting.engine import Handoff, Wait

# Public C API without a Python name; checked on CPython 3.11.7, 3.12.1, 3.13.0 and 3.14.10.
_exit_context = ctypes.pythonapi.PyContext_Exit
_exit_context.argtypes = [ctypes.c_void_p]  # with the `id`, in two thirds of the time of py_object
_exit_context.restype = None  # an error is raised without looking at it
_enter_context = ctypes.pythonapi.PyContext_Enter
_enter_context.argtypes = [ctypes.c_void_p]
_enter_context.restype = None


# A signal handler may raise in here. CPython looks for signals when a call ends, when a function
# begins and at a jump backwards. So there is none of these between the lines that say what is to be
# entered again and the calls that make it so.


def leave(this: greenlet, left: list[Context]) -> None:
    """Leave every Context that *this*, the calling stack, is inside of. Others may enter them then.

    Args:
        this: The stack.
        left: What to `enter` again, on the same stack, is added here; the innermost comes first.
    """
    while (context := this.gr_context) is not None:
        address = id(context)
        left += [context]
        try:
            _exit_context(address)
        except RuntimeError:
            # The context a thread starts with is in force without ever having been entered.
            del left[-1]
            break


def enter(left: list[Context]) -> None:
    """Enter again what the calling stack has left, and take it off the list."""
    while left:
        context = left[-1]
        address = id(context)
        del left[-1]
        _enter_context(address)


class LeftBelow:
    """The Contexts of the greenlets that the calling one stands on. Others may enter them until `enter`.

    A greenlet that somebody else started on a stack has Contexts of its own; those below it stay
    entered, so they are left, too.
    """

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: list[tuple[greenlet, list[Context]]] = []

    def leave(self, outermost: type[greenlet]) -> None:
        """Leave them, but for those below a stack of the class *outermost*: only a pass is there."""
        this = below = getcurrent()
        while not isinstance(below, outermost) and (below := below.parent) is not None:
            if below.gr_context is not None:
                self._left.append((below, []))
                with _in_place_of(this, below):
                    leave(this, self._left[-1][1])

    def enter(self) -> None:
        """Enter them again. On the same stack."""
        while self._left:
            below, left = self._left[-1]
            with _in_place_of(getcurrent(), below):
                enter(left)
            self._left.pop()


@contextmanager
def _in_place_of(this: greenlet, below: greenlet) -> Iterator[None]:
    # The C API leaves the Context in force, so those of another stack are put in force for this.
    own, this.gr_context = this.gr_context, below.gr_context
    try:
        yield
    finally:
        below.gr_context, this.gr_context = this.gr_context, own


# -- absence ------------------------------------------------------------
#
# What a stack leaves while it is parked, so that others may have it, and takes up again.


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
        handle = _cpython.current_handle(loop)
        if handle is not None:
            self.parked_time.watch()
            wait.parked_at = monotonic()
            wait.handle = handle
            _cpython.set_current_handle(loop, None)
        if task is not None:
            wait.left_task = task
            _cpython.leave_task(loop, task)
        left = wait.left_contexts = []
        leave(stack, left)
        if type(stack) is not self._outermost:
            wait.left_below = LeftBelow()
            wait.left_below.leave(self._outermost)
            self._foreign.begin(wait)

    def end(self, wait: Wait) -> None:
        """Have the calling stack take up what it has left. Broken off, it can be done again."""
        if wait.left_below is not None:
            self._foreign.end(wait)
            wait.left_below.enter()
        if wait.left_contexts:
            enter(wait.left_contexts)
        if (task := wait.left_task) is not None:
            wait.left_task = None
            _cpython.enter_task(self._loop, task)
        if wait.handle is not None:
            _cpython.set_current_handle(self._loop, wait.handle)
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
        handle = _cpython.current_handle(self._loop)
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


# -- foreign_greenlets ------------------------------------------------------------
#
# Other people's greenlets, in which a library runs synchronous code that awaits (SQLAlchemy).
#
# Such a greenlet awaits by a switch to its parent: the stack that was the loop's when it was made. Here
# that is a driver, which is idle by then and passes on what it is given to whoever turns the loop.
#
# But while one of them is parked in a nested run, its driver stands in the library's own code and waits
# for it there. A second one with the same parent would be taken for the first. So as long as any is
# parked, each that is switched to gets for its parent the driver that turns the loop then. It takes a
# trace function, which makes every switch slower: hence only then.


class ForeignGreenlets:
    """Keeps them attached to the loop while some are parked. The loop's thread.

    Args:
        engine: The engine of the loop.
        driver: The class of its own greenlets.
    """

    def __init__(self, engine: Handoff, driver: type[greenlet]) -> None:
        self._engine = engine
        self._driver = driver
        self._parked: set[Wait] = set()
        self._before: Callable[[str, tuple[Any, Any]], object] | None = None

    def begin(self, wait: Wait) -> None:
        """Note that the stack of *wait*, which is one of them, is about to park."""
        if not self._parked:
            self._before = settrace(self._attach)
        self._parked.add(wait)
        # It was perhaps stepped before there was a trace function.
        stack: Any = wait.stack
        while stack is not None and not isinstance(stack.parent, self._driver):
            stack = stack.parent
        if stack is not None:
            self._attach_to_turning(stack)

    def end(self, wait: Wait) -> None:
        """Note that it goes on. Does nothing a second time."""
        self._parked.discard(wait)
        if not self._parked:
            self._stop()

    def _stop(self) -> None:
        if (present := settrace(self._before)) != self._attach:
            settrace(present)  # somebody else's, put in since or put back by us

    def _attach(self, event: str, stacks: tuple[Any, Any]) -> None:
        _origin, target = stacks
        if (
            target is not self._engine.handed_to  # the engine's own switch: it goes on where it parked
            and isinstance(target.parent, self._driver)
            and not isinstance(target, self._driver)
            and running_loop() is self._engine.loop  # not those of another loop, which this one is aside for
        ):
            self._attach_to_turning(target)
        if not self._parked:
            self._stop()  # somebody has put it back in, who found it there
        if self._before is not None:
            self._before(event, stacks)

    def _attach_to_turning(self, stack: greenlet) -> None:
        turning = self._engine.turning
        if turning is not None:
            with contextlib.suppress(ValueError):  # the driver stands on it
                stack.parent = turning
