"""Private state of `asyncio.Runner`. Checked on CPython 3.11.7, 3.12.1, 3.13.0 and 3.14.10."""

from __future__ import annotations

import asyncio
import asyncio.runners
import inspect
import sys
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine
    from contextvars import Context
    from types import FunctionType

_State: Any = asyncio.runners._State  # type: ignore[attr-defined]  # private

#: The stock functions, as they are looked up at import.
run = cast("FunctionType", asyncio.runners.run)  # not `asyncio.run`: some packages replace that
Runner = asyncio.Runner


def loop_classes() -> list[type[asyncio.AbstractEventLoop]]:
    """Return asyncio's own loop classes on this platform."""
    names = ("SelectorEventLoop", "ProactorEventLoop")
    return [getattr(asyncio, name) for name in names if hasattr(asyncio, name)]


def is_initialized(runner: asyncio.Runner) -> bool:
    """Say whether *runner* has its loop and was not closed yet."""
    return runner._state is _State.INITIALIZED  # type: ignore[attr-defined]  # private


def is_closed(runner: asyncio.Runner) -> bool:
    """Say whether *runner* was closed."""
    return runner._state is _State.CLOSED  # type: ignore[attr-defined]  # private


def loop_of(runner: asyncio.Runner) -> asyncio.AbstractEventLoop | None:
    """Return the loop *runner* has, without giving it one."""
    return runner._loop  # type: ignore[attr-defined,no-any-return]  # private


def context_of(runner: asyncio.Runner) -> Context:
    """Return the Context that *runner* keeps over its runs."""
    return runner._context  # type: ignore[attr-defined,no-any-return]  # private


def debug_of(runner: asyncio.Runner) -> bool | None:
    """Return the *debug* argument of *runner*."""
    return runner._debug  # type: ignore[attr-defined,no-any-return]  # private


def has_loop_factory(runner: asyncio.Runner) -> bool:
    """Say whether *runner* was given a loop factory of its own."""
    return runner._loop_factory is not None  # type: ignore[attr-defined]  # private


def initialize(runner: Any, loop: asyncio.AbstractEventLoop, context: Context) -> None:
    """Give *runner* the running loop, as `_lazy_init` gives it a new one."""
    runner._loop = loop
    runner._context = context
    runner._state = _State.INITIALIZED


def finish(runner: Any) -> None:
    """Mark *runner* closed, as the stock `close` does, without touching the loop."""
    runner._loop = None
    runner._state = _State.CLOSED


def as_coroutine(main: Awaitable[Any]) -> Coroutine[Any, Any, Any]:
    """Check the argument of `run` as the running Python does.

    Raises:
        ValueError: It is no coroutine (up to 3.13).
        TypeError: It cannot be awaited (from 3.14 on, where any awaitable will do).
    """
    if asyncio.iscoroutine(main):
        return main
    if sys.version_info < (3, 14):
        raise ValueError(f"a coroutine was expected, got {main!r}")
    if not inspect.isawaitable(main):
        raise TypeError("An asyncio.Future, a coroutine or an awaitable is required")
    return _await(main)


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
