"""`asyncio.Runner` inside a running loop: it is given that loop, and ends what was begun in it.

A runner ends everything by closing its loop. Here the loop stays, so the runner has to know what is
its own: the tasks that are spawned in its `run()`; those that `run_until_complete()` spawns for
whoever has asked the runner for its loop, as anyio's pytest plugin does; the debug flag; and an
exception handler that was set on the loop meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from loopnb.internals import runners
from loopnb.internals.tasks import open_runners, runner_tasks
from loopnb.nesting.debugging import DebugRequests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextvars import Context

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
        debug_requests.begin(request, loop, runners.debug_of(runner))
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
    runners.initialize(runner, loop, context)


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
        runners.finish(runner)


def forget_all() -> None:
    """Close all of them, but for their tasks: the stock `close` would end the loop's."""
    for runner in list(_open):
        _open.pop(runner).end()
        runners.finish(runner)


def _report_failures(loop: asyncio.AbstractEventLoop, tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            message = "unhandled exception during asyncio.run() shutdown"
            loop.call_exception_handler({"message": message, "exception": error, "task": task})
