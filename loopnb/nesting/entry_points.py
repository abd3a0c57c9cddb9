"""Where nested runs begin: `asyncio.run`, `asyncio.Runner` and the loops' `run_until_complete`.

Outside a running loop each of them is the stock function, in every thread. Inside, a call for the
running loop is a nested run, and a call for *another* loop sets the running one aside meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import contextmanager
from types import CoroutineType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from loopnb.internals import asyncio_state as state
from loopnb.internals import runners
from loopnb.internals.frames import PACKAGE, calling_frame, is_ours, without_frames_of
from loopnb.internals.patching import CodePatch, MethodWrapper, Patch, PatchSet, looking_like
from loopnb.internals.selecting import once_for_each_event
from loopnb.internals.tasks import open_runners
from loopnb.nesting import closing, foreign, nested_runners
from loopnb.nesting.scope import attach_before_run, engine_for, is_wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context
    from types import FrameType, TracebackType

    from loopnb.nesting.handoff import Handoff

_ASYNCIO = os.path.dirname(asyncio.__file__) + os.sep

_STDLIB = os.path.dirname(os.__file__) + os.sep
_HIDDEN = (PACKAGE, _ASYNCIO, _STDLIB + "contextlib.py")

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


def users_frames(tb: TracebackType | None) -> TracebackType | None:
    """Return *tb* without the frames of this package that it begins with, or that are all of it.

    An interrupt may be raised anywhere in here, and in what is called from here: then it ends where the
    user has called us.
    """
    users = without_frames_of(tb, is_ours)
    frame, was_ours = users, False
    while frame is not None and _is_nobodys(filename := frame.tb_frame.f_code.co_filename):
        was_ours = was_ours or is_ours(filename)
        frame = frame.tb_next
    return None if frame is None and was_ours else users


def _is_nobodys(filename: str) -> bool:
    if filename.startswith((PACKAGE, "<frozen ")):
        return True
    return filename.startswith(_STDLIB) and "site-packages" not in filename


def without_loops_frames(tb: TracebackType | None) -> TracebackType | None:
    """Return *tb* without the frames of this package and of asyncio that it begins with."""
    return without_frames_of(tb, lambda filename: filename.startswith(_HIDDEN))


# -- what the patched names run ------------------------------------------------------------------
#
# `except ...: raise` does not put its own frame back into the traceback, so once the frames below
# it are cut off, an error looks as if it had come straight out of the user's coroutine.


def _run_with_factory(main: Any, *, debug: Any = None, loop_factory: Any = None) -> Any:
    try:
        from loopnb.nesting import entry_points

        return entry_points.nested_or_stock_run(main, debug, {"loop_factory": loop_factory})
    except BaseException as error:
        from loopnb.nesting import entry_points

        error.__traceback__ = entry_points.users_frames(error.__traceback__)
        raise


def _run_plain(main: Any, *, debug: Any = None) -> Any:
    try:
        from loopnb.nesting import entry_points

        return entry_points.nested_or_stock_run(main, debug, {})
    except BaseException as error:
        from loopnb.nesting import entry_points  # again: it may be the import that was interrupted

        error.__traceback__ = entry_points.users_frames(error.__traceback__)
        raise


def _run_until_complete(self: state.BaseEventLoop, future: Any) -> Any:
    try:
        running = state.running_loop()
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
        running = state.running_loop()
        if running is None:
            return _stock_runner_run(self, coro, context=context)
        if _has_own_loop(self, running):
            with aside(running, runners.loop_of(self)):
                return _stock_runner_run(self, coro, context=context)
        return _nested_runner_run(self, running, coro, context)
    except BaseException as error:
        error.__traceback__ = users_frames(error.__traceback__)
        raise


def _runner_lazy_init(self: asyncio.Runner) -> None:
    running = state.running_loop()
    if running is None or runners.is_closed(self) or runners.is_initialized(self):
        _stock_lazy_init(self)
    elif _has_own_loop(self, running):
        with aside(running, None):
            _stock_lazy_init(self)
    else:
        foreign.catch_up()  # it may be the runner of anyio's tests, whose plugin pytest has imported
        nested_runners.begin(self, running)


def _runner_get_loop(self: asyncio.Runner) -> asyncio.AbstractEventLoop:
    loop = _stock_get_loop(self)
    nested_runners.ask(self)
    return loop


def _runner_close(self: asyncio.Runner) -> None:
    running = state.running_loop()
    if nested_runners.is_nested(self):
        nested_runners.close(self)
    elif running is not None and runners.is_initialized(self):
        with aside(running, runners.loop_of(self)):
            _stock_close(self)
    else:
        _stock_close(self)


def _close(close_loop: Callable[[], None], self: asyncio.AbstractEventLoop) -> None:
    if not self.is_running() and not self.is_closed():
        closing.end_waits(self)
    close_loop()


_stock_run_until_complete = state.BaseEventLoop.run_until_complete
_stock_runner_run = runners.Runner.run
_stock_lazy_init = runners.Runner._lazy_init  # type: ignore[attr-defined]  # noqa: SLF001  the patched name
_stock_get_loop = runners.Runner.get_loop
_stock_close = runners.Runner.close

_run_patch = CodePatch(runners.run, _run_plain if sys.version_info < (3, 12) else _run_with_factory)


def _method_patch(kind: type, name: str, replacement: Callable[..., Any]) -> Patch:
    return Patch(kind, name, looking_like(getattr(kind, name), replacement))


patches = PatchSet(
    _run_patch,
    _method_patch(runners.Runner, "run", _runner_run),
    _method_patch(runners.Runner, "_lazy_init", _runner_lazy_init),
    _method_patch(runners.Runner, "get_loop", _runner_get_loop),
    _method_patch(runners.Runner, "close", _runner_close),
    _method_patch(state.BaseEventLoop, "run_until_complete", _run_until_complete),
    once_for_each_event(),
    MethodWrapper(state.BaseEventLoop, "run_forever", _run_forever),
    *(MethodWrapper(kind, "close", _close) for kind in runners.loop_classes()),
)


# -- nested runs ---------------------------------------------------------------------------------


def nested_or_stock_run(main: Any, debug: bool | None, options: dict[str, Any]) -> Any:
    """Do what `asyncio.run` is asked for, nested if a loop runs in this thread."""
    running = state.running_loop()
    if running is None:
        return _run_patch.original_function(main, debug=debug, **options)
    if options.get("loop_factory") is not None:
        with aside(running, None):
            return _run_patch.original_function(main, debug=debug, **options)
    for is_meant, submit in _submitters:
        if is_meant():
            return submit(runners.as_coroutine(main))
    engine = engine_for(running, "asyncio.run()")
    coro = runners.as_coroutine(main)
    if debug is None:
        return _run_on(engine, running.create_task(coro))
    with nested_runners.debug_requests.during(running, debug):
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
        if future is state.current_task(loop):
            raise RuntimeError(f"Task cannot await on itself: {future!r}")
        future = nested_runners.ensure_future(future, loop)
    if is_new:
        state.silence_destroyed_warning(future)
    return _run_on(engine, future, is_new)


def _has_own_loop(runner: asyncio.Runner, running: asyncio.AbstractEventLoop) -> bool:
    if runners.is_initialized(runner):
        return runners.loop_of(runner) is not running
    return runners.has_loop_factory(runner)


def _nested_runner_run(
    runner: asyncio.Runner, loop: asyncio.AbstractEventLoop, coro: Any, context: Context | None
) -> Any:
    engine = engine_for(loop, "Runner.run()")
    if sys.version_info < (3, 14):
        coro = runners.as_coroutine(coro)
        _stock_get_loop(runner)
    else:
        _stock_get_loop(runner)
        coro = runners.as_coroutine(coro)
    with nested_runners.spawning(runner, context):
        task = loop.create_task(coro, context=context or runners.context_of(runner))
        nested_runners.own(runner, task)
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
        with state.set_aside(running):
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
        if state.running_loop() is self and is_wanted(self):
            engine_for(self, f"{name}()")  # which says why it cannot be
        return _run_aside(run_loop, self, *args)

    return MethodWrapper(kind, name, run)


def _run_aside(run_loop: Callable[..., Any], loop: asyncio.AbstractEventLoop, *args: Any) -> Any:
    running = state.running_loop()
    if running is None or running is loop:
        return run_loop(*args)
    with aside(running, loop):
        return run_loop(*args)


def users_place() -> tuple[str, int]:
    """Return file and line of the innermost frame that is neither ours nor asyncio's."""
    frame: FrameType | None = calling_frame(1)
    while frame is not None and frame.f_code.co_filename.startswith(_HIDDEN):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("?", 0)
