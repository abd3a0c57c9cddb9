"""Making tracked tasks: a task factory that knows where each of them comes from."""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.runners
import asyncio.taskgroups
import functools
import logging
import sys
import weakref
from typing import TYPE_CHECKING, Any

from loopnb.frames import is_ours, without_any_frames_of
from loopnb.nesting import known_tasks
from loopnb.nesting._cpython import current_task
from loopnb.nesting.loop_task import open_runners, runner_tasks
from loopnb.patching import MethodWrapper, PatchSet
from loopnb.tracking.tracked import Run, TrackedTask

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar
    from types import CodeType, FrameType

    from loopnb.records import CellRef
    from loopnb.tracking.tracked import Origin

    Factory = Callable[..., asyncio.Task[Any]]

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


# -- factories ------------------------------------------------------------
#
# A task factory of the user's own: it goes on making the tasks, and where each comes from is noted.
#
# Asyncio's eager one is such a factory. Its tasks are not of our class, so that their end is not seen:
# they are not in the history, and of a failure that nobody looks at asyncio tells, as without us.


_log = logging.getLogger("loopnb")


class UsersFactory:
    """Stands before `set_task_factory()` and `get_task_factory()` of one loop. The loop's thread.

    Args:
        loop: The loop.
        own: What makes its tasks while the user has no factory.
        adopt: Called with each task that the user's has made.

    Attributes:
        users: The user's; None while there is none.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, own: Factory, adopt: Callable[[asyncio.Task[Any]], object]
    ) -> None:
        self.users: Any = None
        self._loop = loop
        self._own = own
        self._adopt = adopt
        self._wrapper: Any = None
        self._was_there = False
        self._wrappers = PatchSet(
            MethodWrapper(type(loop), "set_task_factory", self._set, loop),
            MethodWrapper(type(loop), "get_task_factory", self._get, loop),
        )

    def install(self) -> None:
        """Look after the one that is there, and those that are set from now on."""
        present = self._loop.get_task_factory()
        self._was_there = present is not None and present is not self._own
        if self._was_there:
            self._set(self._loop.set_task_factory, present)
        self._wrappers.install()

    def restore(self) -> bool:
        """Leave the loop the user's factory. True."""
        self._wrappers.restore()
        present = self._loop.get_task_factory()
        if self.users is not None and present is self._wrapper:
            self._loop.set_task_factory(self.users)
        elif self._was_there and present is self._own:  # he has taken his off meanwhile
            self._loop.set_task_factory(None)
        self.users = self._wrapper = None
        return True

    def _set(self, set_factory: Callable[[Any], None], factory: Any) -> None:
        if factory is None or factory is self._own:
            self.users = None
            set_factory(self._own)
            return
        set_factory(factory)  # refuses what cannot be called
        self.users, self._wrapper = factory, self._noting(factory)
        set_factory(self._wrapper)

    def _get(self, get_factory: Callable[[], Any]) -> Any:
        present = get_factory()
        return self.users if present is self._wrapper and present is not None else present

    def _noting(self, factory: Factory) -> Factory:
        def make(*args: Any, **options: Any) -> asyncio.Task[Any]:
            try:
                task = factory(*args, **options)
            except BaseException as error:
                error.__traceback__ = without_any_frames_of(error.__traceback__, is_ours)
                raise
            try:
                self._adopt(task)
            except Exception:  # noqa: BLE001  an observer; the task may be of any kind
                _log.exception("noting where a task comes from failed")
            return task

        return make
