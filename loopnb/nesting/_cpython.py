"""Private state of asyncio's event loop, one function per name.

Checked on CPython 3.11.7, 3.12.1, 3.13.0 and 3.14.10.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.events
import asyncio.runners
import ctypes
import gc
import inspect
import sys
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Awaitable, Callable, Coroutine, Iterator
    from contextvars import Context
    from types import AsyncGeneratorType, FrameType, FunctionType

BaseEventLoop = asyncio.base_events.BaseEventLoop

# The hooks that CPython documents for those who write their own Task:
# https://docs.python.org/3/library/asyncio-extending.html
enter_task = asyncio.tasks._enter_task
leave_task = asyncio.tasks._leave_task

#: The running task of a loop. In Python up to 3.11, where the dictionary behind it is faster.
current_task: Callable[[asyncio.AbstractEventLoop], asyncio.Task[Any] | None] = (
    asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]  # private
    if sys.version_info < (3, 12)
    else asyncio.current_task
)

#: The running loop of this thread, or None. Public under this name in the asyncio docs' index,
#: and what `asyncio.run` itself asks.
running_loop: Callable[[], asyncio.AbstractEventLoop | None] = asyncio._get_running_loop

stock_run_once = BaseEventLoop._run_once  # type: ignore[attr-defined]  # private
_RUN_ONCE_CODE = stock_run_once.__code__


def why_not_drivable(loop: asyncio.AbstractEventLoop) -> str | None:
    """Say why *loop* cannot be driven one pass at a time; None if it can.

    Needs the stock `BaseEventLoop._run_once` and a `run_forever` that calls it as
    `self._run_once()`; both have been so since Python 3.4.
    """
    kind = type(loop)
    if is_nested_by_others(loop):
        return f"{reentrant_package()} runs nested on this loop, below this call"
    if isinstance(loop, BaseEventLoop) and _is_stock(kind):
        return None
    replaced = {name for _owner, name, _method in reentrant_methods(kind)}
    name = f"{kind.__module__}.{kind.__qualname__}"
    if not isinstance(loop, BaseEventLoop):
        return f"{name} is not built on asyncio's own loop and cannot be turned one pass at a time"
    if kind._run_once is not stock_run_once and "_run_once" not in replaced:  # type: ignore[attr-defined]  # private
        return f"{name} replaces the method that turns the loop (`_run_once`)"
    if kind.run_forever not in _stock_run_forever() and "run_forever" not in replaced:
        return f"{name} replaces `run_forever`"
    return None


def _is_stock(kind: Any) -> bool:
    return kind._run_once is stock_run_once and kind.run_forever in _stock_run_forever()


def _stock_run_forever() -> tuple[Any, ...]:
    proactor = getattr(asyncio, "ProactorEventLoop", None)
    return BaseEventLoop.run_forever, getattr(proactor, "run_forever", None)


def reentrant_package() -> str | None:
    """Say which package has made asyncio's loops re-entrant (`_nest_patched`, set by both)."""
    if hasattr(asyncio, "_nest_asyncio2"):
        return "nest_asyncio2"
    return "nest_asyncio" if hasattr(asyncio, "_nest_patched") else None


def is_nested_by_others(loop: asyncio.AbstractEventLoop) -> bool:
    """Say whether the caller is in a nested run of such a package: a pass of *loop* on top of another."""
    if reentrant_package() is None or running_loop() is not loop:
        return False
    passes = 0
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "_run_once" and frame.f_locals.get("self") is loop:
            passes += 1
        frame = frame.f_back
    return passes > 1


def reentrant_methods(kind: type) -> list[tuple[type, str, Any]]:
    """Return what such a package has put into loop class *kind*: owner, name, what it hides."""
    found: list[tuple[type, str, Any]] = []
    for owner in kind.__mro__:
        for name in ("run_forever", "run_until_complete", "_run_once", "_check_running"):
            method = vars(owner).get(name)
            if getattr(method, "__module__", None) in {"nest_asyncio", "nest_asyncio2"}:
                found.append((owner, name, getattr(super(owner, owner), name)))
    return found


def owner_of_pass(loop: Any) -> object:
    """Return what the method that makes a pass (`BaseEventLoop._run_once`) is bound to: the loop, or ours."""
    try:
        owner: object = loop._run_once.__self__
    except AttributeError:
        return None
    return owner


def ready_queue(loop: Any) -> deque[asyncio.Handle]:
    """Return the queue of handles that the next pass will run (`BaseEventLoop._ready`)."""
    return loop._ready  # type: ignore[no-any-return]  # private attribute


def is_stopping(loop: Any) -> bool:
    """Say whether `loop.stop()` was called in this run (`BaseEventLoop._stopping`)."""
    return loop._stopping  # type: ignore[no-any-return]  # private attribute


def set_stopping(loop: Any, is_stopping: bool) -> None:
    """Have the run of *loop* end after this pass, as `loop.stop()` does, or take that back."""
    loop._stopping = is_stopping


def wake(loop: Any) -> None:
    """Make a select that is under way return at once (`_write_to_self`). Any thread."""
    loop._write_to_self()


def may_carry(loop: Any, future: asyncio.Future[Any], context: Context, most: int) -> bool:
    """Say whether the ready queue holds a done-callback of *future*, or one in *context*.

    True as well if it holds more than *most* handles. Private names: `BaseEventLoop._ready`,
    `Handle._args` (None once cancelled), `Handle._context`.
    """
    queue = loop._ready
    if len(queue) > most:
        return True
    for index in range(len(queue)):
        # By index: a finalizer or a signal handler may schedule something meanwhile.
        handle: Any = queue[index]
        arguments = handle._args
        if (arguments and arguments[0] is future) or handle._context is context:
            return True
    return False


def current_handle(loop: Any) -> asyncio.Handle | None:
    """Return the handle that runs, in debug mode only (`BaseEventLoop._current_handle`)."""
    return loop._current_handle  # type: ignore[no-any-return]  # private attribute


def set_current_handle(loop: Any, handle: asyncio.Handle | None) -> None:
    """Say which handle runs: the loop names it in its reports."""
    loop._current_handle = handle


class Engine(Protocol):
    """What `turn` looks at between two passes."""

    lot: Any
    is_removed: bool


def turn(loop: Any, run_once: Callable[[], None], engine: Engine) -> None:
    """Make passes until the loop was stopped, a pass ran dry, or *engine* has work: `run_forever`'s own loop.

    What has to be looked at after each pass is looked at in here: a call for it would make every
    pass 20 % slower while anything is parked.
    """
    lot = engine.lot
    ready, unaware = lot.ready, lot.unaware.seen
    while True:
        try:
            run_once()
        except IndexError as error:
            if ran_dry(error):
                return
            raise
        is_done = lot.is_newest_done  # not called as a method, which CPython 3.11 would look for each time
        if ready or is_done() or loop._stopping or unaware or engine.is_removed:
            return


def ran_dry(error: BaseException) -> bool:
    """Say whether *error* only means that other stacks ran what this pass had counted.

    Only `self._ready.popleft()` can raise one in the pass itself. The queue tells nothing any more:
    another thread, a finalizer or a signal handler may have filled it since.
    """
    if not isinstance(error, IndexError):
        return False
    tb = error.__traceback__
    while tb is not None and tb.tb_next is not None:
        tb = tb.tb_next
    return tb is not None and tb.tb_frame.f_code is _RUN_ONCE_CODE


def silence_destroyed_warning(task: asyncio.Future[Any]) -> None:
    """Spare *task* the "was destroyed but it is pending" report, as `run_until_complete` does."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # private


def open_generators(loop: asyncio.AbstractEventLoop) -> list[AsyncGeneratorType[Any, Any]] | None:
    """Return the async generators begun on *loop* that have not ended (`BaseEventLoop._asyncgens`).

    None where the loop keeps them elsewhere, as uvloop's does.
    """
    begun = getattr(loop, "_asyncgens", None)
    return None if begun is None else [one for one in list(begun) if one.ag_frame is not None]


@contextmanager
def set_aside(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Pretend that *loop* does not run in this thread, so that another loop can.

    The order matters on 3.14: leaving a task looks at the running loop of the thread.
    """
    task = asyncio.current_task(loop)
    hooks = sys.get_asyncgen_hooks()
    try:  # already: an interrupt may come between any two lines
        if task is not None:
            leave_task(loop, task)
        asyncio._set_running_loop(None)
        yield
    finally:
        asyncio._set_running_loop(loop)
        sys.set_asyncgen_hooks(*hooks)
        if task is not None and asyncio.current_task(loop) is None:
            enter_task(loop, task)


# -- cancel_flag ------------------------------------------------------------
#
# Clearing the cancel request that a C task has noted in the middle of a step.
#
# `Task.cancel()` on a task whose step is executing sets a flag in the C struct, and the next await
# raises CancelledError. When the step is parked in a nested run, the request is delivered there, and
# the flag must go, or it would be delivered twice. CPython 3.13 clears it when `uncancel()` counts
# down to zero, which loses the count; 3.11 and 3.12 offer nothing at all.
#
# So the bit is looked for: a scratch task is cancelled, and what changed in its memory is compared.
# Where that finds anything but exactly one bit, nothing is ever written.


def has_cancel_flag(task: asyncio.Task[Any]) -> bool:
    """Say whether *task* will raise CancelledError at its next await (`Task._must_cancel`)."""
    return task._must_cancel  # type: ignore[attr-defined,no-any-return]  # private


def cancel_message(task: asyncio.Task[Any]) -> Any:
    """Return the message of the latest `cancel(msg)` of *task* (`Future._cancel_message`)."""
    return task._cancel_message  # type: ignore[attr-defined]  # private


def clear_cancel_flag(task: asyncio.Task[Any]) -> bool:
    """Withdraw the request that `has_cancel_flag` sees; `cancelling()` keeps its count.

    Returns:
        False where this interpreter gives no way to do it: the next await will raise once more.
    """
    if not has_cancel_flag(task):
        return True
    try:
        task._must_cancel = False  # type: ignore[attr-defined]  # a Task written in Python
    except AttributeError:
        bit = _flag_bit()
        if bit is None:
            return False
        offset, mask = bit
        byte = ctypes.c_ubyte.from_address(id(task) + offset)
        byte.value &= ~mask
    return True


class _NoLoop:
    """As much of a loop as a task asks for that never runs."""

    def get_debug(self) -> bool:
        return False

    def call_soon(self, *_args: Any, **_kwargs: Any) -> None: ...

    def is_running(self) -> bool:
        return False


@cache
def _flag_bit() -> tuple[int, int] | None:
    """Find byte offset and mask of `task_must_cancel` in CPython's TaskObj.

    Checked on CPython 3.11.7, 3.12.1, 3.13.0 and 3.14.10.
    """

    async def nothing() -> None: ...

    coro = nothing()
    task: Any = asyncio.Task(coro, loop=_NoLoop())  # type: ignore[arg-type]  # never runs
    try:
        task._cancel_message = None
        size = type(task).__basicsize__
        before = ctypes.string_at(id(task), size)
        task.cancel()
        once = ctypes.string_at(id(task), size)
        task.cancel()
        twice = ctypes.string_at(id(task), size)
        # The counter changes twice, the flag only once.
        found = [
            (offset, before[offset] ^ once[offset])
            for offset in range(size)
            if before[offset] != once[offset] and once[offset] == twice[offset]
        ]
        if len(found) != 1 or found[0][1].bit_count() != 1:
            return None
        offset, mask = found[0]
        ctypes.c_ubyte.from_address(id(task) + offset).value &= ~mask
        if task._must_cancel or task.cancelling() != 2:
            return None
        return found[0]
    finally:
        task._log_destroy_pending = False
        coro.close()


# -- runners ------------------------------------------------------------
#
# Private state of `asyncio.Runner`. Checked on CPython 3.11.7, 3.12.1, 3.13.0 and 3.14.10.


_State: Any = asyncio.runners._State  # type: ignore[attr-defined]  # private

#: The stock functions, as they are looked up at import.
run = cast("FunctionType", asyncio.runners.run)  # not `asyncio.run`: some packages replace that
Runner = asyncio.Runner


def loop_classes() -> list[type[asyncio.AbstractEventLoop]]:
    """Return asyncio's own loop classes on this platform."""
    names = ("SelectorEventLoop", "ProactorEventLoop")
    return [getattr(asyncio, name) for name in names if hasattr(asyncio, name)]


def is_initialized(runner: asyncio.Runner) -> bool:
    """Say whether *runner* has its loop and was not closed yet."""
    return runner._state is _State.INITIALIZED  # type: ignore[attr-defined]  # private


def is_closed(runner: asyncio.Runner) -> bool:
    """Say whether *runner* was closed."""
    return runner._state is _State.CLOSED  # type: ignore[attr-defined]  # private


def loop_of(runner: asyncio.Runner) -> asyncio.AbstractEventLoop | None:
    """Return the loop *runner* has, without giving it one."""
    return runner._loop  # type: ignore[attr-defined,no-any-return]  # private


def context_of(runner: asyncio.Runner) -> Context:
    """Return the Context that *runner* keeps over its runs."""
    return runner._context  # type: ignore[attr-defined,no-any-return]  # private


def debug_of(runner: asyncio.Runner) -> bool | None:
    """Return the *debug* argument of *runner*."""
    return runner._debug  # type: ignore[attr-defined,no-any-return]  # private


def has_loop_factory(runner: asyncio.Runner) -> bool:
    """Say whether *runner* was given a loop factory of its own."""
    return runner._loop_factory is not None  # type: ignore[attr-defined]  # private


def initialize(runner: Any, loop: asyncio.AbstractEventLoop, context: Context) -> None:
    """Give *runner* the running loop, as `_lazy_init` gives it a new one."""
    runner._loop = loop
    runner._context = context
    runner._state = _State.INITIALIZED


def finish(runner: Any) -> None:
    """Mark *runner* closed, as the stock `close` does, without touching the loop."""
    runner._loop = None
    runner._state = _State.CLOSED


def as_coroutine(main: Awaitable[Any]) -> Coroutine[Any, Any, Any]:
    """Check the argument of `run` as the running Python does.

    Raises:
        ValueError: It is no coroutine (up to 3.13).
        TypeError: It cannot be awaited (from 3.14 on, where any awaitable will do).
    """
    if asyncio.iscoroutine(main):
        return main
    if sys.version_info < (3, 14):
        raise ValueError(f"a coroutine was expected, got {main!r}")
    if not inspect.isawaitable(main):
        raise TypeError("An asyncio.Future, a coroutine or an awaitable is required")
    return _await(main)


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def current_policy() -> object:
    """Return the event loop policy without making or deprecating one (`_event_loop_policy`)."""
    return getattr(asyncio.events, "_event_loop_policy", None)


def unseen_error(task: asyncio.Future[Any]) -> BaseException | None:
    """Return what *task* failed with if nobody has retrieved that (`Future._log_traceback`).

    Looking does not count as retrieving, as `exception()` does.
    """
    if task._log_traceback:
        return task._exception
    return None


def error_of(task: asyncio.Future[Any]) -> BaseException | None:
    """Return what *task* failed with, without counting it as retrieved (`Future._exception`)."""
    return task._exception


# -- all tasks of a loop ------------------------------------------------------------------

#: asyncio's weak set of tasks, finished ones included: `_all_tasks` on 3.11, `_scheduled_tasks` on 3.12 and
#: 3.13. From 3.14 on it holds no task made in C.
_tasks_set: Any = (
    None
    if sys.version_info >= (3, 14)
    else getattr(asyncio.tasks, "_scheduled_tasks" if sys.version_info >= (3, 12) else "_all_tasks", None)
)
#: Tasks in their first step, on the stack of their creator, on 3.12 and 3.13. The set above has none of them.
eager_tasks: Any = getattr(asyncio.tasks, "_eager_tasks", ())
_stock_all_tasks = asyncio.all_tasks  # before anything hides the kernel's own


def live_tasks(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    """Return the tasks of *loop* that are not done, the kernel's own too. The loop's thread."""
    if _tasks_set is None:
        return list(_stock_all_tasks(loop))
    return [task for task in _in_set() if not task.done() and task.get_loop() is loop]


def held_finished_tasks(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    """Return the finished tasks of *loop* that something still refers to. The loop's thread.

    From 3.14 on, look at every object there is. That takes 15 ms in a small kernel.
    """
    if _tasks_set is None:
        found = [one for one in gc.get_objects() if issubclass(type(one), asyncio.Task)]
    else:
        found = _in_set()
    return [task for task in found if task.done() and task.get_loop() is loop]


def _in_set() -> list[asyncio.Task[Any]]:
    while True:
        try:
            return [*_tasks_set, *list(eager_tasks)]
        except RuntimeError:  # another thread has made a task meanwhile: `asyncio.all_tasks` tries again, too
            continue
