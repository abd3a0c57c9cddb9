"""Use `asyncio.Runner` inside a running loop: give it that loop, and end only what was begun in the runner.

A stock runner ends everything by closing its loop. Here the loop stays, so we have to know what belongs to
the runner:

*   the tasks that are spawned in its `run()`;
*   the tasks that `run_until_complete()` spawns for code that has asked the runner for its loop, as anyio's
    pytest plugin does;
*   the debug flag;
*   an exception handler that was set on the loop while the runner was open.

Call everything but `forget_all` in the thread of the loop. Only `close` blocks.
"""

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


# -- the debug flag ------------------------------------------------------------------------------


class DebugRequests:
    """Requests for a loop's debug flag, one for each run.

    The newest request wins. When all runs have ended, the flag is what it was before.

    Saving the flag when a run begins, and restoring it when the run ends, would be simpler. But nested runs
    end in any order, and the last one to end might restore another run's flag.
    """

    def __init__(self) -> None:
        # Loop -> who asked for which flag, oldest first. The first entry is our own, with the flag from
        # before.
        self._asked: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, bool]] = WeakKeyDictionary()

    def begin(self, who: object, loop: asyncio.AbstractEventLoop, debug: bool | None) -> None:
        """Switch debug mode of *loop* on or off until *who* ends. None leaves it as it is."""
        if debug is None:
            return
        asked = self._asked.setdefault(loop, {self: loop.get_debug()})
        asked[who] = debug
        loop.set_debug(debug)

    def end(self, who: object, loop: asyncio.AbstractEventLoop) -> None:
        """Withdraw the request of *who*, if there is one."""
        asked = self._asked.get(loop, {})
        if asked.pop(who, None) is None:
            return
        loop.set_debug(next(reversed(asked.values())))
        if len(asked) == 1:
            del self._asked[loop]

    @contextmanager
    def during(self, loop: asyncio.AbstractEventLoop, debug: bool) -> Iterator[None]:
        """Ask for *debug* while the block runs."""
        who = object()
        self.begin(who, loop, debug)
        try:
            yield
        finally:
            self.end(who, loop)


#: Process-wide: runs that overlap on a loop may know nothing of each other, or of a session.
debug_requests = DebugRequests()


# -- one runner ----------------------------------------------------------------------------------


class _OpenRunner:
    """What a runner has to clean up when it ends.

    Args:
        runner: The runner.
        loop: The running loop.

    Attributes:
        loop: The running loop.
        spawned: The tasks that belong to the runner.
        handler_before: The exception handler to restore: the one that the loop had when the runner began.
        end: Undoes `begin`, once. Runs by itself if the runner is dropped without `close`.
    """

    def __init__(self, runner: asyncio.Runner, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.spawned: WeakSet[asyncio.Task[Any]] = WeakSet()
        self.handler_before = loop.get_exception_handler()
        self._debug = _cpython.debug_of(runner)
        self._request = object()
        self.end = weakref.finalize(runner, _end, self._request, loop)

    def begin(self) -> None:
        """Request the runner's debug flag, and have each spawn look up its runner. `end` undoes both."""
        debug_requests.begin(self._request, self.loop, self._debug)
        open_runners.append(self._request)

    def remove_handler(self, later: list[_OpenRunner]) -> None:
        """Restore the exception handler from before the runner. Runners may end in any order.

        Args:
            later: The open runners that began after this one. The next of them on the same loop may be about
                to restore a handler of this runner's. We give it the handler from before this runner instead.
        """
        current = self.loop.get_exception_handler()
        following = next((other for other in later if other.loop is self.loop), None)
        if following is None or current is following.handler_before:
            self.loop.set_exception_handler(self.handler_before)
        if following is not None:
            following.inherit_handler(self.handler_before)

    def inherit_handler(self, handler: Any) -> None:
        """Restore *handler* at the end. The runner that should have done so ended earlier."""
        self.handler_before = handler


def _end(request: object, loop: asyncio.AbstractEventLoop) -> None:
    if request in open_runners:
        open_runners.remove(request)
    debug_requests.end(request, loop)


#: The open runners, oldest first. Process-wide, since a user's runner may outlive a session.
_open: WeakKeyDictionary[asyncio.Runner, _OpenRunner] = WeakKeyDictionary()
#: The runner whose loop was last handed to code in this Context. It may outlive a session, too.
_asked: ContextVar[weakref.ref[asyncio.Runner] | None] = ContextVar("asked", default=None)


def is_nested(runner: asyncio.Runner) -> bool:
    """Return True if *runner* was begun inside a running loop, and has not been closed."""
    return runner in _open


def begin(runner: asyncio.Runner, loop: asyncio.AbstractEventLoop) -> None:
    """Give *runner* the running *loop*."""
    _open[runner] = nested = _OpenRunner(runner, loop)
    nested.begin()
    context = copy_context()
    context.run(runner_tasks.set, nested.spawned)
    _cpython.initialize(runner, loop, context)


def close(runner: asyncio.Runner) -> None:
    """End what was begun in *runner*, and leave the loop open. Blocks the caller in a nested run."""
    if _asked.get() == weakref.ref(runner):
        _asked.set(None)
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
        nested.remove_handler(every[every.index(nested) + 1 :])
        nested.end()
        _cpython.finish(runner)


def _report_failures(loop: asyncio.AbstractEventLoop, tasks: list[asyncio.Task[Any]]) -> None:
    """Report those of *tasks* that failed, to the loop's exception handler, as `asyncio.run` does."""
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            message = "unhandled exception during asyncio.run() shutdown"
            loop.call_exception_handler({"message": message, "exception": error, "task": task})


def forget_all() -> None:
    """Mark all open runners closed, and leave their tasks alone.

    Otherwise the stock `close`, if called later, would end all tasks of the loop. Any thread; hold
    `scope.changing`.
    """
    for runner in list(_open):
        _open.pop(runner).end()
        _cpython.finish(runner)


# -- which runner a task belongs to --------------------------------------------------------------


def is_inside() -> bool:
    """Return True if the caller runs in a runner's task, and so cannot run anything else in that runner."""
    return runner_tasks.get() is not None


@contextmanager
def spawning(runner: asyncio.Runner, context: Context | None) -> Iterator[None]:
    """While the block runs, count tasks that are spawned in *context* as the runner's."""
    nested = _open.get(runner)
    if nested is None or context is None:  # the runner's own Context is marked already
        yield
        return
    try:
        token = context.run(runner_tasks.set, nested.spawned)
    except RuntimeError:  # the caller runs in that Context itself: its tasks are not the runner's
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(RuntimeError):
            context.run(runner_tasks.reset, token)


def own(runner: asyncio.Runner, task: asyncio.Task[Any]) -> None:
    """Count *task* as one of *runner*'s, whichever task factory made it."""
    if runner in _open:  # else the runner was begun outside a loop, and is a stock one
        _open[runner].spawned.add(task)


def ask(runner: asyncio.Runner) -> None:
    """Note that the caller has been given the loop of *runner*, and may run something on it."""
    if runner in _open:
        _asked.set(weakref.ref(runner))


def ensure_future(awaitable: Any, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
    """Do what `asyncio.ensure_future` does.

    If the caller got *loop* from a runner, the task belongs to that runner.
    """
    reference = _asked.get()
    runner = reference() if reference is not None else None
    nested = _open.get(runner) if runner is not None else None
    context = copy_context()
    if nested is not None and nested.loop is loop:
        context.run(runner_tasks.set, nested.spawned)
    future: asyncio.Future[Any] = context.run(asyncio.ensure_future, awaitable, loop=loop)
    return future
