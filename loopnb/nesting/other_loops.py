"""Run another loop in a thread while the thread's own loop is set aside.

Asyncio refuses to run a loop inside another one. For the running loop itself, a nested run is the answer. For
*another* loop, we pretend that the thread's own loop is not running. A library that creates and runs its own
loop then works as it does in a script. The loop set aside makes no progress until the other one has ended.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from loopnb.frames import users_place
from loopnb.nesting import _cpython, no_loop
from loopnb.nesting.scope import engine_for, engine_of, is_wanted
from loopnb.patching import MethodWrapper

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

# Process-wide: a loop may be set aside without any session, and for longer than a session lasts.
#: Loop -> file and line of the call that set it aside.
_set_aside: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[str, int]] = WeakKeyDictionary()


def set_aside_by(loop: asyncio.AbstractEventLoop) -> tuple[str, int] | None:
    """Return file and line of the call that set *loop* aside, or None. Any thread."""
    return _set_aside.get(loop)


@contextmanager
def aside(
    running: asyncio.AbstractEventLoop,
    other: asyncio.AbstractEventLoop | None,
    place: tuple[str, int] | None = None,
) -> Iterator[None]:
    """Set the running loop aside while *other* runs in this thread.

    Args:
        running: The running loop of this thread.
        other: The loop that is about to run; None if it does not exist yet.
        place: File and line of the call that sets *running* aside; None for the user's innermost line.
    """
    if other is not None and other.is_running():
        yield  # it runs in another thread or below us: asyncio's own error says so
        return
    _set_aside[running] = place or users_place()
    try:
        with _cpython.set_aside(running):
            if (engine := engine_of(running)) is not None:
                engine.note_set_aside()
            yield
    finally:
        _set_aside.pop(running, None)


def run_aside(run_loop: Callable[..., Any], loop: asyncio.AbstractEventLoop, *args: Any) -> Any:
    """Call `run_loop(*args)`, a method that runs *loop*, with any other running loop set aside."""
    if no_loop.hidden_loop() is not None:
        with no_loop.lifted():
            return run_aside(run_loop, loop, *args)
    running = _cpython.running_loop()
    if running is None or running is loop:
        return run_loop(*args)
    with aside(running, loop):
        return run_loop(*args)


def wrapper_aside(kind: type, name: str) -> MethodWrapper:
    """Return a wrapper with which a loop of *kind* runs inside *other* loops.

    Use it for classes whose loops cannot nest in themselves. A loop that is asked to do so raises an error
    that says why.

    Args:
        kind: The loop class.
        name: Its method that runs the loop.
    """

    def run(run_loop: Callable[..., Any], self: asyncio.AbstractEventLoop, *args: Any) -> Any:
        if _cpython.running_loop() is self and is_wanted(self):
            engine_for(self, f"{name}()")  # always raises, and says why
        return run_aside(run_loop, self, *args)

    return MethodWrapper(kind, name, run)
