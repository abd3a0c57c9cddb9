"""Release what a stack holds while it is parked, so that others may use it. Take it back afterwards.

This module stands apart from `engine.py`: it does not decide who waits for what. It knows one stack at a
time, and the lower levels of Python: tasks, Contexts, the current handle, greenlets of other people.

A stack that is about to park holds things that only one stack can hold at a time:

*   its task, which is the loop's current task: no other task could be stepped;
*   its `contextvars.Context`s: no handle that shares one could run. If a library has started the stack in a
    greenlet of its own, the Contexts of the greenlets below it, too (`_ContextsBelow`);
*   in debug mode, its handle, which the loop times and names in reports (`_ParkedTime`);
*   if it is a library's greenlet, the driver that it has for its parent (`_OthersGreenlets`).

A signal handler may raise anywhere in here. CPython looks for signals when a function begins, when a call
ends and at a jump backwards. So a line that notes what is to be taken back comes right before the call that
releases it. None of these three lies in between. If `release` is broken off, `reacquire` takes back what was
released by then. If `reacquire` is broken off, call it again.
"""

from __future__ import annotations

import contextlib
import ctypes
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self
from weakref import WeakKeyDictionary

from loopnb.nesting import _cpython
from loopnb.nesting._cpython import running_loop
from loopnb.nesting.greenlets import Driver, getcurrent, settrace
from loopnb.patching import Patch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator
    from contextvars import Context

    from greenlet import greenlet


class Turns(Protocol):
    """What the engine tells us about who turns the loop."""

    loop: asyncio.AbstractEventLoop
    turning: greenlet | None
    handed_to: greenlet | None


class ReleasedStates:
    """What the parked stacks of one loop share. The loop's thread.

    Args:
        engine: The engine of the loop.

    Attributes:
        loop: The loop.
        parked_time: How long each handle has been parked, in debug mode.
        others_greenlets: The parked stacks that are greenlets of other people.
    """

    def __init__(self, engine: Turns) -> None:
        self.loop = engine.loop
        self.parked_time = _ParkedTime(engine.loop)
        self.others_greenlets = _OthersGreenlets(engine)


class ReleasedState:
    """What one stack has released. The loop's thread, on that very stack.

    Args:
        shared: What all parked stacks of the loop share.
    """

    __slots__ = ("_below", "_contexts", "_handle", "_parked_at", "_shared", "_task")

    def __init__(self, shared: ReleasedStates) -> None:
        self._shared = shared
        self._task: asyncio.Task[Any] | None = None
        self._contexts: list[Context] | None = None
        self._below: _ContextsBelow | None = None
        self._handle: asyncio.Handle | None = None
        self._parked_at: float

    def release(self, stack: greenlet, task: asyncio.Task[Any] | None) -> None:
        """Release all that *stack*, the calling stack, holds. It runs a step of *task*, if not None."""
        loop = self._shared.loop
        handle = _cpython.current_handle(loop)
        if handle is not None:
            self._shared.parked_time.watch()
            self._parked_at = loop.time()
            self._handle = handle
            _cpython.set_current_handle(loop, None)
        if task is not None:
            self._task = task
            _cpython.leave_task(loop, task)
        contexts = self._contexts = []
        _leave(stack, contexts)
        if type(stack) is not Driver:
            self._below = _ContextsBelow()
            self._below.leave()
            self._shared.others_greenlets.park(stack)

    def reacquire(self) -> None:
        """Take back what was released, on the same stack. Does nothing a second time."""
        if self._below is not None:
            self._shared.others_greenlets.resume(getcurrent())
            self._below.enter()
        if self._contexts:
            _enter(self._contexts)
        if (task := self._task) is not None:
            self._task = None
            _cpython.enter_task(self._shared.loop, task)
        if self._handle is not None:
            _cpython.set_current_handle(self._shared.loop, self._handle)
            self._shared.parked_time.add(self._handle, self._shared.loop.time() - self._parked_at)
            self._handle = None


# -- Contexts ------------------------------------------------------------------------------------

# Public C API without a name in Python; checked on CPython 3.11.7, 3.12.1, 3.13.0, 3.14.10 and 3.15.2.
_exit_context = ctypes.pythonapi.PyContext_Exit
_exit_context.argtypes = [ctypes.c_void_p]  # takes the `id`: two thirds of the time that py_object takes
_exit_context.restype = None  # ctypes raises the error that the function has set, whatever it returns
_enter_context = ctypes.pythonapi.PyContext_Enter
_enter_context.argtypes = [ctypes.c_void_p]
_enter_context.restype = None


def _leave(this: greenlet, left: list[Context]) -> None:
    """Leave every Context that *this*, the calling stack, is inside of, and add each to *left*."""
    while (context := this.gr_context) is not None:
        address = id(context)
        left += [context]  # not `append`: see the top of this module
        try:
            _exit_context(address)
        except RuntimeError:
            # The Context that a thread starts with is in force without ever having been entered.
            del left[-1]
            break


def _enter(left: list[Context]) -> None:
    """Enter the Contexts in *left* again, the outermost first, and empty the list. On the same stack."""
    while left:
        context = left[-1]
        address = id(context)
        del left[-1]
        _enter_context(address)


class _ContextsBelow:
    """The Contexts of the greenlets below the calling one. Others may enter them until `enter`.

    Each greenlet has Contexts of its own. If a library starts a greenlet on a stack, the Contexts of that
    stack stay entered, and have to be left as well.
    """

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: list[tuple[greenlet, list[Context]]] = []

    def leave(self) -> None:
        """Leave these Contexts, except below a driver: only a pass of the loop is there."""
        this = below = getcurrent()
        while not isinstance(below, Driver) and (below := below.parent) is not None:
            if below.gr_context is not None:
                self._left.append((below, []))
                with _in_place_of(this, below):
                    _leave(this, self._left[-1][1])

    def enter(self) -> None:
        """Enter them again, on the same stack."""
        while self._left:
            below, left = self._left[-1]
            with _in_place_of(getcurrent(), below):
                _enter(left)
            self._left.pop()


@contextmanager
def _in_place_of(this: greenlet, below: greenlet) -> Iterator[None]:
    # The C API leaves and enters on the current stack only. So the Context of *below* is made that of *this*.
    own, this.gr_context = this.gr_context, below.gr_context
    try:
        yield
    finally:
        below.gr_context, this.gr_context = this.gr_context, own


# -- the handle's time ---------------------------------------------------------------------------


class _ParkedTime:
    """Keeps the debug mode's "Executing ... took N seconds" from counting time in which a handle was parked.

    The loop keeps that time in a local variable, out of our reach, and compares it with its
    `slow_callback_duration`. So we replace that number by one whose comparison subtracts the parked time
    first.

    It would be simpler to raise the number until the pass ends. But then all handles that run meanwhile would
    be spared as well, and a handle that really blocked the loop would go unreported.

    Args:
        loop: The loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Any = loop  # `slow_callback_duration` is documented, and missing in the stubs
        self._seconds: WeakKeyDictionary[asyncio.Handle, float] = WeakKeyDictionary()
        self._patch: Patch | None = None

    def watch(self) -> None:
        """Subtract parked time from now on, whichever limit the user has set."""
        limit = self._loop.slow_callback_duration
        if not isinstance(limit, _LimitWithoutParkedTime):
            self._patch = Patch(
                self._loop, "slow_callback_duration", _LimitWithoutParkedTime(limit, self._take)
            )
            self._patch.install()

    def add(self, handle: asyncio.Handle, seconds: float) -> None:
        """Note that *handle* was parked for so many *seconds*."""
        self._seconds[handle] = self._seconds.get(handle, 0.0) + seconds

    def restore(self) -> None:
        """Put the user's limit back."""
        if self._patch is not None:
            self._patch.restore()
            self._patch = None

    def _take(self) -> float:
        handle = _cpython.current_handle(self._loop)
        return self._seconds.pop(handle, 0.0) if handle is not None else 0.0


class _LimitWithoutParkedTime(float):
    """A `slow_callback_duration` in seconds. Parked time does not count towards it.

    Args:
        seconds: The number.
        parked_time: Returns how long the handle that runs now was parked, in seconds.
    """

    def __new__(cls, seconds: float, _parked_time: Callable[[], float]) -> Self:
        return super().__new__(cls, seconds)

    def __init__(self, _seconds: float, parked_time: Callable[[], float]) -> None:
        self._parked_time = parked_time

    def __le__(self, taken: float) -> bool:
        # The loop asks `taken >= limit`. Python asks the right-hand side first if it is of a subclass.
        return float(self) <= taken - self._parked_time()


# -- greenlets of other people -------------------------------------------------------------------
#
# SQLAlchemy runs synchronous code in a greenlet and awaits in it. Such a greenlet awaits by a switch to its
# parent: the stack on which it was made. Here that is a driver. If that driver is idle by now, it forwards
# what it receives to the driver that turns the loop (`Handoff._hand_to`).
#
# But if such a greenlet is parked in a nested run, its driver stands in the library's code and waits for it
# there. A second greenlet with the same parent would be taken for the first. So while any such greenlet is
# parked, each one that is switched to gets a new parent: the driver that turns the loop at that moment. That
# takes a trace function, which makes every switch slower, so it is set only while one is parked.


class _OthersGreenlets:
    """Keeps other people's greenlets attached to the loop while some are parked. The loop's thread.

    Args:
        engine: The engine of the loop.
    """

    def __init__(self, engine: Turns) -> None:
        self._engine = engine
        self._parked: set[greenlet] = set()
        self._before: Callable[[str, tuple[Any, Any]], object] | None = None

    def park(self, stack: greenlet) -> None:
        """Note that *stack*, such a greenlet, is about to park."""
        if not self._parked:
            self._before = settrace(self._attach)
        self._parked.add(stack)
        # Somebody may have switched to *stack* before there was a trace function.
        outermost: Any = stack
        while outermost is not None and not isinstance(outermost.parent, Driver):
            outermost = outermost.parent
        if outermost is not None:
            self._attach_to_turning(outermost)

    def resume(self, stack: greenlet) -> None:
        """Note that *stack* goes on. Does nothing a second time."""
        self._parked.discard(stack)
        if not self._parked:
            self._stop()

    def _stop(self) -> None:
        if (present := settrace(self._before)) != self._attach:
            settrace(present)  # it was somebody else's, so leave it as it was

    def _attach(self, event: str, stacks: tuple[Any, Any]) -> None:
        _origin, target = stacks
        if (
            target
            is not self._engine.handed_to  # else the engine itself resumes this stack, where it has parked
            and isinstance(target.parent, Driver)
            and not isinstance(target, Driver)
            and running_loop()
            is self._engine.loop  # else it belongs to another loop, for which this loop is set aside
        ):
            self._attach_to_turning(target)
        if not self._parked:
            self._stop()  # somebody has saved this trace function and put it back since
        if self._before is not None:
            self._before(event, stacks)

    def _attach_to_turning(self, stack: greenlet) -> None:
        turning = self._engine.turning
        if turning is not None:
            with contextlib.suppress(ValueError):  # the driver was itself started on it
                stack.parent = turning
