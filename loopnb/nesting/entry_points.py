"""Where nested runs begin: `asyncio.run`, `asyncio.Runner` and the loops' `run_until_complete`.

Outside a running loop each of them is the stock function, in every thread. Inside, a call for the
running loop is a nested run, and a call for *another* loop sets the running one aside meanwhile.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager
from types import CoroutineType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from loopnb.frames import users_frames, users_place
from loopnb.nesting import _cpython, closing, other_packages, runners
from loopnb.nesting.loop_task import open_runners
from loopnb.nesting.readers import once_for_each_event
from loopnb.nesting.scope import attach_before_run, engine_for, is_wanted
from loopnb.patching import CodePatch, MethodWrapper, Patch, PatchSet, looking_like

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context

    from loopnb.nesting.engine import Handoff

#: Called when a loop has been set aside: what it was asked to do it cannot do now. May raise.
when_set_aside: list[Callable[[], None]] = []
_set_aside: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[str, int]] = WeakKeyDictionary()


_submitters: list[tuple[Callable[[], bool], Callable[[Any], Any]]] = []


@contextmanager
def submitting(is_meant: Callable[[], bool], submit: Callable[[Any], Any]) -> Iterator[None]:
    """Have `asyncio.run` inside the loops of some threads go elsewhere while the block runs.

    Args:
        is_meant: Says of the calling thread, whose own loop runs, whether it is one of those.
        submit: Runs a coroutine elsewhere, waits for it and returns its result.
    """
    _submitters.append((is_meant, submit))
    try:
        yield
    finally:
        _submitters.remove((is_meant, submit))


def set_aside_by(loop: asyncio.AbstractEventLoop) -> tuple[str, int] | None:
    """Return file and line of the call that has set *loop* aside for another. Any thread."""
    return _set_aside.get(loop)


# -- what the patched names run ------------------------------------------------------------------
#
# `except ...: raise` does not put its own frame back into the traceback, so once the frames below
# it are cut off, an error looks as if it had come straight out of the user's coroutine.


def _run_with_factory(main: Any, *, debug: Any = None, loop_factory: Any = None) -> Any:
    try:
        from loopnb import frames
        from loopnb.nesting import entry_points

        return entry_points.nested_or_stock_run(main, debug, {"loop_factory": loop_factory})
    except BaseException as error:
        from loopnb import frames
        from loopnb.nesting import entry_points

        error.__traceback__ = frames.users_frames(error.__traceback__)
        raise


def _run_plain(main: Any, *, debug: Any = None) -> Any:
    try:
        from loopnb import frames
        from loopnb.nesting import entry_points

        return entry_points.nested_or_stock_run(main, debug, {})
    except BaseException as error:
        from loopnb import frames
        from loopnb.nesting import entry_points  # again: it may be the import that was interrupted

        error.__traceback__ = frames.users_frames(error.__traceback__)
        raise


def _run_until_complete(self: _cpython.BaseEventLoop, future: Any) -> Any:
    try:
        running = _cpython.running_loop()
        if running is None:
            return _stock_run_until_complete(self, future)
        if running is self:
            return _nested_run_until_complete(self, future)
        with aside(running, self):
            return _stock_run_until_complete(self, future)
    except BaseException as error:
        error.__traceback__ = users_frames(error.__traceback__)
        raise


def _run_forever(run_loop: Callable[[], None], self: asyncio.AbstractEventLoop) -> None:
    if not self.is_running():
        attach_before_run(self)
        closing.end_with_thread(self)
    _run_aside(run_loop, self)


def _runner_run(self: asyncio.Runner, coro: Any, *, context: Context | None = None) -> Any:
    try:
        running = _cpython.running_loop()
        if running is None:
            return _stock_runner_run(self, coro, context=context)
        if _has_own_loop(self, running):
            with aside(running, _cpython.loop_of(self)):
                return _stock_runner_run(self, coro, context=context)
        return _nested_runner_run(self, running, coro, context)
    except BaseException as error:
        error.__traceback__ = users_frames(error.__traceback__)
        raise


def _runner_lazy_init(self: asyncio.Runner) -> None:
    running = _cpython.running_loop()
    if running is None or _cpython.is_closed(self) or _cpython.is_initialized(self):
        _stock_lazy_init(self)
    elif _has_own_loop(self, running):
        with aside(running, None):
            _stock_lazy_init(self)
    else:
        other_packages.catch_up()  # it may be the runner of anyio's tests, whose plugin pytest has imported
        runners.begin(self, running)


def _runner_get_loop(self: asyncio.Runner) -> asyncio.AbstractEventLoop:
    loop = _stock_get_loop(self)
    runners.ask(self)
    return loop


def _runner_close(self: asyncio.Runner) -> None:
    running = _cpython.running_loop()
    if runners.is_nested(self):
        runners.close(self)
    elif running is not None and _cpython.is_initialized(self):
        with aside(running, _cpython.loop_of(self)):
            _stock_close(self)
    else:
        _stock_close(self)


def _close(close_loop: Callable[[], None], self: asyncio.AbstractEventLoop) -> None:
    if not self.is_running() and not self.is_closed():
        closing.end_waits(self)
    close_loop()


_stock_run_until_complete = _cpython.BaseEventLoop.run_until_complete
_stock_runner_run = _cpython.Runner.run
_stock_lazy_init = _cpython.Runner._lazy_init  # type: ignore[attr-defined]  # the patched name
_stock_get_loop = _cpython.Runner.get_loop
_stock_close = _cpython.Runner.close

_run_patch = CodePatch(_cpython.run, _run_plain if sys.version_info < (3, 12) else _run_with_factory)


def _method_patch(kind: type, name: str, replacement: Callable[..., Any]) -> Patch:
    return Patch(kind, name, looking_like(getattr(kind, name), replacement))


patches = PatchSet(
    _run_patch,
    _method_patch(_cpython.Runner, "run", _runner_run),
    _method_patch(_cpython.Runner, "_lazy_init", _runner_lazy_init),
    _method_patch(_cpython.Runner, "get_loop", _runner_get_loop),
    _method_patch(_cpython.Runner, "close", _runner_close),
    _method_patch(_cpython.BaseEventLoop, "run_until_complete", _run_until_complete),
    once_for_each_event(),
    MethodWrapper(_cpython.BaseEventLoop, "run_forever", _run_forever),
    *(MethodWrapper(kind, "close", _close) for kind in _cpython.loop_classes()),
)


# -- nested runs ---------------------------------------------------------------------------------


def nested_or_stock_run(main: Any, debug: bool | None, options: dict[str, Any]) -> Any:
    """Do what `asyncio.run` is asked for, nested if a loop runs in this thread."""
    running = _cpython.running_loop()
    if running is None:
        return _run_patch.original_function(main, debug=debug, **options)
    if options.get("loop_factory") is not None:
        with aside(running, None):
            return _run_patch.original_function(main, debug=debug, **options)
    for is_meant, submit in _submitters:
        if is_meant():
            return submit(_cpython.as_coroutine(main))
    engine = engine_for(running, "asyncio.run()")
    coro = _cpython.as_coroutine(main)
    if debug is None:
        return _run_on(engine, running.create_task(coro))
    with runners.debug_requests.during(running, debug):
        return _run_on(engine, running.create_task(coro))


def run_nested(loop: asyncio.AbstractEventLoop, task: asyncio.Future[Any]) -> Any:
    """Wait for *task* on *loop*, the running one, and return its result; cancel it if the wait fails."""
    return _run_on(engine_for(loop, "a nested run"), task)


def _run_on(engine: Handoff, task: asyncio.Future[Any], owned: bool = True) -> Any:
    try:
        engine.wait(task, owned)
    except BaseException:
        if owned and not task.done():
            task.cancel()
        elif owned and not task.cancelled():
            task.exception()  # seen: what the wait raises instead is what the caller gets
        raise
    return task.result()


def _nested_run_until_complete(loop: asyncio.AbstractEventLoop, future: Any) -> Any:
    engine = engine_for(loop, "run_until_complete()")
    is_new = True
    if type(future) is CoroutineType and not open_runners:
        future = loop.create_task(future)  # nearly always: what `ensure_future` makes of it, sooner
    else:
        is_new = not asyncio.isfuture(future)
        if future is _cpython.current_task(loop):
            raise RuntimeError(f"Task cannot await on itself: {future!r}")
        future = runners.ensure_future(future, loop)
    if is_new:
        _cpython.silence_destroyed_warning(future)
    return _run_on(engine, future, is_new)


def _has_own_loop(runner: asyncio.Runner, running: asyncio.AbstractEventLoop) -> bool:
    if _cpython.is_initialized(runner):
        return _cpython.loop_of(runner) is not running
    return _cpython.has_loop_factory(runner)


def _nested_runner_run(
    runner: asyncio.Runner, loop: asyncio.AbstractEventLoop, coro: Any, context: Context | None
) -> Any:
    engine = engine_for(loop, "Runner.run()")
    if sys.version_info < (3, 14):
        coro = _cpython.as_coroutine(coro)
        _stock_get_loop(runner)
    else:
        _stock_get_loop(runner)
        coro = _cpython.as_coroutine(coro)
    with runners.spawning(runner, context):
        task = loop.create_task(coro, context=context or _cpython.context_of(runner))
        runners.own(runner, task)
        return _run_on(engine, task)


# -- other loops ---------------------------------------------------------------------------------


@contextmanager
def aside(
    running: asyncio.AbstractEventLoop,
    other: asyncio.AbstractEventLoop | None,
    place: tuple[str, int] | None = None,
) -> Iterator[None]:
    """Set the running loop aside while *other* runs in this thread, as it would without a kernel.

    *place* is the file and line that did so; None for where the caller is.
    """
    if other is not None and other.is_running():
        yield  # it runs elsewhere, or below us: the stock error says so
        return
    _set_aside[running] = place or users_place()
    try:
        with _cpython.set_aside(running):
            for check in when_set_aside:
                check()
            yield
    finally:
        _set_aside.pop(running, None)


def wrapper_aside(kind: type, name: str) -> MethodWrapper:
    """Return a wrapper that lets a loop that cannot be nested on run inside another one.

    The other loop is set aside meanwhile. If it is the same loop, the error says why that is impossible.

    Args:
        kind: The class of loops that cannot be nested on.
        name: A method that runs such a loop.
    """

    def run(run_loop: Callable[..., Any], self: asyncio.AbstractEventLoop, *args: Any) -> Any:
        if _cpython.running_loop() is self and is_wanted(self):
            engine_for(self, f"{name}()")  # which says why it cannot be
        return _run_aside(run_loop, self, *args)

    return MethodWrapper(kind, name, run)


def _run_aside(run_loop: Callable[..., Any], loop: asyncio.AbstractEventLoop, *args: Any) -> Any:
    running = _cpython.running_loop()
    if running is None or running is loop:
        return run_loop(*args)
    with aside(running, loop):
        return run_loop(*args)
