"""Private names of Python that several folders need, and a way around a fault of Python's.

Checked on CPython 3.11.7 to 3.15.2.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import sys
import time
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import ModuleType

thread_time: Callable[[], float] = getattr(time, "thread_time", time.perf_counter)
"""`time.thread_time`, which returns the CPU seconds of this thread. In Pyodide, the seconds of a clock.

On a busy machine work takes longer and costs the same.
"""


def is_being_imported(module: ModuleType) -> bool:
    """Return True while the module's own code runs, in whichever thread. Any thread; does not block.

    `ModuleSpec._initializing`. False if there is no such attribute. `importlib` has no public way to ask. To
    import the module again would wait for its lock, or, in the importing thread, return a half-made module.
    """
    return bool(getattr(module.__spec__, "_initializing", False))


#: After a SystemError, a source is parsed so many times more. The garbage that has caused it is gone by then.
_RETRIES = 3


def parse(source: str) -> ast.Module:
    """Parse *source*, as `ast.parse` does.

    On Python 3.11, that raises SystemError ("AST constructor recursion depth mismatch") if meanwhile the
    garbage collector runs code that parses, too. Formatting a traceback does, so a task that failed and that
    nobody has awaited is enough.

    Raises:
        SyntaxError: The source is not Python.
        ValueError: The source contains null bytes.
    """
    for _ in range(_RETRIES):
        try:
            return ast.parse(source)
        except SystemError:
            continue
    return ast.parse(source)


# -- what a task says of itself ------------------------------------------------------------------
#
# What only looks at tasks asks them here. A class of the user's may override any method, and raise. Such a
# task goes on for all that, since asyncio calls few of its methods. So ask asyncio's own methods: they know
# the truth, and run no code of the user's. Only a task that inherits from none of these is asked itself.

# As they were at import: nest_asyncio puts others in place of the classes.
_done, _get_loop = asyncio.Future.done, asyncio.Future.get_loop
_get_coro, _get_name, stock_cancelling = asyncio.Task.get_coro, asyncio.Task.get_name, asyncio.Task.cancelling


def is_done(future: Any) -> bool:
    """Return True if a task or future has ended, or cannot say. Any thread, as all of these."""
    try:
        return _done(future)
    except TypeError:
        return bool(_ask(future, "done", default=True))


def loop_of_task(future: Any) -> asyncio.AbstractEventLoop | None:
    """Return the loop of a task or future; None if it cannot say."""
    try:
        return _get_loop(future)
    except TypeError:
        loop: asyncio.AbstractEventLoop | None = _ask(future, "get_loop", default=None)
        return loop


def coro_of(task: Any) -> Any:
    """Return the coroutine of *task*; None if it cannot say."""
    try:
        return _get_coro(task)
    except TypeError:
        return _ask(task, "get_coro", default=None)


def cancelling_of(task: Any) -> int:
    """Return how often *task* was asked to end, less what it has taken back.

    asyncio does not know of what was delivered to nested waits: ask `loop_task.cancel_requests`.
    """
    try:
        return stock_cancelling(task)
    except TypeError:
        count = _ask(task, "cancelling", default=0)
        return count if isinstance(count, int) else 0


def name_of(task: Any) -> str:
    """Return the name of *task*, that of a class of the user's own if it gives one; "" if it cannot say."""
    name = _ask(task, "get_name", default=None)
    if not isinstance(name, str):
        try:
            return _get_name(task)
        except TypeError:
            return ""
    return name


def _ask(future: Any, method: str, default: Any) -> Any:
    try:
        return getattr(future, method)()
    except Exception:  # noqa: BLE001  a class of the user's, which may do anything
        return default


# -- tasks of a loop -----------------------------------------------------------------------------

# The C function from 3.14 on, the Python one before. shell/ makes `asyncio.all_tasks` hide the kernel's
# own tasks; up to 3.13 it does so inside that very function, so the sets are read here instead.
_all_tasks: Any = getattr(asyncio.tasks, "_c_all_tasks", None) or asyncio.all_tasks
#: asyncio's own weak set of tasks, which keeps finished ones too: `_all_tasks` on 3.11, `_scheduled_tasks` on
#: 3.12 and 3.13. From 3.14 on, tasks made in C are in no set that Python code can read.
_scheduled: Any = (
    None
    if sys.version_info >= (3, 14)
    else getattr(asyncio.tasks, "_scheduled_tasks" if sys.version_info >= (3, 12) else "_all_tasks", None)
)
#: On 3.12 and 3.13, tasks in their first step on the stack of their creator. They are not in the other set.
eager_tasks: Any = getattr(asyncio.tasks, "_eager_tasks", ())


def live_tasks(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    """Return every task of *loop* that is not done, the kernel's own too. The loop's thread."""
    if _scheduled is None:
        return list(_all_tasks_of(loop))
    tasks = _tasks_in_sets()
    try:  # half as long as by functions
        return [task for task in tasks if _get_loop(task) is loop and not _done(task)]
    except TypeError:  # a task that inherits from none of asyncio's
        return [task for task in tasks if loop_of_task(task) is loop and not is_done(task)]


def _all_tasks_of(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    """Return all live tasks of *loop*, from 3.14 on."""
    try:
        tasks: set[asyncio.Task[Any]] = _all_tasks(loop)
    except Exception:  # noqa: BLE001  it calls methods of each task, and a class of the user's may do anything
        return {task for task in _tasks_among_objects() if loop_of_task(task) is loop and not is_done(task)}
    return tasks


Refs: TypeAlias = "set[ref[asyncio.Task[Any]]] | dict[ref[asyncio.Task[Any]], None]"
"""Weak references to tasks."""


def refs_of_tasks(loop: asyncio.AbstractEventLoop) -> Refs:
    """Return a weak reference to each live task of *loop*. The loop's thread.

    Up to 3.13 there are also references to finished tasks and to those of other loops. Sorting them out takes
    longer than all else that a listing does if nothing has changed. A task has the same reference each time.
    From 3.14 on it is a dictionary, in the order of the tasks' addresses: memory is read fastest from one end
    to the other. Most of the time goes into `all_tasks`, which calls two methods of each task of our class.

    `WeakSet.data`, a set of weak references.
    """
    if _scheduled is None:
        tasks = sorted(_all_tasks_of(loop), key=id)
        return dict.fromkeys(map(ref, tasks))
    refs: set[ref[asyncio.Task[Any]]] = _scheduled.data.copy()
    if eager_tasks:
        refs.update(map(ref, list(eager_tasks)))
    return refs


#: About so many references are made in one step of `refs_in_steps`.
_SOME = 1_536
#: Tasks that stand in one page of memory, of 2 to this power bytes, belong to one step.
_PAGE = 12


def refs_in_steps(loop: asyncio.AbstractEventLoop) -> Generator[bool, None, Refs]:
    """Do what `refs_of_tasks` does, in steps: from 3.14 on it takes too long for one.

    Each of the first steps asks for all tasks, which takes 2 ms for 10,000, and makes references to some of
    them. Their addresses tell which: their places in the set change when others end. So a task that lives all
    the time is never missing. Yield True if the next step is such a long one, and return the references.
    """
    if _scheduled is not None:
        return refs_of_tasks(loop)
    made: list[list[ref[asyncio.Task[Any]]]] = []
    step, steps = 0, 1
    while step < steps:
        tasks = _all_tasks_of(loop)
        if step == 0:
            steps = max(-(-len(tasks) // _SOME), 1)
        some = [task for task in tasks if (id(task) >> _PAGE) % steps == step]
        step += 1
        del tasks  # now, or the collector would look at all of them while references are made
        made.append(list(map(ref, some)))
        del some
        yield step < steps
    refs: dict[ref[asyncio.Task[Any]], None] = {}
    for part in made:
        living: set[ref[asyncio.Task[Any]]] = set()
        for task_ref in part:
            task = task_ref()
            if task is not None:  # otherwise the reference has no hash, unless somebody has asked for it
                living.add(task_ref)
        task = None
        refs |= dict.fromkeys(sorted(living, key=hash))  # which is an address
        yield False
    return refs


def count_live(loop: asyncio.AbstractEventLoop) -> int:
    """Return how many live tasks *loop* has. From 3.14 on, it takes half as long as `refs_of_tasks`."""
    return len(live_tasks(loop) if _scheduled is not None else _all_tasks_of(loop))


def held_finished_tasks(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    """Return the tasks of *loop* that are done and that somebody still refers to. The loop's thread.

    From 3.14 on this looks at every object that the garbage collector knows, which takes about 15 ms. Weak
    references of our own would be faster here, but they would make every spawn a tenth slower.
    """
    tasks = _tasks_among_objects() if _scheduled is None else _tasks_in_sets()
    try:
        return [task for task in tasks if _done(task) and _get_loop(task) is loop]
    except TypeError:  # see `live_tasks`
        return [task for task in tasks if is_done(task) and loop_of_task(task) is loop]


def _tasks_among_objects() -> list[asyncio.Task[Any]]:
    # Not isinstance(): it would ask each object for its `__class__`, which may be somebody's property.
    kinds = (asyncio.Task, asyncio.tasks._PyTask)  # type: ignore[attr-defined]  # private
    return [found for found in gc.get_objects() if issubclass(type(found), kinds)]


def _tasks_in_sets() -> list[asyncio.Task[Any]]:
    while True:
        try:
            return [*_scheduled, *eager_tasks]
        except RuntimeError:  # another thread has made a task meanwhile; `asyncio.all_tasks` tries again, too
            continue


def unseen_error(task: asyncio.Future[Any]) -> BaseException | None:
    """Return the error of *task* if nobody has retrieved it (`Future._log_traceback`, `Future._exception`).

    Unlike `exception()`, this does not count as retrieving it.
    """
    if task._log_traceback:
        return task._exception
    return None
