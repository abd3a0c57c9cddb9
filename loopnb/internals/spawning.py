"""Making tracked tasks, and finding all that somebody holds. Checked on CPython 3.11.7 to 3.13.0.

On 3.14 asyncio's set of tasks cannot be read from Python; weak references of our own stand in.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.runners
import asyncio.taskgroups
import functools
import sys
import weakref
from typing import TYPE_CHECKING, Any

from loopnb.internals.asyncio_state import current_task
from loopnb.internals.tasks import Run, TrackedTask, open_runners, runner_tasks

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar
    from types import CodeType, FrameType

    from loopnb.internals.tasks import Origin
    from loopnb.records import CellRef

#: The namespaces of asyncio's own modules and of ours, by identity: frames of theirs are no spawn sites.
_HIDDEN_GLOBALS = {
    id(vars(module))
    for module in (
        asyncio.base_events,
        asyncio.events,
        asyncio.locks,
        asyncio.runners,
        asyncio.streams,
        asyncio.taskgroups,
        asyncio.tasks,
        asyncio.timeouts,
        asyncio.unix_events if hasattr(asyncio, "unix_events") else asyncio.events,
    )
}

#: asyncio's own weak set of tasks keeps finished ones as well: `_all_tasks` on 3.11, `_scheduled_tasks`
#: on 3.12 and 3.13. From 3.14 on it holds no task made in C, and each gets a weak reference of ours.
_asyncios_set: Any = (
    None
    if sys.version_info >= (3, 14)
    else getattr(asyncio.tasks, "_scheduled_tasks" if sys.version_info >= (3, 12) else "_all_tasks", None)
)
_own_refs: list[weakref.ref[asyncio.Task[Any]]] = []
_prune_at = 4096
_NEEDS_OWN_REFS = _asyncios_set is None
_stock_create_task: Any = asyncio.base_events.BaseEventLoop.create_task


def known_tasks(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    """Return the tasks of *loop* that somebody holds, finished ones as well. The loop's thread."""
    if _NEEDS_OWN_REFS:
        tasks = [ref() for ref in list(_own_refs)]
    else:
        tasks = _list_of(_asyncios_set)
    return [task for task in tasks if task is not None and task.get_loop() is loop]


def _list_of(weak_set: Any) -> list[asyncio.Task[Any] | None]:
    while True:
        try:
            return list(weak_set)
        except RuntimeError:  # another thread has made a task meanwhile: `asyncio.all_tasks` tries again, too
            continue


def _refer_to(task: asyncio.Task[Any]) -> None:
    global _prune_at
    _own_refs.append(weakref.ref(task))
    if len(_own_refs) > _prune_at:
        _own_refs[:] = [ref for ref in _own_refs if ref() is not None]
        _prune_at = max(4096, 2 * len(_own_refs))


def hide_frames_of(namespace: dict[str, Any]) -> None:
    """Count frames with these globals as no spawn sites."""
    _HIDDEN_GLOBALS.add(id(namespace))


def tracking_factory(
    *,
    next_number: Callable[[], int],
    clock: Callable[[], float],
    cell: ContextVar[CellRef | None],
    origin_of: Callable[[asyncio.Task[Any]], Origin],
    factory: Callable[..., asyncio.Task[Any]] | None = None,
) -> Callable[..., asyncio.Task[Any]]:
    """Return a task factory whose tasks know their origin.

    One function, since each call between Python functions costs 1.5 % of a stock spawn. It looks where
    the user's frame usually is, behind one function of asyncio's, or two for `gather()`.

    Args:
        next_number: Returns the number of the next task.
        clock: Seconds, monotonic.
        cell: The cell whose code runs.
        origin_of: Returns the origin of a task that was not made here.
        factory: What is returned is to stand in for `BaseEventLoop.create_task` of loops that have this
            factory, made here as well. It saves a call per spawn, and does as the method where they do not.
    """
    hidden, get_frame, get_cell, get_spawned = _HIDDEN_GLOBALS, sys._getframe, cell.get, runner_tasks.get
    current, gather, sites, runners = current_task, asyncio.gather.__code__, _sites, open_runners
    near, far, furthest = (2, 3, 4) if factory is None else (1, 2, 3)
    latest_code: CodeType | None = None
    latest_gathering: CodeType | None = None
    latest_instruction = 0

    def make_tracked(loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        nonlocal latest_code, latest_instruction, latest_gathering
        if factory is not None and (loop._task_factory is not factory or loop._closed):
            return _stock_create_task(loop, coro, **options)  # type: ignore[no-any-return]  # private
        try:
            task = TrackedTask(coro, loop=loop, **options) if options else TrackedTask(coro, loop=loop)
        except BaseException as error:
            error.__traceback__ = None  # it ends where asyncio called us, or the user did
            raise
        try:
            frame = get_frame(far)
        except ValueError:  # called at the bottom of a stack
            frame = get_frame(near)
        code, instruction = frame.f_code, frame.f_lasti
        if code is gather:
            frame = get_frame(furthest)
            code, instruction = frame.f_code, frame.f_lasti
            is_known = code is latest_gathering
            if not is_known and id(frame.f_globals) not in hidden:
                is_known, latest_gathering = True, code
        elif code is latest_code and instruction == latest_instruction:
            is_known = True  # the same line again: most spawns by far
        else:
            is_known = (id(code), instruction) in sites
            if is_known:
                latest_code, latest_instruction = code, instruction
        parent: Any = current(loop)
        if parent is None:
            above = within = None
        else:
            try:
                above = parent.number
                within = parent.run
            except AttributeError:
                above = None  # not made here: an interrupt in there would show this error, too
            if above is None:
                above, within = origin_of(parent).number, None
        # One by one, since tuples would be turned over on the stack.
        task.number = next_number()
        task.spawned_at = clock()
        task.cell = get_cell()
        task.parent = above
        if is_known:
            task.code = code
            task.instruction = instruction
            task.run = within
        else:
            _locate(task, get_frame(near), within)
        if runners and (spawned := get_spawned()) is not None:
            spawned.add(task)
        if _NEEDS_OWN_REFS:
            _refer_to(task)
        return task

    return make_tracked if factory is None else functools.update_wrapper(make_tracked, _stock_create_task)


def can_stand_in(loop: asyncio.AbstractEventLoop) -> bool:
    """Say whether *loop* makes its tasks by the method that such a function knows how to stand in for."""
    return getattr(type(loop), "create_task", None) is _stock_create_task


#: Calls (code's id, instruction) of asyncio functions that spawn: two frames further out than the loop's
#: own method. To look at the frame between costs 10 % of a spawn, since Python has to make an object of it.
_sites: set[tuple[int, int]] = set()
_MOST_SITES = 4096


def _locate(task: TrackedTask, frame: FrameType, within: Run | None) -> None:
    """Note the innermost frame that is neither asyncio's nor ours as the place where *task* was spawned.

    Args:
        task: The task.
        frame: Of whoever called the loop's `create_task`.
        within: The nested `asyncio.run()` that goes on there; if the frame calls that, a new one is noted.
    """
    is_run, depth = False, 0
    while id(frame.f_globals) in _HIDDEN_GLOBALS and frame.f_back is not None:
        is_run = frame.f_code is asyncio.run.__code__
        frame = frame.f_back
        depth += 1
    if depth == 1:
        if len(_sites) >= _MOST_SITES:
            _sites.clear()
        _sites.add((id(frame.f_code), frame.f_lasti))
    else:
        # A call that sometimes goes through asyncio and sometimes to the loop itself.
        _sites.discard((id(frame.f_code), frame.f_lasti))
    task.code, task.instruction = frame.f_code, frame.f_lasti
    task.run = Run(task.number, task, frame.f_code, frame.f_lasti) if is_run else within
