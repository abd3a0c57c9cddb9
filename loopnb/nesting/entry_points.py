"""Where nested runs begin: `asyncio.run`, `asyncio.Runner` and the loops' `run_until_complete`.

Outside a running loop each of them is the stock function, in every thread. Inside, a call for the running
loop is a nested run (`engine.py`), and a call for another loop sets the running one aside meanwhile
(`other_loops.py`).

Each function here that stands in for a stock function cuts our frames off the tracebacks of its errors. The
top of `stand_ins.py` says how, and why that works.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from loopnb.frames import users_frames
from loopnb.nesting import _cpython, closing, other_packages, runners, stand_ins
from loopnb.nesting.engine import once_for_each_event
from loopnb.nesting.loop_task import open_runners
from loopnb.nesting.other_loops import aside, run_aside
from loopnb.nesting.scope import attach_before_run, engine_for
from loopnb.patching import CodePatch, MethodWrapper, Patch, PatchSet, looking_like

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context


# -- nested runs ---------------------------------------------------------------------------------


def nested_or_stock_run(main: Any, debug: bool | None, options: dict[str, Any]) -> Any:
    """Do what `asyncio.run` does, nested if a loop runs in this thread. Blocks the caller.

    Args:
        main: The coroutine; from 3.14 on, any awaitable.
        debug: Debug mode while *main* runs; None leaves the mode as it is.
        options: The other arguments of `asyncio.run` in this version of Python.
    """
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
        return engine.wait(running.create_task(coro))
    with runners.debug_requests.during(running, debug):
        return engine.wait(running.create_task(coro))


def run_nested(loop: asyncio.AbstractEventLoop, task: asyncio.Future[Any]) -> Any:
    """Wait for *task* on *loop*, the running one, and return its result. Cancel it if the wait fails.

    Raises:
        NestingError: The loop cannot be entered again from here; `.reason` says why.
    """
    return engine_for(loop, "a nested run").wait(task)


#: Belongs to the process: loops of other threads, which these are about, know of no session.
_submitters: list[tuple[Callable[[], bool], Callable[[Any], Any]]] = []


@contextmanager
def submitting(is_meant: Callable[[], bool], submit: Callable[[Any], Any]) -> Iterator[None]:
    """Have `asyncio.run` inside the loops of some threads go elsewhere while the block runs.

    Args:
        is_meant: Returns True if the calling thread, whose own loop runs, is one of those threads.
        submit: Runs a coroutine elsewhere, waits for it and returns its result.
    """
    _submitters.append((is_meant, submit))
    try:
        yield
    finally:
        _submitters.remove((is_meant, submit))


# -- stand-ins for methods of loops ---------------------------------------------------------


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


def _nested_run_until_complete(loop: asyncio.AbstractEventLoop, future: Any) -> Any:
    engine = engine_for(loop, "run_until_complete()")
    is_new = True
    if type(future) is CoroutineType and not open_runners:
        future = loop.create_task(future)  # the usual case: does what `ensure_future` does, but faster
    else:
        is_new = not asyncio.isfuture(future)
        if future is _cpython.current_task(loop):
            raise RuntimeError(f"Task cannot await on itself: {future!r}")
        future = runners.ensure_future(future, loop)
    if is_new:
        _cpython.silence_destroyed_warning(future)
    return engine.wait(future, is_new)


def _run_forever(run_loop: Callable[[], None], self: asyncio.AbstractEventLoop) -> None:
    if not self.is_running():
        attach_before_run(self)
        closing.end_with_thread(self)
    run_aside(run_loop, self)


def _close(close_loop: Callable[[], None], self: asyncio.AbstractEventLoop) -> None:
    if not self.is_running() and not self.is_closed():
        closing.end_waits(self)
    close_loop()


# -- stand-ins for methods of asyncio.Runner ------------------------------------------------


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


def _nested_runner_run(
    runner: asyncio.Runner, loop: asyncio.AbstractEventLoop, coro: Any, context: Context | None
) -> Any:
    engine = engine_for(loop, "Runner.run()")
    if sys.version_info < (3, 14):
        coro = _cpython.as_coroutine(coro)
        _stock_get_loop(runner)
    else:  # there the stock `run` looks at its argument later, so a closed runner raises first
        _stock_get_loop(runner)
        coro = _cpython.as_coroutine(coro)
    with runners.spawning(runner, context):
        task = loop.create_task(coro, context=context or _cpython.context_of(runner))
        runners.own(runner, task)
        return engine.wait(task)


def _runner_lazy_init(self: asyncio.Runner) -> None:
    running = _cpython.running_loop()
    if running is None or _cpython.is_closed(self) or _cpython.is_initialized(self):
        _cpython.stock_lazy_init(self)
    elif _has_own_loop(self, running):
        with aside(running, None):
            _cpython.stock_lazy_init(self)
    else:
        other_packages.catch_up()  # for the runner of anyio's pytest plugin, whose import we did not see
        runners.begin(self, running)


def _has_own_loop(runner: asyncio.Runner, running: asyncio.AbstractEventLoop) -> bool:
    if _cpython.is_initialized(runner):
        return _cpython.loop_of(runner) is not running
    return _cpython.has_loop_factory(runner)


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


# -- the patches ---------------------------------------------------------------------------------

_stock_run_until_complete = _cpython.BaseEventLoop.run_until_complete
_stock_runner_run = _cpython.Runner.run
_stock_get_loop = _cpython.Runner.get_loop
_stock_close = _cpython.Runner.close

_run_patch = CodePatch(
    _cpython.run, stand_ins.asyncio_run_311 if sys.version_info < (3, 12) else stand_ins.asyncio_run
)


def _method_patch(kind: type, name: str, replacement: Callable[..., Any]) -> Patch:
    return Patch(kind, name, looking_like(getattr(kind, name), replacement))


#: The names of asyncio that are patched while anybody wants nested runs. They belong to the process.
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
