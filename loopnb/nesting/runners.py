"""The loop's debug flag, asked for by runs that overlap and end in any order."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from loopnb.nesting import _cpython
from loopnb.nesting.loop_task import open_runners, runner_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextvars import Context


class _OfLoop:
    """The requests for one loop, oldest first, and what the flag was before them."""

    def __init__(self, before: bool) -> None:
        self.before = before
        self.requests: dict[object, bool] = {}


class DebugRequests:
    """Who wants which debug flag while it runs. The newest decides; then the flag is as before.

    Saving the flag when a run begins and restoring it when it ends would be wrong: runs do not
    end in the order they began in, and the last to end would bring back another run's value.
    """

    def __init__(self) -> None:
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = WeakKeyDictionary()

    def begin(self, who: object, loop: asyncio.AbstractEventLoop, debug: bool | None) -> None:
        """Have *loop* in debug mode or not while *who* runs; None asks for nothing."""
        if debug is None:
            return
        of_loop = self._loops.setdefault(loop, _OfLoop(loop.get_debug()))
        of_loop.requests[who] = debug
        loop.set_debug(debug)

    def end(self, who: object, loop: asyncio.AbstractEventLoop) -> None:
        """Take back what *who* asked for."""
        of_loop = self._loops.get(loop)
        if of_loop is None or of_loop.requests.pop(who, None) is None:
            return
        loop.set_debug(next(reversed(of_loop.requests.values()), of_loop.before))
        if not of_loop.requests:
            del self._loops[loop]

    @contextmanager
    def during(self, loop: asyncio.AbstractEventLoop, debug: bool | None) -> Iterator[None]:
        """Ask for *debug* while the block runs."""
        if debug is None:
            yield
            return
        who = object()
        self.begin(who, loop, debug)
        try:
            yield
        finally:
            self.end(who, loop)


# -- nested_runners ------------------------------------------------------------
#
# `asyncio.Runner` inside a running loop: it is given that loop, and ends what was begun in it.
#
# A runner ends everything by closing its loop. Here the loop stays, so the runner has to know what is
# its own: the tasks that are spawned in its `run()`; those that `run_until_complete()` spawns for
# whoever has asked the runner for its loop, as anyio's pytest plugin does; the debug flag; and an
# exception handler that was set on the loop meanwhile.


debug_requests = DebugRequests()


class _Nested:
    """What a runner has to put in order at its end.

    Args:
        runner: It.
        loop: The running loop.
    """

    def __init__(self, runner: asyncio.Runner, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.spawned: WeakSet[asyncio.Task[Any]] = WeakSet()
        self.handler_before = loop.get_exception_handler()
        request = object()
        debug_requests.begin(request, loop, _cpython.debug_of(runner))
        open_runners.append(request)
        self.end = weakref.finalize(runner, _end, request, loop)

    def take_handler_off(self, later: list[_Nested]) -> None:
        """Put back the exception handler from before; runners may end in any order."""
        current = self.loop.get_exception_handler()
        following = next((one for one in later if one.loop is self.loop), None)
        if following is None or current is following.handler_before:
            self.loop.set_exception_handler(self.handler_before)
        if following is not None:
            following.handler_before = self.handler_before


def _end(request: object, loop: asyncio.AbstractEventLoop) -> None:
    open_runners.remove(request)
    debug_requests.end(request, loop)


_open: WeakKeyDictionary[asyncio.Runner, _Nested] = WeakKeyDictionary()
#: The runner that code in this Context was last given the loop of.
asked: ContextVar[weakref.ref[asyncio.Runner] | None] = ContextVar("asked", default=None)


def is_nested(runner: asyncio.Runner) -> bool:
    """Say whether *runner* was begun inside a running loop, and has not been closed."""
    return runner in _open


def begin(runner: asyncio.Runner, loop: asyncio.AbstractEventLoop) -> None:
    """Give *runner* the running *loop*."""
    _open[runner] = nested = _Nested(runner, loop)
    context = copy_context()
    context.run(runner_tasks.set, nested.spawned)
    _cpython.initialize(runner, loop, context)


def ask(runner: asyncio.Runner) -> None:
    """Note that the caller has been given the loop of *runner*, and may run something on it."""
    if runner in _open:
        asked.set(weakref.ref(runner))


def is_inside() -> bool:
    """Say whether the caller was spawned by one of them: it cannot run anything more in that one."""
    return runner_tasks.get() is not None


@contextmanager
def spawning(runner: asyncio.Runner, context: Context | None) -> Iterator[None]:
    """Count what is spawned in *context* as that of *runner* while the block runs."""
    nested = _open.get(runner)
    if nested is None or context is None:  # its own Context is marked already
        yield
        return
    try:
        token = context.run(runner_tasks.set, nested.spawned)
    except RuntimeError:  # the caller is inside that Context, and what it spawns is its own
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(RuntimeError):
            context.run(runner_tasks.reset, token)


def own(runner: asyncio.Runner, task: asyncio.Task[Any]) -> None:
    """Count *task*, which runs in *runner*, as its own, whatever the task factory."""
    if runner in _open:  # else it was begun outside the loop, and ends what it began there
        _open[runner].spawned.add(task)


def ensure_future(awaitable: Any, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
    """Do what `asyncio.ensure_future` does, for the runner whose loop the caller has asked for."""
    reference = asked.get()
    runner = reference() if reference is not None else None
    nested = _open.get(runner) if runner is not None else None
    context = copy_context()
    if nested is not None and nested.loop is loop:
        context.run(runner_tasks.set, nested.spawned)
    future: asyncio.Future[Any] = context.run(asyncio.ensure_future, awaitable, loop=loop)
    return future


def close(runner: asyncio.Runner) -> None:
    """End what was begun in *runner*, and only that: the loop stays."""
    if asked.get() == weakref.ref(runner):
        asked.set(None)
    every = list(_open.values())
    nested = _open.pop(runner)
    left = [task for task in nested.spawned if not task.done()]
    for task in left:
        task.cancel()
    try:
        if left:
            nested.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            _report_failures(nested.loop, left)
    finally:
        nested.take_handler_off(every[every.index(nested) + 1 :])
        nested.end()
        _cpython.finish(runner)


def forget_all() -> None:
    """Close all of them, but for their tasks: the stock `close` would end the loop's."""
    for runner in list(_open):
        _open.pop(runner).end()
        _cpython.finish(runner)


def _report_failures(loop: asyncio.AbstractEventLoop, tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            message = "unhandled exception during asyncio.run() shutdown"
            loop.call_exception_handler({"message": message, "exception": error, "task": task})
