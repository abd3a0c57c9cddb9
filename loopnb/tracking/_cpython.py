"""Private names of asyncio's tasks and of CPython, one function per name.

Checked on CPython 3.11.7, 3.12.1, 3.13.0, 3.14.10 and 3.15.2. Unless it says otherwise, call a function in
the loop's thread; none blocks.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from loopnb.frames import is_ours, without_any_frames_of
from loopnb.nesting._cpython import current_task
from loopnb.nesting.loop_task import open_runners, runner_tasks
from loopnb.tracking.cells import current_cell
from loopnb.tracking.suspended import code_of, frame_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

#: From 3.14 on, `held_finished_tasks` has to look at every object of the process.
FINISHED_ARE_SCANNED_FOR = sys.version_info >= (3, 14)

stock_create_task: Any = asyncio.BaseEventLoop.create_task

# -- spawning ------------------------------------------------------------------------------------


class Spawns(Protocol):
    """What a spawn needs from the tracker. Called in the loop's thread."""

    @property
    def next_number(self) -> Callable[[], int]:
        """Returns the number of the next task."""

    @property
    def clock(self) -> Callable[[], float]:
        """Returns monotonic seconds."""

    @property
    def has_spawned(self) -> list[bool] | bool:
        """While this is true or not empty, spawns are not reported. Read once: never replace the object."""

    def number_of(self, task: asyncio.Task[Any]) -> int:
        """Return the number of a task that was not made here."""

    def note_spawn(self, coro: Any) -> None:
        """Note the spawn of a task with this coroutine. Called only while `has_spawned` is false or empty."""


def make_factory(
    task_class: Callable[..., Any],
    spawns: Spawns,
    *,
    hidden: set[int],
    sites: set[tuple[int, int]],
    locate: Callable[[Any, FrameType, Any], None],
    factory: Callable[..., asyncio.Task[Any]] | None,
) -> Callable[..., asyncio.Task[Any]]:
    """Return the function that makes tracked tasks.

    Everything is inline, since each call of a Python function costs 1.5 to 4 % of a stock spawn. That
    includes private names: `BaseEventLoop._task_factory` (`get_task_factory()` is wrapped),
    `BaseEventLoop._closed`, `sys._getframe`. It expects the user's frame where it usually is: behind one
    function of asyncio's, or behind two for `gather()`.

    Args:
        task_class: `TrackedTask`.
        spawns: Numbers the tasks.
        hidden: `id()` of each namespace whose frames are no spawn sites.
        sites: Known spawn sites behind one function of asyncio's: (id of the code, instruction).
        locate: Notes the spawn site and the run of a task, given the frame that called `create_task` and the
            run of the task that spawned it.
        factory: As for `spawning.tracking_factory`.
    """
    next_number, clock, has_spawned = spawns.next_number, spawns.clock, spawns.has_spawned
    number_of, note_spawn = spawns.number_of, spawns.note_spawn
    look, get_cell, get_spawned = sys._getframe, current_cell.get, runner_tasks.get
    current, gather, runners, absent = current_task, asyncio.gather.__code__, open_runners, object()
    near, far, furthest = (2, 3, 4) if factory is None else (1, 2, 3)
    latest_code: CodeType | None = None
    latest_gathering: CodeType | None = None
    latest_instruction = 0

    def make_tracked(loop: Any, coro: Any, *, name: Any = absent, **options: Any) -> Any:
        nonlocal latest_code, latest_instruction, latest_gathering
        try:
            if factory is not None and (loop._task_factory is not factory or loop._closed):
                options |= {} if name is absent else {"name": name}
                return stock_create_task(loop, coro, **options)
            # None is what `asyncio.create_task()` gives on 3.12 and 3.13.
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
                above = None  # not made here: asked below. An interrupt in this block would chain this error
            if above is None:
                above, run = number_of(parent), None
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


# -- finalizers ----------------------------------------------------------------------------------
#
# Finalizers are all that tracking costs at a task's end. A done-callback for each task would cost ten times
# as much.

#: A tuple for each task that ended well: the fields of its `Origin`, its name, and asyncio's word for its
#: state. Process-wide, since a finalizer knows no session. `History` sets the maximum length.
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


# -- what a task waits for -----------------------------------------------------------------------

_GatheringFuture: Any = asyncio.tasks._GatheringFuture  # type: ignore[attr-defined]  # private


def gathered(future: asyncio.Future[Any]) -> list[asyncio.Future[Any]] | None:
    """Return what a `gather()` waits for, or None if *future* is no gather (`_GatheringFuture._children`)."""
    if isinstance(future, _GatheringFuture):
        return future._children  # type: ignore[no-any-return]  # untyped, since private
    return None


_WAIT_FOR = asyncio.wait_for.__code__

#: Code of asyncio that awaits tasks through a future of its own, by identity -> the local variable that holds
#: them.
_AWAITERS: dict[int, str] = {
    id(code): name
    for fn, name in (
        (getattr(asyncio.tasks, "_wait", None), "fs"),
        (asyncio.TaskGroup.__aexit__, "self"),
        (getattr(asyncio.TaskGroup, "_aexit", None), "self"),
    )
    if (code := getattr(fn, "__code__", None)) is not None
}


def awaited_in(links: list[Any]) -> list[Any]:
    """Return the tasks that `asyncio.wait` or the end of a TaskGroup awaits in the innermost of *links*.

    Private names: the variable `fs` of `asyncio.tasks._wait`; `TaskGroup._tasks`. Returns an empty list on
    versions that have neither.
    """
    for link in reversed(links):
        name = _AWAITERS.get(id(code_of(link)))
        if name is not None:
            value = _local(link, name)
            return list(value or () if name == "fs" else getattr(value, "_tasks", ()))
    return []


def waited_by_wait_for(links: list[Any]) -> asyncio.Future[Any] | None:
    """Return what `asyncio.wait_for` waits for in the innermost of *links*, or None.

    Needed on 3.11 only. There `wait_for` awaits a future of its own, and keeps the user's in its local
    variable `fut`. Later versions await the user's itself.
    """
    if links and code_of(links[-1]) is _WAIT_FOR and _local(links[-1], "waiter") is not None:
        found: asyncio.Future[Any] | None = _local(links[-1], "fut")
        return found
    return None


def _local(link: Any, name: str) -> Any:
    frame = frame_of(link)
    return None if frame is None else frame.f_locals.get(name)
