"""Private names of asyncio's tasks and of CPython, one function per name.

Checked on CPython 3.11.7, 3.12.1, 3.13.0, 3.14.10 and 3.15.2.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from loopnb.frames import is_ours, without_any_frames_of
from loopnb.nesting._cpython import current_task
from loopnb.nesting.loop_task import open_runners, runner_tasks
from loopnb.tracking.cells import current_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

    from loopnb.tracking.tracked import Origin, Run, TrackedTask

#: From 3.14 on, finding the finished tasks that something refers to takes a scan of every object.
FINISHED_ARE_SCANNED_FOR = sys.version_info >= (3, 14)

stock_create_task: Any = asyncio.BaseEventLoop.create_task

# -- spawning ------------------------------------------------------------


def make_factory(
    task_class: type[TrackedTask],
    *,
    next_number: Callable[[], int],
    clock: Callable[[], float],
    origin_of: Callable[[asyncio.Task[Any]], Origin],
    has_spawned: list[bool] | bool,
    note_spawn: Callable[[Any], None],
    hidden: set[int],
    sites: set[tuple[int, int]],
    locate: Callable[[TrackedTask, FrameType, Run | None], None],
    factory: Callable[..., asyncio.Task[Any]] | None,
) -> Callable[..., asyncio.Task[Any]]:
    """Return the function that makes tracked tasks; see `spawning.tracking_factory`.

    It is one function, since each call between Python functions costs 1.5 to 4 % of a stock spawn. So it uses
    private names inline: `BaseEventLoop._task_factory` (`get_task_factory()` is wrapped),
    `BaseEventLoop._closed`, `sys._getframe`. It looks where the user's frame usually is: behind one function
    of asyncio's, or two for `gather()`.

    Args:
        task_class: `TrackedTask`.
        next_number: See `spawning.tracking_factory`.
        clock: See there.
        origin_of: See there.
        has_spawned: See there.
        note_spawn: See there.
        hidden: Identities of the namespaces whose frames are no spawn sites.
        sites: Known spawn sites behind one function of asyncio's: (id of the code, instruction).
        locate: Notes the spawn site and the run of a task, given the frame that called `create_task`.
        factory: See there.
    """
    look, get_cell, get_spawned = sys._getframe, current_cell.get, runner_tasks.get
    current, gather, runners, absent = current_task, asyncio.gather.__code__, open_runners, object()
    near, far, furthest = (2, 3, 4) if factory is None else (1, 2, 3)
    latest_code: CodeType | None = None
    latest_gathering: CodeType | None = None
    latest_instruction = 0

    def make_tracked(loop: Any, coro: Any, *, name: Any = absent, **options: Any) -> asyncio.Task[Any]:
        nonlocal latest_code, latest_instruction, latest_gathering
        try:
            if factory is not None and (loop._task_factory is not factory or loop._closed):
                options |= {} if name is absent else {"name": name}
                return stock_create_task(loop, coro, **options)  # type: ignore[no-any-return]  # untyped
            # `asyncio.create_task()` passes None on 3.12 and 3.13.
            if (name is absent or name is None) and not options:
                task = task_class(coro, loop=loop)
                task.known_name = None
            else:
                options |= {} if name is absent else {"name": name}
                task = task_class(coro, loop=loop, **options)
                task.get_name()  # sets `known_name`; a task that has begun may know it already
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
                above = None  # not made here; asked below, or an interrupt there would show this error
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
            locate(task, look(near), run)
        if runners and (spawned := get_spawned()) is not None:
            spawned.add(task)
        if not has_spawned:
            note_spawn(coro)
        return task

    return make_tracked


# -- finalizers ------------------------------------------------------------
#
# Finalizers are all that tracking costs at a task's end. A done-callback for each task would cost ten times
# as much.

#: A tuple for each task that ended well: the fields of its `Origin`, its name, and asyncio's word for its
#: state. Process-wide, since a finalizer knows of no session. `History` sets the maximum length.
finished: deque[tuple[Any, ...]] = deque(maxlen=0)
_keep = finished.append
_stock_finalizer = asyncio.Task.__del__


def keep_finished(count: int) -> None:
    """Keep the last *count* tasks that returned or were cancelled; 0 keeps none."""
    global finished, _keep
    finished = deque(finished, maxlen=count)
    _keep = finished.append


def finalize(task: Any) -> None:
    """Finalize a `TrackedTask`. Any thread.

    Private names: `Future._exception`, `Future._state`. asyncio's own finalizer has something to do only for
    pending and failed tasks.
    """
    try:
        if task._exception is None and (state := task._state) != "PENDING":
            _keep((
                task.number, task.spawned_at, task.cell, task.code, task.instruction, task.parent, task.run,
                task.coro, task.known_name, state,
            ))  # fmt: skip
        else:
            task.end_badly()
            _stock_finalizer(task)
    except (AttributeError, RuntimeError):
        return  # the spawn was interrupted, or refused


# -- what a task waits for ------------------------------------------------------------

_GatheringFuture: Any = asyncio.tasks._GatheringFuture  # type: ignore[attr-defined]  # private


def waited_future(task: asyncio.Task[Any]) -> asyncio.Future[Any] | None:
    """Return the future that *task* waits for, or None if the task is due to step (`Task._fut_waiter`)."""
    return task._fut_waiter  # type: ignore[attr-defined,no-any-return]  # private


def gathered(future: asyncio.Future[Any]) -> list[asyncio.Future[Any]] | None:
    """Return what a `gather()` waits for, or None if *future* is no gather (`_GatheringFuture._children`)."""
    if isinstance(future, _GatheringFuture):
        return future._children  # type: ignore[no-any-return]  # untyped, since private
    return None


_WAIT_FOR = asyncio.wait_for.__code__
#: A chain is cut at this length. Cycles are impossible, but generators may delegate very deep.
_LONGEST = 1_000


def frames_of(awaitable: Any) -> Iterator[FrameType]:
    """Yield the frames of a suspended coroutine, outermost first."""
    for _ in range(_LONGEST):
        frame = None
        for prefix in ("cr", "gi", "ag"):
            frame = getattr(awaitable, f"{prefix}_frame", None)
            if frame is not None:
                yield frame
                awaitable = getattr(awaitable, "gi_yieldfrom" if prefix == "gi" else f"{prefix}_await", None)
                break
        if frame is None or awaitable is None:
            return


#: Code of asyncio that awaits tasks through a future of its own, and the local variable that holds them.
_AWAITERS: dict[Any, str] = {
    code: name
    for fn, name in (
        (getattr(asyncio.tasks, "_wait", None), "fs"),
        (asyncio.TaskGroup.__aexit__, "self"),
        (getattr(asyncio.TaskGroup, "_aexit", None), "self"),
    )
    if (code := getattr(fn, "__code__", None)) is not None
}


def awaited_in(frames: list[FrameType]) -> list[Any]:
    """Return the tasks that `asyncio.wait` or the end of a TaskGroup awaits in the innermost of *frames*.

    Private names: the variable `fs` of `asyncio.tasks._wait`; `TaskGroup._tasks`. Returns an empty list on
    versions that have neither.
    """
    for frame in reversed(frames):
        name = _AWAITERS.get(frame.f_code)
        if name is not None:
            value: Any = frame.f_locals.get(name)
            return list(value if name == "fs" else getattr(value, "_tasks", ()))
    return []


def group_children(task: asyncio.Task[Any]) -> list[asyncio.Task[Any]]:
    """Return the live children of each TaskGroup that *task* is in.

    Private names: `TaskGroup._parent_task`, `_tasks`. A group that no variable of a frame refers to is not
    seen before its end is awaited.
    """
    groups: list[Any] = []
    for frame in frames_of(task.get_coro()):
        # By type: `isinstance` would run code of proxies.
        values = [one for one in list(frame.f_locals.values()) if issubclass(type(one), asyncio.TaskGroup)]
        groups += [one for one in values if getattr(one, "_parent_task", None) is task and one not in groups]
    return [child for group in groups for child in list(group._tasks)]


def inside_wait_for(task: asyncio.Task[Any]) -> asyncio.Future[Any] | None:
    """Return what *task* awaits through `asyncio.wait_for`; see `waited_by_wait_for`."""
    return waited_by_wait_for(list(frames_of(task.get_coro())))


def waited_by_wait_for(frames: list[FrameType]) -> asyncio.Future[Any] | None:
    """Return what `asyncio.wait_for` awaits in the innermost of *frames*, through a future of its own.

    Its local variable `fut`. On 3.11 only: later versions have no future of their own.
    """
    if frames and frames[-1].f_code is _WAIT_FOR and "waiter" in frames[-1].f_locals:
        found: asyncio.Future[Any] | None = frames[-1].f_locals.get("fut")
        return found
    return None


def shield_from_wait_for(task: asyncio.Task[Any]) -> None:
    """Shield what *task* awaits through `asyncio.wait_for`, so that cancelling the task spares it.

    Replaces the local variable `fut` of `wait_for`.
    """
    *_, frame = frames_of(task.get_coro())
    frame.f_locals["fut"] = asyncio.shield(frame.f_locals["fut"])
    ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))  # as debuggers do


def end_gather(gathering: asyncio.Future[Any]) -> None:
    """Cancel a `gather()` itself. Its own `cancel` would cancel its children instead."""
    asyncio.Future.cancel(gathering)


def wake_with(task: asyncio.Task[Any], outcome: asyncio.Future[Any]) -> bool:
    """End *task*'s await in *outcome*, and leave the future that it waits for as it is.

    For a future that must not be cancelled, or that never ends. The wake-up of a waiting task is a
    callback of the future that it waits for, bound to the task. We take that callback off, and call it with
    another future.

    Private names: `Task._fut_waiter`; `Future._callbacks`, pairs of callback and Context.

    Args:
        task: A task that is not in a step.
        outcome: A future that has failed or was cancelled. The await raises its error.

    Returns:
        False if the task waits for nothing, or for a future whose callbacks cannot be read.
    """
    waited: Any = task._fut_waiter  # type: ignore[attr-defined]  # private
    for callback, context in list(getattr(waited, "_callbacks", None) or ()):
        if getattr(callback, "__self__", None) is task:
            waited.remove_done_callback(callback)
            task.get_loop().call_soon(callback, outcome, context=context)
            return True
    return False
