"""Where no stack can be parked, and why a nested run was refused.

This module stands apart from `engine.py`: it looks at other people's code on the stack, and knows nothing of
waits and drivers.

The wish. A nested run may begin anywhere, except where parking the stack would break something.

There are two such places. First, a signal handler or a finalizer runs wherever Python happens to be: even in
the middle of a change to the loop's timers or its selector, or between two lines of the loop's own pass. If
the stack is parked there, other handles run and find the change half made. Second, a finalizer may run below
the garbage collector. CPython keeps the heads of the collector's lists in the C stack frame of the
collection. While that stack is parked, its memory belongs to other stacks, and garbage that dies meanwhile
writes into it. That crashes CPython 3.11 to 3.14.

We recognise both before the nested run begins: the first by the code objects on the stack, from the caller
outwards, and the second by the collector's own callbacks.

What it cannot do. It looks through 64 frames at most. If a finalizer spawns an eager task between two
handles, the first step of that task is mistaken for a step begun by the loop.

Checked on CPython 3.11.7, 3.12.1, 3.13.0, 3.14.10 and 3.15.2. If Python lacks one of the names, the place
that it marks is not recognised.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import selectors
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from loopnb.errors import NestingError
from loopnb.frames import outwards
from loopnb.nesting._cpython import HANDLE_RUN_CODE, RUN_ONCE_CODE, frame_at, turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

_F = TypeVar("_F", bound="Callable[..., object]")


# -- below the garbage collector -----------------------------------------------------------------
#
# Python calls each of `gc.callbacks` with a phase, "start" or "stop", and a dictionary made for that phase.
# The callbacks have to be C functions: in a Python function Python would raise a pending KeyboardInterrupt,
# and the collector would swallow it. So each callback is `setattr` bound to an object: it sets the attribute
# named "start" or "stop".
#
# `_latest` remembers the latest phase of any thread, because `stop` is a second name for its slot `start`.
# `_here` remembers the latest "start" of this thread. Both hold the same dictionary only while this thread
# collects.


class _Latest:
    """The dictionary of the latest phase in any thread."""

    __slots__ = ("start",)
    start: object


_Latest.stop = _Latest.start  # type: ignore[attr-defined,misc]  # another name for it is the point


class _Here(threading.local):
    """The dictionaries of the latest "start" and of the latest "stop" in this thread."""

    start: object = None


# They belong to the process, as the collector does.
_latest, _here = _Latest(), _Here()
_latest.start = "nothing yet"
_callbacks = (partial(setattr, _latest), partial(setattr, _here))


def watch() -> None:
    """Watch the garbage collector from now on. Does nothing the second time. Any thread."""
    if _callbacks[0] not in gc.callbacks:
        gc.callbacks.extend(_callbacks)


def unwatch() -> None:
    """Stop watching the garbage collector. Any thread."""
    gc.callbacks[:] = [callback for callback in gc.callbacks if callback not in _callbacks]


def is_collecting() -> bool:
    """Return True if the calling thread is in a finalizer that the garbage collector has called."""
    return _latest.start is _here.start


# -- in asyncio's own code, and in ours ----------------------------------------------------------

# Code is rarely further away from the handle that has called it. Deeper stacks are not looked through.
_DEEPEST = 64

# Flags of a coroutine. The search ends at the frame of one: only the loop calls coroutines, while signal
# handlers, finalizers and comparisons are plain functions. To search the whole stack would take longer than
# the switch.
_STEPPED = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def _codes_of(owner: type, *names: str) -> Iterator[CodeType]:
    for name in names:
        code = getattr(vars(owner).get(name), "__code__", None)
        if code is not None:
            yield code


# The timers are a heap, and `heapq` is written in C: while the heap changes, the comparison of two timers is
# the only Python code that runs.
_TIMERS = {
    id(code): "the loop's timers are being changed"
    for code in _codes_of(asyncio.TimerHandle, "__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__hash__")
}
_SELECTORS = {
    id(code): "the loop's selector is being changed"
    for kind in vars(selectors).values()
    if inspect.isclass(kind) and issubclass(kind, selectors.BaseSelector)
    for code in _codes_of(kind, "register", "unregister", "modify")
}
#: Why no stack can be parked below a frame, by the id of its code. Hashing a code object would be slow. It
#: belongs to the process: the codes are those of functions of modules, ours and asyncio's.
_FORBIDDEN = _TIMERS | _SELECTORS | {id(turn.__code__): "the loop is between two handles"}


def forbid_nesting(reason: str) -> Callable[[_F], _F]:
    """Let no nested run begin in the decorated function or in what it calls, except in handles that it runs.

    Args:
        reason: What is under way there, as a clause. It becomes part of the error.
    """

    def decorate(function: _F) -> _F:
        _FORBIDDEN[id(function.__code__)] = reason
        return function

    return decorate


def why_not_here(depth: int = 0) -> str | None:
    """Return why no stack can be parked where this is called, or None if one can. Any thread.

    Args:
        depth: How many frames to skip, from the caller outwards. Looking at a frame costs time.
    """
    if is_collecting():
        return "garbage is being collected"
    frame: FrameType | None = frame_at(depth + 1)
    called: CodeType | None = None
    for _ in range(_DEEPEST):
        if frame is None:
            return None
        code = frame.f_code
        if code.co_flags & _STEPPED or code is HANDLE_RUN_CODE:
            return None
        if code is RUN_ONCE_CODE:
            # In select nothing is half done. When the stack resumes, the engine wakes the selector.
            is_selecting = called is not None and called.co_name == "select"
            return None if is_selecting else "the loop is between two handles"
        if id(code) in _FORBIDDEN:
            return _FORBIDDEN[id(code)]
        called = code
        frame = frame.f_back
    return None


def is_called_by_tk() -> bool:
    """Return True if Tk has called the code that runs now, directly or not. Any thread.

    Tk calls each callback through a function of `tkinter`, so its frame is further out on the stack.
    """
    tkinter = sys.modules.get("tkinter")
    if tkinter is None:
        return False
    for frame in outwards(frame_at(1)):
        if frame.f_code is HANDLE_RUN_CODE:
            return False
        if frame.f_globals is tkinter.__dict__:
            return True
    return False


# -- the errors ----------------------------------------------------------------------------------


def refusal(*, is_removed: bool, is_closing: bool) -> NestingError:
    """Return the error for a nested run that cannot begin where this is called. Its `.reason` says why.

    Args:
        is_removed: The engine is being taken off its loop.
        is_closing: The loop is being closed.
    """
    if is_removed:
        return NestingError(
            "nesting is being switched off",
            "Run '%loopnb nesting handoff', or loopnb.nesting.apply(), to switch it on.",
        )
    if is_closing:
        return NestingError("the loop is being closed", "Use `await` in code that cleans up.")
    return NestingError(
        f"a finalizer or a signal handler has interrupted the loop while {why_not_here()}",
        "Spawn a task there, or use `loop.add_signal_handler()`.",
    )


def result_needs_loop() -> NestingError:
    """Return the error for a wait in a loop's own thread for a result of that loop, while nesting is off."""
    return NestingError(
        "nesting is off here, and this thread's loop has to go on to bring that result",
        "Use `await asyncio.wrap_future(future)`. Or switch nesting on: '%loopnb nesting handoff' does that "
        "in a notebook, loopnb.nesting.apply() in a script.",
    )


def passes_on_top(parked: int) -> NestingError:
    """Return the error for a pass that was begun inside another pass, as nest_asyncio does.

    Args:
        parked: How many stacks are parked on the loop.
    """
    return NestingError(
        f"loopnb still turns this loop, and nothing can run on top of it; stacks still parked: {parked}",
        "Let their nested runs end, or cancel them. loopnb.nesting.apply() allows nested runs again.",
    )


def parked_elsewhere(parked: int) -> NestingError:
    """Return the error for a run in one thread while stacks of the loop are parked in another.

    Args:
        parked: How many stacks are parked there.
    """
    return NestingError(
        f"{parked} stacks of this loop are parked in another thread",
        "Let their nested runs end there before running the loop in this one.",
    )


def beside_other_loop(*, is_home: bool) -> NestingError:
    """Return the error for a run on the notebook's loop that was requested inside another loop.

    Args:
        is_home: The other loop runs in the thread of the notebook's loop.
    """
    remedy = "Use `await` with a coroutine of this thread's loop"
    if is_home:
        reason = "another loop runs in this thread, and the notebook's loop waits until it ends"
        return NestingError(reason, f"{remedy}.")
    return NestingError(
        "this thread runs an event loop of its own",
        f"{remedy}, or call loopnb.run() from a thread without one, such as "
        "asyncio.to_thread(loopnb.run, coro).",
    )
