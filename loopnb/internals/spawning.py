"""Making tracked tasks: a task factory that knows where each of them comes from."""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.runners
import asyncio.taskgroups
import functools
import sys
import weakref
from typing import TYPE_CHECKING, Any

from loopnb.internals import known_tasks
from loopnb.internals.asyncio_state import current_task
from loopnb.internals.frames import is_ours, without_any_frames_of
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

_stock_create_task: Any = asyncio.base_events.BaseEventLoop.create_task


def _hide_own_frames() -> None:
    ours = [module for name, module in list(sys.modules.items()) if f"{name}.".startswith("loopnb.")]
    _HIDDEN_GLOBALS.update(id(vars(module)) for module in ours)


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
    _hide_own_frames()
    hidden, get_frame, get_cell, get_spawned = _HIDDEN_GLOBALS, sys._getframe, cell.get, runner_tasks.get
    current, gather, sites, runners = current_task, asyncio.gather.__code__, _sites, open_runners
    refer, weak = known_tasks.own_refs.append if known_tasks.NEEDS_OWN_REFS else None, weakref.ref
    nameless = {"name": None}
    near, far, furthest = (2, 3, 4) if factory is None else (1, 2, 3)
    latest_code: CodeType | None = None
    latest_gathering: CodeType | None = None
    latest_instruction = 0

    def make_tracked(loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        nonlocal latest_code, latest_instruction, latest_gathering
        try:
            if factory is not None and (loop._task_factory is not factory or loop._closed):
                return _stock_create_task(loop, coro, **options)  # type: ignore[no-any-return]  # private
            if not options or options == nameless:  # which `asyncio.create_task()` gives on 3.12 and 3.13
                task = TrackedTask(coro, loop=loop)
                task.known_name = None
            else:
                task = TrackedTask(coro, loop=loop, **options)
                task.get_name()  # it is known from now on; a task that has begun may have been asked already
        except BaseException as error:
            error.__traceback__ = without_any_frames_of(error.__traceback__, is_ours)
            raise
        try:
            frame = get_frame(far)
        except ValueError:  # called at the bottom of a stack
            frame = get_frame(near)
        code = frame.f_code
        if code is gather:
            frame = get_frame(furthest)
            code, instruction = frame.f_code, frame.f_lasti
            is_known = code is latest_gathering
            if not is_known and id(frame.f_globals) not in hidden:
                is_known, latest_gathering = True, code
        elif (instruction := frame.f_lasti) == latest_instruction and code is latest_code:
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
        task.coro = coro
        if is_known:
            task.code = code
            task.instruction = instruction
            task.run = within
        else:
            _locate(task, get_frame(near), within)
        if runners and (spawned := get_spawned()) is not None:
            spawned.add(task)
        if refer is not None:
            refer(weak(task))
            if len(known_tasks.own_refs) > known_tasks.prune_at:
                known_tasks.prune()
        return task

    return make_tracked if factory is None else functools.update_wrapper(make_tracked, _stock_create_task)


def can_stand_in(loop: asyncio.AbstractEventLoop) -> bool:
    """Say whether *loop* makes its tasks by the method that such a function knows how to stand in for."""
    return getattr(type(loop), "create_task", None) is _stock_create_task


#: Calls (code's id, instruction) of asyncio functions that spawn: two frames further out than the loop's
#: own method. To look at the frame between costs 10 % of a spawn, since Python has to make an object of it.
_sites: set[tuple[int, int]] = set()
_MOST_SITES = 4096


def site_of(frame: FrameType) -> tuple[CodeType | None, int, bool, int]:
    """Return the innermost place, from *frame* outwards, that is neither asyncio's nor ours.

    Returns:
        Its code, None if the loop has called and nobody's code has; the instruction there; whether it
        calls `asyncio.run()`; and how many frames further out it is.
    """
    hidden, run = _HIDDEN_GLOBALS, asyncio.run.__code__
    is_run, depth = False, 0
    while id(frame.f_globals) in hidden:
        outer = frame.f_back
        if outer is None:
            return None, 0, False, depth
        is_run = frame.f_code is run
        frame = outer
        depth += 1
    return frame.f_code, frame.f_lasti, is_run, depth


def _locate(task: TrackedTask, frame: FrameType, within: Run | None) -> None:
    """Note the innermost frame that is neither asyncio's nor ours as the place where *task* was spawned.

    Args:
        task: The task.
        frame: Of whoever called the loop's `create_task`.
        within: The nested `asyncio.run()` that goes on there; if the frame calls that, a new one is noted.
    """
    code, instruction, is_run, depth = site_of(frame)
    task.code, task.instruction, task.run = code, instruction, within
    if code is None:
        return
    if depth == 1:
        if len(_sites) >= _MOST_SITES:
            _sites.clear()
        _sites.add((id(code), instruction))
    else:
        # A call that sometimes goes through asyncio and sometimes to the loop itself.
        _sites.discard((id(code), instruction))
    if is_run:
        task.run = Run(task.number, task, code, instruction)
