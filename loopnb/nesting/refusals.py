"""Whether the garbage collector is at work in this thread, below a finalizer that it has called.

Such a finalizer must not be parked. CPython keeps the heads of the collector's lists in the C stack
frame of the collection, and that memory is other stacks' while this one is parked: whatever garbage
dies meanwhile writes into it. CPython 3.11 to 3.14 crash.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import gc
import inspect
import selectors
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from loopnb.errors import NestingError
from loopnb.nesting._cpython import turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType


class _Latest:
    """What `gc.callbacks` was told last: one slot, under the names of both phases."""

    __slots__ = ("start",)
    start: object


_Latest.stop = _Latest.start  # type: ignore[attr-defined,misc]  # another name for it is the point


class _Here(threading.local):
    """What it was told when the latest collection in this thread began."""

    start: object = None


_latest, _here = _Latest(), _Here()
_latest.start = "nothing yet"

# Both are called with the phase, as the name, and a dictionary that no other phase has. They are
# written in C: in a Python function Python would raise a pending KeyboardInterrupt, and the
# collector would swallow it.
_callbacks = (partial(setattr, _latest), partial(setattr, _here))


def watch() -> None:
    """Hear of collections from now on. Does nothing if it does already."""
    if _callbacks[0] not in gc.callbacks:
        gc.callbacks.extend(_callbacks)


def unwatch() -> None:
    """Hear of them no more."""
    gc.callbacks[:] = [callback for callback in gc.callbacks if callback not in _callbacks]


def is_collecting() -> bool:
    """Say whether the calling thread is inside a collection, in a finalizer."""
    return _latest.start is _here.start


# -- places ------------------------------------------------------------
#
# Places where no nested run may begin: in asyncio's own code, and below the garbage collector.
#
# A signal handler or a finalizer runs wherever Python is: also in the middle of a change to the
# loop's timers or to its selector, or between two lines of the loop's own pass. Other handles that
# ran in the meantime would find the change half made.
#
# Checked on CPython 3.11.7, 3.12.1, 3.13.0 and 3.14.10. Where a name is missing, that place is not known.


_F = TypeVar("_F", bound="Callable[..., object]")

_HANDLE_RUN = asyncio.Handle._run.__code__
_RUN_ONCE = asyncio.base_events.BaseEventLoop._run_once.__code__  # type: ignore[attr-defined]  # private

# Whoever is called from a handle is rarely further away from it. Deeper stacks are not looked through.
_DEEPEST = 64


def _codes_of(owner: type, *names: str) -> Iterator[CodeType]:
    for name in names:
        code = getattr(vars(owner).get(name), "__code__", None)
        if code is not None:
            yield code


# The comparisons are what Python code there is in a change to the heap of timers.
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
# By id: hashing a code object is slow, and these live as long as their modules.
_BUSY = _TIMERS | _SELECTORS | {id(turn.__code__): "the loop is between two handles"}


def clear_of_nesting(reason: str) -> Callable[[_F], _F]:
    """Let no nested run begin in the decorated function, nor in what it calls; but in handles that it runs.

    Args:
        reason: Says what is under way there.
    """

    def decorate(function: _F) -> _F:
        _BUSY[id(function.__code__)] = reason
        return function

    return decorate


# Neither a signal handler nor a finalizer nor a comparison is one of these: what runs there was
# stepped by the loop, so nothing further out is half done. (But for the first step of an eager task
# that a finalizer spawns.) The whole stack takes longer to look through than the switch does.
_STEPPED = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def is_called_by_tk() -> bool:
    """Say whether Tk has called, directly or not, the code that runs now.

    All that Tk calls goes through a frame of `tkinter`, and so does all that calls Tk.
    """
    tkinter = sys.modules.get("tkinter")
    if tkinter is None:
        return False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not _HANDLE_RUN:
        if frame.f_globals is tkinter.__dict__:
            return True
        frame = frame.f_back
    return False


def why_not_here(depth: int = 0) -> str | None:
    """Say why no stack can be parked in the calling place; None if it can.

    Args:
        depth: How many frames from the caller outwards need not be looked at. Each costs.
    """
    if is_collecting():
        return "garbage is being collected"
    frame: FrameType | None = sys._getframe(depth + 1)
    called: CodeType | None = None
    for _ in range(_DEEPEST):
        if frame is None:
            return None
        code = frame.f_code
        if code.co_flags & _STEPPED or code is _HANDLE_RUN:
            return None
        if code is _RUN_ONCE:
            # Waiting for events it may be interrupted: it is woken when the stack goes on.
            is_selecting = called is not None and called.co_name == "select"
            return None if is_selecting else "the loop is between two handles"
        if id(code) in _BUSY:
            return _BUSY[id(code)]
        called = code
        frame = frame.f_back
    return None


# -- refusals ------------------------------------------------------------
#
# Why there is no nested run where one is asked for.


def refusal(*, is_removed: bool, is_closing: bool) -> NestingError:
    """Say why no stack is parked here, with the reason as `.reason`.

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


def passes_on_top(parked: int) -> NestingError:
    """Say why a pass of the loop cannot begin inside another one, as nest_asyncio would have it."""
    return NestingError(
        f"loopnb has not left this loop yet, and nothing can run on top of it; stacks still parked: {parked}",
        "Let their nested runs end, or cancel them. loopnb.nesting.apply() nests beside them.",
    )


def beside_other_loop(*, is_home: bool) -> NestingError:
    """Return the error of a run on the notebook's loop that is asked for inside another one.

    Args:
        is_home: That one runs in the thread of the notebook's loop.
    """
    remedy = "Use `await` with a coroutine of this thread's loop"
    if is_home:
        reason = "another loop runs here, and the notebook's stands still until that has ended"
        return NestingError(reason, f"{remedy}.")
    return NestingError(
        "this thread runs an event loop of its own",
        f"{remedy}, or call loopnb.run() from a thread without one, such as "
        "asyncio.to_thread(loopnb.run, coro).",
    )
