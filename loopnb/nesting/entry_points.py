"""Where nested runs begin: `asyncio.run`, `asyncio.Runner` and the loops' `run_until_complete`.

Outside a running loop each of them is the stock function, in every thread. Inside, a call for the running
loop is a nested run (`engine.py`), and a call for another loop sets the running one aside meanwhile
(`other_loops.py`).

`asyncio.run_coroutine_threadsafe` returns a future that waits by a nested run, too, if you ask for its result
in the thread of its own loop (`SubmittedFuture`). The function is patched while a notebook's session is
loaded, even if nesting is off. Then waiting would be a deadlock, so an error says what to do instead.

Each function here that stands in for a stock one cuts our frames off the tracebacks of its errors. The top of
`stand_ins.py` says how, and why that works. `patches.py` puts the functions in place.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
from contextlib import contextmanager, suppress
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from loopnb._cpython import coro_of, live_tasks
from loopnb.frames import users_frames
from loopnb.nesting import _cpython, closing, no_loop, runners
from loopnb.nesting.loop_task import open_runners
from loopnb.nesting.other_loops import aside, run_aside
from loopnb.nesting.refusals import result_needs_loop
from loopnb.nesting.scope import (
    attach_before_run,
    detach_closed,
    engine_for,
    is_off,
    reentrant_loops,
)
from loopnb.patching import copy_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context

# The stock functions, as they were at import.
_stock_submit = copy_of(asyncio.run_coroutine_threadsafe)
_stock_run_until_complete = _cpython.stock_run_until_complete
_stock_runner_run = _cpython.Runner.run
_stock_get_loop = _cpython.Runner.get_loop
_stock_close = _cpython.Runner.close


# -- nested runs ---------------------------------------------------------------------------------


def nested_or_stock_run(main: Any, debug: bool | None, options: dict[str, Any]) -> Any:
    """Do what `asyncio.run` does. Blocks the caller.

    If a loop runs in this thread, *main* runs nested on it. With a `loop_factory` it runs on a loop of its
    own instead, and the running one is set aside. From some threads it goes elsewhere, see `submitting`.

    Args:
        main: The coroutine; from 3.14 on, any awaitable.
        debug: Debug mode while *main* runs; None leaves the mode as it is.
        options: The other arguments of `asyncio.run` in this version of Python.
    """
    running = _cpython.running_loop()
    if running is None:
        if no_loop.hidden_loop() is not None:
            with no_loop.lifted():
                return nested_or_stock_run(main, debug, options)
        return _cpython.stock_run(main, debug=debug, **options)
    if options.get("loop_factory") is not None:
        with aside(running, None):
            return _cpython.stock_run(main, debug=debug, **options)
    for is_meant, submit in _submitters:
        if is_meant():
            return submit(_cpython.as_coroutine(main))
    if debug is not None:
        with runners.debug_requests.during(running, debug):
            return nested_or_stock_run(main, None, options)
    engine = engine_for(running, "asyncio.run()")
    coro, task = _cpython.as_coroutine(main), None
    try:
        task = running.create_task(coro)
        return engine.wait(task)
    except BaseException:
        cancel_unwaited(running, coro, task)
        raise


def cancel_unwaited(loop: asyncio.AbstractEventLoop, coro: Any, task: asyncio.Task[Any] | None) -> None:
    """Cancel the task of *coro*, which was made for a nested run, if that run has ended without it.

    A signal handler may raise between any two lines: when the task exists and nobody knows it yet, or before
    the engine waits for it. Call this when a nested run has failed. It does nothing for a task that is done,
    or was cancelled by the wait.

    Args:
        loop: The running loop.
        coro: The coroutine.
        task: Its task; None if the caller does not know it. Then this looks at each task of the loop.
    """
    # The user's task factory may have made it: any future, with methods that raise anything.
    with suppress(Exception):
        found = [] if task is None else [task]
        if task is None:
            everything = (*live_tasks(loop), *_cpython.queued_tasks(loop))
            found += [known for known in everything if coro_of(known) is coro]
        for unwaited in found:
            if not unwaited.done() and not getattr(unwaited, "cancelling", int)():
                unwaited.cancel()


def run_nested(loop: asyncio.AbstractEventLoop, task: asyncio.Future[Any]) -> Any:
    """Wait for *task* on *loop*, the running one, and return its result. Cancel it if the wait fails.

    Raises:
        NestingError: The loop cannot be entered again from here; `.reason` says why. *task* goes on.
        RuntimeError: Nested runs are not wanted on this loop. *task* goes on.
    """
    with no_loop.lifted():
        return engine_for(loop, "a nested run").wait(task)


#: Belongs to the process: loops of other threads, which these are about, know of no session.
_submitters: list[tuple[Callable[[], bool], Callable[[Any], Any]]] = []


@contextmanager
def submitting(is_meant: Callable[[], bool], submit: Callable[[Any], Any]) -> Iterator[None]:
    """While the block runs, have `asyncio.run` in some threads' running loops send its coroutine elsewhere.

    Args:
        is_meant: Returns True if the calling thread, whose own loop runs, is one of those threads.
        submit: Runs a coroutine elsewhere, waits for it and returns its result.
    """
    _submitters.append((is_meant, submit))
    try:
        yield
    finally:
        _submitters.remove((is_meant, submit))


# -- what was sent to the loop from its own thread -----------------------------------------------


class SubmittedFuture(concurrent.futures.Future):  # type: ignore[type-arg]  # made by `__class__`, see `submit`
    """What `asyncio.run_coroutine_threadsafe` returns. In the thread of its loop it waits by a nested run.

    The stock future would block the loop that has to bring the result: a deadlock. In other threads this is
    the stock future.

    Attributes:
        loop: The loop on which the coroutine runs.
    """

    loop: asyncio.AbstractEventLoop

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, as `concurrent.futures.Future.result` does.

        Raises:
            TimeoutError: *timeout* seconds have passed. The coroutine goes on.
            NestingError: No nested run can begin here; `.reason` says why.
        """
        try:
            return super().result(self._time_left(timeout, "Future.result()"))
        except BaseException as error:
            error.__traceback__ = users_frames(error.__traceback__)
            raise

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, as `concurrent.futures.Future.exception` does.

        Raises:
            TimeoutError: As `result`.
            NestingError: As `result`.
        """
        try:
            return super().exception(self._time_left(timeout, "Future.exception()"))
        except BaseException as error:
            error.__traceback__ = users_frames(error.__traceback__)
            raise

    def _time_left(self, timeout: float | None, call: str) -> float | None:
        """Return how many seconds the stock method may block.

        In the loop's own thread, wait in a nested run first, and return 0. If that wait is interrupted, or
        the task that waits is cancelled, the coroutine is cancelled.
        """
        if self.done() or no_loop.loop_here() is not self.loop:
            return timeout
        with no_loop.lifted():
            self._wait_nested(timeout, call)
        return 0

    def _wait_nested(self, timeout: float | None, call: str) -> None:
        loop = self.loop
        wait = _how_to_wait(loop, call)
        waiter = loop.create_future()
        finish = partial(_finish, waiter)
        self.add_done_callback(lambda _future: loop.call_soon_threadsafe(finish))
        timer = None if timeout is None else loop.call_later(timeout, finish)
        try:
            wait(waiter)
        except BaseException:
            self.cancel()
            raise
        finally:
            if timer is not None:
                timer.cancel()


def _how_to_wait(loop: asyncio.AbstractEventLoop, call: str) -> Callable[[asyncio.Future[None]], object]:
    """Return the function that waits for a future in a nested run on *loop*, the running one.

    Raises:
        NestingError: No nested run can begin here.
    """
    if loop in reentrant_loops:
        return loop.run_until_complete
    if is_off(loop):
        raise result_needs_loop()
    return engine_for(loop, call).wait


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def submit(coro: Any, loop: asyncio.AbstractEventLoop) -> concurrent.futures.Future[Any]:
    """Do what `asyncio.run_coroutine_threadsafe` does. Any thread. Does not block."""
    future = _stock_submit(coro, loop)
    future.__class__ = SubmittedFuture  # the stock function makes the future, and must go on doing so
    future.loop = loop
    return future  # type: ignore[no-any-return]  # the original is untyped


# -- what stands in for methods of loops ---------------------------------------------------------


def run_until_complete(self: _cpython.BaseEventLoop, future: Any) -> Any:
    """Stand in for `run_until_complete` of asyncio's loops."""
    try:
        running = _cpython.running_loop()
        if running is None:
            if no_loop.hidden_loop() is not None:
                with no_loop.lifted():
                    return run_until_complete(self, future)
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
    task: Any = None
    is_new = True
    try:
        if type(future) is CoroutineType and not open_runners:
            task = loop.create_task(future)  # the usual case: does what `ensure_future` does, but faster
        else:
            is_new = not asyncio.isfuture(future)
            if future is _cpython.current_task(loop):
                raise RuntimeError(f"Task cannot await on itself: {future!r}")
            task = runners.ensure_future(future, loop)
        if is_new:
            _cpython.silence_destroyed_warning(task)
        return engine.wait(task, is_new)
    except BaseException:
        if is_new:
            cancel_unwaited(loop, future, task)
        raise


def run_forever(run_loop: Callable[[], None], self: asyncio.AbstractEventLoop) -> None:
    """Wrap `run_forever` of asyncio's loops, so that the engine is there when the first pass begins.

    Another loop that runs in this thread is set aside. What is parked on the loop ends with this thread.
    """
    if no_loop.hidden_loop() is not None:
        with no_loop.lifted():
            run_forever(run_loop, self)
            return
    if not self.is_running():
        attach_before_run(self)
        closing.end_with_thread(self)
    run_aside(run_loop, self)


def close(close_loop: Callable[[], None], self: asyncio.AbstractEventLoop) -> None:
    """Wrap `close` of asyncio's loops: what is parked there ends first."""
    if not self.is_running() and not self.is_closed():
        closing.end_waits(self)
    close_loop()
    if self.is_closed():  # a guard of `close()` may have kept it open
        detach_closed(self)


# -- stand-ins for methods of asyncio.Runner ------------------------------------------------


def runner_run(self: asyncio.Runner, coro: Any, *, context: Context | None = None) -> Any:
    """Stand in for `Runner.run`."""
    try:
        running = _cpython.running_loop()
        if running is None:
            if no_loop.hidden_loop() is not None:
                with no_loop.lifted():
                    return runner_run(self, coro, context=context)
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
    task = None
    with runners.spawning(runner, context):
        try:
            task = loop.create_task(coro, context=context or _cpython.context_of(runner))
            runners.own(runner, task)
            return engine.wait(task)
        except BaseException:
            cancel_unwaited(loop, coro, task)
            raise


def runner_lazy_init(self: asyncio.Runner) -> bool:
    """Do what `Runner._lazy_init` does. Return True if the runner was given the running loop."""
    if no_loop.hidden_loop() is not None:
        with no_loop.lifted():
            return runner_lazy_init(self)
    running = _cpython.running_loop()
    if running is None or _cpython.is_closed(self) or _cpython.is_initialized(self):
        _cpython.stock_lazy_init(self)
        return False
    if _has_own_loop(self, running):
        with aside(running, None):
            _cpython.stock_lazy_init(self)
        return False
    runners.begin(self, running)
    return True


def _has_own_loop(runner: asyncio.Runner, running: asyncio.AbstractEventLoop) -> bool:
    if _cpython.is_initialized(runner):
        return _cpython.loop_of(runner) is not running
    return _cpython.has_loop_factory(runner)


def runner_get_loop(self: asyncio.Runner) -> asyncio.AbstractEventLoop:
    """Stand in for `Runner.get_loop`."""
    loop = _stock_get_loop(self)
    runners.ask(self)
    return loop


def runner_close(self: asyncio.Runner) -> None:
    """Stand in for `Runner.close`."""
    if no_loop.hidden_loop() is not None:
        with no_loop.lifted():
            runner_close(self)
            return
    running = _cpython.running_loop()
    if runners.is_nested(self):
        runners.close(self)
    elif running is not None and _cpython.is_initialized(self):
        with aside(running, _cpython.loop_of(self)):
            _stock_close(self)
    else:
        _stock_close(self)
