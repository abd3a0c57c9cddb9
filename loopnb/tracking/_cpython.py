"""Private names of asyncio's tasks and of CPython, one function per name. Only `make_factory` uses several.

Checked on CPython 3.11.7, 3.12.1, 3.13.0, 3.14.10 and 3.15.2. Unless it says otherwise, call a function in
the loop's thread; none blocks.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import deque
from concurrent.futures import Future as ThreadFuture
from types import CellType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Protocol

from loopnb.frames import is_ours, without_any_frames_of
from loopnb.nesting._cpython import current_task, waited_future
from loopnb.nesting.loop_task import open_runners, runner_tasks
from loopnb.tracking.cells import current_cell
from loopnb.tracking.suspended import code_of, frame_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

#: From 3.14 on, `held_finished_tasks` has to look at every object of the process.
FINISHED_ARE_SCANNED_FOR = sys.version_info >= (3, 14)

stock_create_task: Any = asyncio.BaseEventLoop.create_task

# -- spawning ------------------------------------------------------------------------------------


class Spawns(Protocol):
    """What a spawn needs from the tracker. Called in the loop's thread."""

    @property
    def next_number(self) -> Callable[[], int]:
        """Returns the number of the user's next task."""

    @property
    def clock(self) -> Callable[[], float]:
        """Returns monotonic seconds."""

    @property
    def has_spawned(self) -> list[bool] | bool:
        """While this is true or not empty, spawns are not reported. Read once: never replace the object."""

    def new_number(self, coro: Any) -> int:
        """Return the number of the next task, which may be the kernel's own, given its coroutine."""

    def number_of(self, task: asyncio.Task[Any]) -> int:
        """Return the number of a task that was not made here."""

    def note_spawn(self, task: Any) -> None:
        """Note the spawn of a tracked task. Called only while `has_spawned` is false or empty."""


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
        sites: Known spawn sites behind one function of asyncio's: (id of the code, instruction). What is
            spawned there counts as the user's.
        locate: Notes the spawn site and the run of a task, given the frame that called `create_task` and the
            run of the task that spawned it.
        factory: As for `spawning.tracking_factory`.
    """
    next_number, clock, has_spawned = spawns.next_number, spawns.clock, spawns.has_spawned
    new_number, number_of, note_spawn = spawns.new_number, spawns.number_of, spawns.note_spawn
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
                above = None  # not made here: asked below, or an interrupt would chain this error
            if above is None:
                above, run = number_of(parent), None
        task.number = next_number() if is_known else new_number(coro)
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
            note_spawn(task)
        return task

    return make_tracked


# -- finalizers ----------------------------------------------------------------------------------
#
# Finalizers are all that tracking costs at a task's end. A done-callback for each task would cost ten times
# as much.

#: A tuple for each task that ended well: the fields of its `Origin`, its name, and its state in asyncio's
#: words. Process-wide, since a finalizer knows no session. `History` sets the maximum length.
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


def end_gather(gathering: asyncio.Future[Any]) -> None:
    """Cancel a `gather()` itself. Its own `cancel` would cancel its children instead."""
    asyncio.Future.cancel(gathering)


def wake_with(task: asyncio.Task[Any], outcome: asyncio.Future[Any]) -> bool:
    """End the current await of *task* with *outcome*. The future that it awaits stays as it is.

    Use it if that future must not be cancelled, or will never be done. A waiting task is woken by a
    done-callback of the future, a method bound to the task. We remove this callback, and have it called with
    *outcome*.

    Private name: `Future._callbacks`, pairs of callback and Context.

    Args:
        task: A task that is not in a step.
        outcome: A future that has failed or was cancelled. The await raises its error.

    Returns:
        False if the task awaits nothing, or a future that does not show its callbacks.
    """
    waited: Any = waited_future(task)
    for callback, context in list(getattr(waited, "_callbacks", None) or ()):
        if getattr(callback, "__self__", None) is task:
            waited.remove_done_callback(callback)
            task.get_loop().call_soon(callback, outcome, context=context)
            return True
    return False


_WAIT_FOR = asyncio.wait_for.__code__


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


#: Private functions of asyncio that wait for something, see `waits.Rule`. If one is missing, its waits get
#: the name of the function that waits.
PRIVATE_WAITS: dict[tuple[str, str], tuple[str, int]] = {
    ("asyncio", "as_completed.<locals>._wait_for_one"): ("as completed", 0),  # up to 3.12
    ("asyncio", "_AsCompletedIterator._wait_for_one"): ("as completed", 0),  # from 3.13 on
    ("asyncio", "_AsCompletedIterator.__anext__"): ("as completed", 0),
    ("asyncio", "BaseSelectorEventLoop._sock_connect"): ("connect", 2),
}


def held_by(link: Any) -> list[Any]:
    """Return what the code of a suspended coroutine or generator holds. This makes no frame object.

    These are its arguments in their order, its other local variables, then its value stack. Variables that
    are not set are left out. For variables that inner functions use, the values are returned.

    This relies on the order in which CPython's collector visits a frame: first its code, then what is above
    that. For a frame that is executing, and for anything else, the list may be empty.
    """
    try:
        code = code_of(link)
    except AssertionError:
        return []
    found = gc.get_referents(link)
    for index in range(len(found) - 1, -1, -1):
        if found[index] is code:
            return [_contents(item) if type(item) is CellType else item for item in found[index + 1 :]]
    return []


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None


def entered_in(held: list[Any]) -> Iterator[Any]:
    """Yield the context managers that a coroutine is inside, outermost first, given what `held_by` returned.

    Inside a `with` block the value stack holds the bound method `__exit__` or `__aexit__`. From 3.14 on it
    holds the function and, right after it, the context manager.
    """
    for index, item in enumerate(held):
        if type(item) is MethodType and item.__name__ in _EXITS:
            yield item.__self__
        elif type(item) is FunctionType and item.__name__ in _EXITS and index + 1 < len(held):
            yield held[index + 1]


_EXITS = {"__exit__", "__aexit__"}


def waiters_of(primitive: Any) -> int:
    """Return how many tasks wait for a Lock, Event, Condition or Semaphore (`_waiters`, None or a deque)."""
    return len(getattr(primitive, "_waiters", None) or ())


def futures_of_waiters(primitive: Any) -> list[asyncio.Future[Any]]:
    """Return what those wait for that wait for a Lock or Semaphore (`_waiters`), if these are futures."""
    return [item for item in getattr(primitive, "_waiters", None) or () if isinstance(item, asyncio.Future)]


def getters_of(queue: Any) -> int:
    """Return how many tasks wait in `Queue.get()` (`Queue._getters`)."""
    return len(getattr(queue, "_getters", ()))


def putters_of(queue: Any) -> int:
    """Return how many tasks wait in `Queue.put()` (`Queue._putters`)."""
    return len(getattr(queue, "_putters", ()))


def unfinished_in(queue: Any) -> int:
    """Return how many items `Queue.join()` waits for (`Queue._unfinished_tasks`)."""
    return int(getattr(queue, "_unfinished_tasks", 0))


def lock_of(condition: Any) -> Any:
    """Return the lock of an `asyncio.Condition` (`Condition._lock`); None if it has none."""
    return getattr(condition, "_lock", None)


def tasks_of_group(group: Any) -> list[Any]:
    """Return the tasks of a TaskGroup, asyncio's or anyio's (`TaskGroup._tasks`)."""
    return list(getattr(group, "_tasks", ()))


def todo_of(iterator: Any) -> list[Any]:
    """Return the futures that `as_completed()` still waits for (`_AsCompletedIterator._todo`, from 3.13 on).

    Up to 3.12 it is a generator, and `todo` is its local variable: the only set that it holds.
    """
    todo = getattr(iterator, "_todo", None)
    if todo is None:
        todo = next((item for item in held_by(iterator) if type(item) is set), ())
    return list(todo)


def _callbacks(future: Any) -> list[Any]:
    """Return the callbacks of *future* (`Future._callbacks`: None, or pairs of callback and Context)."""
    return [callback for callback, _context in getattr(future, "_callbacks", None) or ()]


def _variable(function: Any, name: str) -> Any:
    """Return the outer variable of that name that *function* uses; None if it uses none."""
    code = getattr(function, "__code__", None)
    if code is None or name not in code.co_freevars:
        return None
    return _contents(function.__closure__[code.co_freevars.index(name)])


def thread_future_of(future: asyncio.Future[Any]) -> ThreadFuture[Any] | None:
    """Return the `concurrent.futures.Future` that *future* stands for; None if it stands for none.

    Private names: the function `_call_check_cancel` in `asyncio.futures._chain_future`, and the variable
    `source` that it uses.
    """
    for callback in _callbacks(future):
        if getattr(callback, "__name__", "") == "_call_check_cancel":
            source = _variable(callback, "source")
            if isinstance(source, ThreadFuture):
                return source
    return None


def shielded_by(future: asyncio.Future[Any]) -> asyncio.Future[Any] | None:
    """Return what `shield()` waits for, if it returned *future*.

    Private names: the function `_outer_done_callback` in `asyncio.shield`, and `inner`, which it uses.
    """
    for callback in _callbacks(future):
        if getattr(callback, "__name__", "") == "_outer_done_callback":
            inner = _variable(callback, "inner")
            if isinstance(inner, asyncio.Future):
                return inner
    return None


def is_of_gather(task: asyncio.Future[Any]) -> bool:
    """Return True if a `gather()` awaits *task*, or has awaited it until another one failed.

    Private names: the function `_done_callback` in `asyncio.gather`, and `outer`, which it uses.
    """
    return any(
        getattr(callback, "__name__", "") == "_done_callback"
        and isinstance(_variable(callback, "outer"), _GatheringFuture)
        for callback in _callbacks(task)
    )


def default_executor_of(loop: Any) -> Any:
    """Return the executor of `to_thread()` (`BaseEventLoop._default_executor`); None if there is none yet."""
    return getattr(loop, "_default_executor", None)


def load_of(executor: Any) -> tuple[int, int, int] | None:
    """Return how many threads of a ThreadPoolExecutor are busy, how many it may have, how many calls wait.

    None if it is another kind of executor. Private names: `ThreadPoolExecutor._max_workers`, `_threads`,
    `_idle_semaphore`, `_work_queue`.
    """
    try:
        most, queued = executor._max_workers, executor._work_queue.qsize()
        idle = executor._idle_semaphore._value
        # A thread that has ended a call counts as idle only when it looks for the next one.
        return max(len(executor._threads) - idle, 0), most, queued
    except AttributeError:
        return None


def is_queued_in(executor: Any, future: object) -> bool:
    """Return True if the call of *future* waits for a thread of that executor (`_work_queue`).

    It is a `SimpleQueue`. Only the garbage collector shows its items: up to 3.12 in a list.
    """
    items: list[Any] = []
    for found in gc.get_referents(getattr(executor, "_work_queue", None)):
        items += found if type(found) is list else [found]
    return any(getattr(item, "future", None) is future for item in items)


def transport_of(stream: Any) -> Any:
    """Return the transport of a StreamReader or StreamWriter (`_transport`); None if it has none."""
    return getattr(stream, "_transport", None)


def timers_of(loop: Any) -> list[asyncio.TimerHandle] | None:
    """Return the timers of *loop* that are still to come (`BaseEventLoop._scheduled`).

    None if they cannot be seen, as on uvloop.
    """
    scheduled = getattr(loop, "_scheduled", None)
    return None if scheduled is None else [timer for timer in scheduled if not timer.cancelled()]


def ready_handles_of(loop: Any) -> list[asyncio.Handle] | None:
    """Return what *loop* is about to call (`BaseEventLoop._ready`). None if it cannot be seen."""
    ready = getattr(loop, "_ready", None)
    return None if ready is None else [handle for handle in ready if not handle.cancelled()]


def file_handles_of(loop: Any) -> list[asyncio.Handle] | None:
    """Return what *loop* calls when a file is ready (`BaseSelectorEventLoop._selector`).

    None if that cannot be seen, as on uvloop and with Windows' proactor.
    """
    files = getattr(getattr(loop, "_selector", None), "get_map", lambda: None)()
    if files is None:
        return None
    keys = list(files.values())
    return [handle for key in keys for handle in key.data or () if handle is not None]


def callback_of(handle: Any) -> Any:
    """Return what a handle calls (`Handle._callback`)."""
    return getattr(handle, "_callback", None)


def arguments_of(handle: Any) -> tuple[Any, ...]:
    """Return the arguments with which a handle calls its callback (`Handle._args`)."""
    return tuple(getattr(handle, "_args", None) or ())


def signal_handles_of(loop: Any) -> list[asyncio.Handle]:
    """Return what *loop* calls when a signal comes (`BaseEventLoop._signal_handlers`, on Unix only)."""
    return list(getattr(loop, "_signal_handlers", {}).values())


def frames_of_threads() -> dict[int, FrameType]:
    """Return the innermost frame of each thread, by its ident (`sys._current_frames`). Any thread."""
    return sys._current_frames()
