"""Making tracked tasks: a task factory whose tasks know where they came from.

A factory of the user's goes on making its own tasks; `UsersFactory` notes where each of those comes from.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING, Any

from loopnb.frames import is_ours, loops_namespaces, without_any_frames_of
from loopnb.nesting._cpython import current_task
from loopnb.nesting.loop_task import open_runners, runner_tasks
from loopnb.patching import MethodWrapper, PatchSet
from loopnb.tracking._cpython import get_frame, has_other_factory, stock_create_task
from loopnb.tracking.tracked import Run, TrackedTask

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar
    from types import CodeType, FrameType

    from loopnb.records import CellRef
    from loopnb.tracking.tracked import Origin

    Factory = Callable[..., asyncio.Task[Any]]

_log = logging.getLogger("loopnb")

#: Namespaces of asyncio's modules and of ours, by identity: their frames are no spawn sites. Process-wide, as
#: modules are.
_hidden: set[int] = set()
#: Calls of asyncio functions that spawn: (id of the code, instruction). There the user's frame is two frames
#: further out than the loop's own method. To look at the frame between costs 10 % of a spawn, since Python
#: has to make an object of it. Process-wide, as code is.
_sites: set[tuple[int, int]] = set()
_MOST_SITES = 4096


def tracking_factory(
    *,
    next_number: Callable[[], int],
    clock: Callable[[], float],
    cell: ContextVar[CellRef | None],
    origin_of: Callable[[asyncio.Task[Any]], Origin],
    has_spawned: list[bool] | bool,
    note_spawn: Callable[[Any], None],
    factory: Callable[..., asyncio.Task[Any]] | None = None,
) -> Callable[..., asyncio.Task[Any]]:
    """Return a task factory whose tasks know their origin.

    It is one function, since each call between Python functions costs 1.5 % of a stock spawn. It looks where
    the user's frame usually is: behind one function of asyncio's, or two for `gather()`.

    Args:
        next_number: Returns the number of the next task.
        clock: Seconds, monotonic.
        cell: The cell whose code runs.
        origin_of: Returns the origin of a task that was not made here.
        has_spawned: While it is true in a boolean context, nobody need hear of a spawn.
        note_spawn: Called with the coroutine of each task that is spawned otherwise.
        factory: None for a task factory. Or such a factory, made here: then the function returned can stand
            in for `BaseEventLoop.create_task` of loops that have it, which saves a call for each spawn.
            Where a loop has another factory, it does what the method does.
    """
    _hidden.update(loops_namespaces())
    hidden, look, get_cell, get_spawned = _hidden, get_frame, cell.get, runner_tasks.get
    current, gather, sites, runners = current_task, asyncio.gather.__code__, _sites, open_runners
    nameless = {"name": None}
    near, far, furthest = (2, 3, 4) if factory is None else (1, 2, 3)
    latest_code: CodeType | None = None
    latest_gathering: CodeType | None = None
    latest_instruction = 0

    def make_tracked(loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        nonlocal latest_code, latest_instruction, latest_gathering
        try:
            if factory is not None and has_other_factory(loop, factory):
                return stock_create_task(loop, coro, **options)  # type: ignore[no-any-return]  # private
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
            frame = look(far)
        except ValueError:  # called at the bottom of a stack
            frame = look(near)
        code = frame.f_code
        if code is gather:
            frame = look(furthest)
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
            above = run = None
        else:
            try:
                above = parent.number
                run = parent.run
            except AttributeError:
                above = None  # not made here: an interrupt in there would show this error, too
            if above is None:
                above, run = origin_of(parent).number, None
        task.number = next_number()
        task.spawned_at = clock()
        task.cell = get_cell()
        task.parent = above
        task.coro = coro
        if is_known:
            task.code = code
            task.instruction = instruction
            task.run = run
        else:
            _locate(task, look(near), run)
        if runners and (spawned := get_spawned()) is not None:
            spawned.add(task)
        if not has_spawned:
            note_spawn(coro)
        return task

    return make_tracked if factory is None else functools.update_wrapper(make_tracked, stock_create_task)


def can_stand_in(loop: asyncio.AbstractEventLoop) -> bool:
    """Return True if *loop* makes its tasks by the method that such a function can stand in for."""
    return getattr(type(loop), "create_task", None) is stock_create_task


def site_of(frame: FrameType) -> tuple[CodeType | None, int, bool, int]:
    """Return the innermost place, from *frame* outwards, that is neither asyncio's nor ours.

    Returns:
        Its code, None if the loop has called and nobody's code has; the instruction there; whether it
        calls `asyncio.run()`; and how many frames further out it is.
    """
    hidden, run = _hidden, asyncio.run.__code__
    is_run, depth = False, 0
    while id(frame.f_globals) in hidden:
        outer = frame.f_back
        if outer is None:
            return None, 0, False, depth
        is_run = frame.f_code is run
        frame = outer
        depth += 1
    return frame.f_code, frame.f_lasti, is_run, depth


def _locate(task: TrackedTask, frame: FrameType, run: Run | None) -> None:
    """Note where *task* is being spawned, outside asyncio's code and ours, and in which run.

    Args:
        task: The task.
        frame: Of whoever called the loop's `create_task`.
        run: The nested `asyncio.run()` that goes on there. If the frame calls `asyncio.run()` itself, *task*
            is the main task of a new one.
    """
    code, instruction, is_run, depth = site_of(frame)
    task.code, task.instruction = code, instruction
    task.run = run if code is None or not is_run else Run(task.number, task, code, instruction)
    if code is None:
        return
    if depth == 1:
        if len(_sites) >= _MOST_SITES:
            _sites.clear()
        _sites.add((id(code), instruction))
    else:
        # This call sometimes goes through asyncio and sometimes straight to the loop.
        _sites.discard((id(code), instruction))


class UsersFactory:
    """Lets the user's own task factory go on making tasks, and notes where each comes from.

    It wraps `set_task_factory()` and `get_task_factory()` of one loop. The loop's thread.

    The user's tasks are not of our class, and asyncio's eager factory is a user's one, too. So their end is
    not seen: they are not in the history, and asyncio itself reports failures that nobody looks at.

    Args:
        loop: The loop.
        own: What makes its tasks while the user has no factory.
        adopt: Called with each task that the user's factory has made.

    Attributes:
        users: The user's factory; None while there is none.
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
        """Wrap the factory that is there, and those that are set from now on."""
        present = self._loop.get_task_factory()
        self._was_there = present is not None and present is not self._own
        if self._was_there:
            self._set(self._loop.set_task_factory, present)
        self._wrappers.install()

    def restore(self) -> bool:
        """Reinstall the user's factory. Always returns True."""
        self._wrappers.restore()
        present = self._loop.get_task_factory()
        if self.users is not None and present is self._wrapper:
            self._loop.set_task_factory(self.users)
        elif self._was_there and present is self._own:  # theirs has been taken off meanwhile
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
