"""Private names of asyncio that nesting needs, one function for each.

Checked on CPython 3.11.7, 3.12.1, 3.13.0, 3.14.10 and 3.15.2. A docstring names other versions only where
they differ. Unless it says otherwise, call a function in the thread of the loop or task that it is given;
none blocks.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.events
import asyncio.runners
import asyncio.selector_events
import ctypes
import inspect
import sys
from contextlib import contextmanager
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol, cast

from loopnb._cpython import eager_tasks
from loopnb.frames import is_ours, outwards
from loopnb.nesting._packages import RELOOP
from loopnb.patching import Patch, copy_of

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Awaitable, Callable, Coroutine, Iterator
    from contextvars import Context
    from types import CodeType, FrameType, FunctionType

BaseEventLoop = asyncio.base_events.BaseEventLoop


def before_reloop(name: str, present: Any) -> Any:
    """Return a function of asyncio's as it was before `reloop.apply()`: *present* if reloop is not on.

    Private name: `reloop._patch._originals` (0.1.0), empty unless reloop is on. Unlike nest_asyncio, reloop
    replaces methods of `BaseEventLoop` itself, and asyncio's hooks for tasks. This module may be imported
    later. Any thread.

    Args:
        name: The name under which reloop keeps it.
        present: What asyncio has now.
    """
    return getattr(sys.modules.get(RELOOP), "_originals", {}).get(name, present)


# The hooks that CPython documents for authors of a Task class:
# https://docs.python.org/3/library/asyncio-extending.html
enter_task = before_reloop("_enter_task", asyncio.tasks._enter_task)
leave_task = before_reloop("_leave_task", asyncio.tasks._leave_task)

#: The running task of a loop. Up to 3.11 `asyncio.current_task` is written in Python, and the dictionary
#: behind it is faster.
current_task: Callable[[asyncio.AbstractEventLoop], asyncio.Task[Any] | None] = (
    asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]  # private
    if sys.version_info < (3, 12)
    else asyncio.current_task
)

#: Returns the running loop of this thread, or None. It is in asyncio's `__all__`, and `asyncio.run` itself
#: calls it.
running_loop: Callable[[], asyncio.AbstractEventLoop | None] = asyncio._get_running_loop

#: Sets the running loop of this thread, as a loop does when a run of it begins or ends. It is in `__all__`,
#: too, for those who write a loop.
set_running_loop: Callable[[asyncio.AbstractEventLoop | None], None] = asyncio._set_running_loop


#: Returns a frame of the calling thread: 0 is the caller's own. This is `sys._getframe`, an implementation
#: detail of CPython by its docs. A function around it would be one more frame to leave out.
frame_at: Callable[[int], FrameType] = sys._getframe

#: One pass of the loop: select, put the handles that are due into the ready queue, run as many as it then
#: holds.
stock_run_once: Any = before_reloop("_run_once", BaseEventLoop._run_once)  # type: ignore[attr-defined]  # private
stock_run_until_complete: Any = before_reloop("run_until_complete", BaseEventLoop.run_until_complete)
#: Code objects by which we recognise a frame on a stack.
RUN_ONCE_CODE: CodeType = stock_run_once.__code__
HANDLE_RUN_CODE: CodeType = asyncio.Handle._run.__code__
RUN_FOREVER_CODE: CodeType = BaseEventLoop.run_forever.__code__
_PROCESS_EVENTS_CODE: CodeType = (
    asyncio.selector_events.BaseSelectorEventLoop._process_events.__code__  # type: ignore[attr-defined]  # private
)
#: Puts a handle into the ready queue: its file descriptor is ready, or its signal has come.
stock_add_callback: Any = BaseEventLoop._add_callback  # type: ignore[attr-defined]  # private


def patch_run_once(loop: asyncio.AbstractEventLoop, run_once: Callable[[], None]) -> Patch:
    """Return the patch of *loop* that puts *run_once* in place of `stock_run_once`. Any thread."""
    return Patch(loop, "_run_once", run_once)


def patch_add_callback(add_callback: Callable[[Any, asyncio.Handle], None]) -> Patch:
    """Return the patch of all loops that puts *add_callback* in place of `stock_add_callback`. Any thread."""
    return Patch(BaseEventLoop, "_add_callback", add_callback)


def why_not_drivable(loop: asyncio.AbstractEventLoop) -> str | None:
    """Return why *loop* cannot be driven one pass at a time, or None if it can.

    Driving needs the stock `BaseEventLoop._run_once`, and the stock `run_forever`, which has called
    `self._run_once()` since Python 3.4.
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
    """Return the package that has made asyncio's loops re-entrant, or None. Any thread.

    anest-asyncio is imported as nest_asyncio. Private names: `asyncio._nest_patched` of both;
    `asyncio._nest_asyncio2` of nest_asyncio2, which sets the first, too; `BaseEventLoop._run_nested` of
    reloop.
    """
    if hasattr(BaseEventLoop, "_run_nested"):
        return "reloop"
    if hasattr(asyncio, "_nest_asyncio2"):
        return "nest_asyncio2"
    return "nest_asyncio" if hasattr(asyncio, "_nest_patched") else None


def is_nested_by_others(loop: asyncio.AbstractEventLoop) -> bool:
    """Return True if the caller is in a pass of *loop* on top of another, as `reentrant_package` allows."""
    if reentrant_package() is None or running_loop() is not loop:
        return False
    passes = [
        frame.f_code.co_name
        for frame in outwards(sys._getframe())
        if frame.f_code.co_name in {"_run_once", "_run_nested"} and frame.f_locals.get("self") is loop
    ]
    return "_run_nested" in passes or len(passes) > 1  # reloop's passes have another name


def reentrant_methods(kind: type) -> list[tuple[type, str, Any]]:
    """Return what `reentrant_package` has put into loop class *kind*: owner, name, and the hidden method."""
    found: list[tuple[type, str, Any]] = []
    for owner in kind.__mro__:
        for name in ("run_forever", "run_until_complete", "_run_once", "_check_running"):
            method = vars(owner).get(name)
            module = getattr(method, "__module__", None)
            if module in {"nest_asyncio", "nest_asyncio2"}:
                found.append((owner, name, getattr(super(owner, owner), name)))
            elif module == RELOOP:
                found.append((owner, name, before_reloop(name, method)))
    return found


def owner_of_pass(loop: Any) -> object:
    """Return the object whose method makes the passes: *loop*, or our engine. Any thread.

    Private name: `BaseEventLoop._run_once`. None if there is no such method.
    """
    try:
        owner: object = loop._run_once.__self__
    except AttributeError:
        return None
    return owner


def ready_queue(loop: Any) -> deque[asyncio.Handle]:
    """Return the queue of handles that the next pass will run (`BaseEventLoop._ready`)."""
    return loop._ready  # type: ignore[no-any-return]  # private attribute


def queued_tasks(loop: Any) -> list[asyncio.Task[Any]]:
    """Return the tasks whose next step is queued for the next pass (`BaseEventLoop._ready`).

    A new task is here even if a signal handler has raised in its constructor. `all_tasks` does not know it
    then. Loops that are not made in Python have no such queue: for these the list is empty.
    """
    callbacks = map(callback_of, getattr(loop, "_ready", ()))
    owners = (getattr(callback, "__self__", None) for callback in callbacks)
    return [owner for owner in owners if isinstance(owner, asyncio.Task)]


def pad_queue(loop: Any, length: int) -> None:
    """Fill the ready queue up to *length* handles (`BaseEventLoop._ready`), with cancelled ones.

    A pass counts the handles first and then pops that many without asking. If other stacks have run some of
    them meanwhile, it would end in "pop from an empty deque".
    """
    queue = loop._ready
    while len(queue) < length:
        filler = asyncio.Handle(_nothing, (), loop)
        filler.cancel()
        queue.append(filler)


def _nothing() -> None: ...


def is_stopping(loop: Any) -> bool:
    """Return True if `loop.stop()` was called in this run (`BaseEventLoop._stopping`)."""
    return loop._stopping  # type: ignore[no-any-return]  # private attribute


def set_stopping(loop: Any, is_stopping: bool) -> None:
    """Set whether the run of *loop* ends after this pass, as after `loop.stop()`."""
    loop._stopping = is_stopping


def wake(loop: Any) -> None:
    """Make a select that is under way return at once (`_write_to_self`). Any thread."""
    loop._write_to_self()


def may_carry(loop: Any, future: asyncio.Future[Any], context: Context, most: int) -> bool:
    """Return True if the ready queue holds a done-callback of *future*, or any handle in *context*.

    Also returns True if the queue holds more than *most* handles: looking through them would take longer than
    a pass. Private names: `BaseEventLoop._ready`, `Handle._args` (None once cancelled), `Handle._context`.
    """
    queue = loop._ready
    if len(queue) > most:
        return True
    for index in range(len(queue)):
        # By index, since a finalizer or a signal handler may schedule something meanwhile, and iteration
        # would fail.
        handle: Any = queue[index]
        arguments = handle._args
        if (arguments and arguments[0] is future) or handle._context is context:
            return True
    return False


def current_handle(loop: Any) -> asyncio.Handle | None:
    """Return the running handle; None outside debug mode (`BaseEventLoop._current_handle`)."""
    return loop._current_handle  # type: ignore[no-any-return]  # private attribute


def set_current_handle(loop: Any, handle: asyncio.Handle | None) -> None:
    """Set the handle that the loop names in its reports (`BaseEventLoop._current_handle`)."""
    loop._current_handle = handle


def callback_of(handle: asyncio.Handle) -> Any:
    """Return what *handle* calls, or None once it is cancelled (`Handle._callback`)."""
    return handle._callback  # type: ignore[attr-defined]  # private


def handle_on(stack: Any) -> asyncio.Handle | None:
    """Return the handle that runs on a parked greenlet, or on one of its parents.

    That is the variable `handle` in the frame of `BaseEventLoop._run_once`.
    """
    while stack is not None:
        for frame in outwards(stack.gr_frame):
            if frame.f_code is RUN_ONCE_CODE:
                found: asyncio.Handle | None = frame.f_locals.get("handle")
                return found
        stack = stack.parent
    return None


def is_called_for_an_event() -> bool:
    """Return True if the selector loop's `_process_events` has called the caller of this function."""
    return sys._getframe(2).f_code is _PROCESS_EVENTS_CODE


def is_called_for_a_handle() -> bool:
    """Return True if `Handle._run` has called the code that runs now, through frames of ours alone."""
    others = (frame for frame in outwards(sys._getframe(1)) if not is_ours(frame.f_code.co_filename))
    caller = next(others, None)
    return caller is not None and caller.f_code is HANDLE_RUN_CODE


class Engine(Protocol):
    """What `turn` looks at between two passes."""

    lot: Any
    is_removed: bool


def turn(loop: Any, run_once: Callable[[], None], engine: Engine) -> None:
    """Make passes until the loop was stopped, a pass ran dry, or *engine* has something to do.

    This is the `while` of `run_forever`. It reads `BaseEventLoop._stopping` itself, and the engine's fields,
    since a Python function called after each pass would make every pass 20 % slower while anything is parked.
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
        is_done = lot.is_newest_done  # a local: on CPython 3.11, calling the attribute itself is slower
        if ready or is_done() or loop._stopping or unaware or engine.is_removed:
            # It refers to a task, whose error may refer to this frame: on 3.13 frames keep their callers.
            del is_done
            return


def ran_dry(error: BaseException) -> bool:
    """Return True if *error* means only that other stacks ran handles which this pass had counted.

    In the pass itself, only `self._ready.popleft()` can raise an IndexError. We do not look whether the queue
    is empty: another thread, a finalizer or a signal handler may have filled it since.
    """
    if not isinstance(error, IndexError):
        return False
    tb = error.__traceback__
    while tb is not None and tb.tb_next is not None:
        tb = tb.tb_next
    return tb is not None and tb.tb_frame.f_code is RUN_ONCE_CODE


def warns_if_destroyed(task: asyncio.Future[Any]) -> bool:
    """Return True if asyncio will report *task* if it is destroyed while it is pending.

    Private name: `Task._log_destroy_pending`.
    """
    return bool(task._log_destroy_pending)  # type: ignore[attr-defined]  # private


def silence_destroyed_warning(task: asyncio.Future[Any]) -> None:
    """Spare *task* the report "was destroyed but it is pending", as `run_until_complete` does.

    Private name: `Task._log_destroy_pending`.
    """
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # private


@contextmanager
def set_aside(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Pretend that *loop* does not run in this thread while the block runs, so that another loop can.

    The order matters on 3.14, where leaving a task looks at the running loop of the thread.
    """
    task = asyncio.current_task(loop)
    hooks = sys.get_asyncgen_hooks()
    try:  # begins this early because an interrupt may come between any two lines
        if task is not None:
            leave_task(loop, task)
        asyncio._set_running_loop(None)
        yield
    finally:
        asyncio._set_running_loop(loop)
        sys.set_asyncgen_hooks(*hooks)
        if task is not None and asyncio.current_task(loop) is None:
            enter_task(loop, task)


#: From 3.14 on, a thread has one slot for a current task, that of its running loop. Before, each loop has its
#: own.
_HAS_ONE_TASK_SLOT = sys.version_info >= (3, 14)


def empty_task_slot(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
    """Make room for the current task of another loop, and return that of *loop*, which runs here.

    Does nothing before 3.14. Private name: `asyncio.tasks._swap_current_task`.
    """
    if not _HAS_ONE_TASK_SLOT:
        return None
    task: asyncio.Task[Any] | None = asyncio.tasks._swap_current_task(loop, None)  # type: ignore[attr-defined]  # private
    return task


def fill_task_slot(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None) -> None:
    """Put back what `empty_task_slot` has returned. *loop* runs here again."""
    if _HAS_ONE_TASK_SLOT:
        asyncio.tasks._swap_current_task(loop, task)  # type: ignore[attr-defined]  # private


# -- what a task waits for -----------------------------------------------------------------------


#: Returns the future that a task waits for, or None if it waits for none: it is due to step, say
#: (`Task._fut_waiter`). It is written in C, since a listing asks ten thousand tasks.
waited_future: Callable[[asyncio.Task[Any]], asyncio.Future[Any] | None] = attrgetter("_fut_waiter")


# -- the cancel request that a task has noted ----------------------------------------------------
#
# `Task.cancel()` on a task whose step is executing sets a flag in the C struct, and the next await raises
# CancelledError. If that step is parked in a nested run, the engine delivers the request there. Then the flag
# has to go, or the request would be delivered twice. CPython 3.13 clears it when `uncancel()` counts down to
# zero, but that loses the count; 3.11 and 3.12 have no way at all.
#
# So we search for the bit: we cancel a scratch task, and compare its memory before and after. Unless exactly
# one bit fits, we never write anything.


def has_cancel_flag(task: asyncio.Task[Any]) -> bool:
    """Return True if *task* will raise CancelledError at its next await (`Task._must_cancel`)."""
    return task._must_cancel  # type: ignore[attr-defined,no-any-return]  # private


def cancel_message(task: asyncio.Task[Any]) -> Any:
    """Return the message of the latest `cancel(msg)` of *task* (`Future._cancel_message`)."""
    return task._cancel_message  # type: ignore[attr-defined]  # private


def clear_cancel_flag(task: asyncio.Task[Any]) -> bool:
    """Withdraw the request that `has_cancel_flag` sees. `cancelling()` keeps its count.

    Returns:
        False if this interpreter has no way to do it. Then the next await raises CancelledError once more.
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
    """Stands in for the loop of a task that never runs: has the methods that such a task calls."""

    def get_debug(self) -> bool:
        return False

    def call_soon(self, *_args: Any, **_kwargs: Any) -> None: ...

    def is_running(self) -> bool:
        return False


@cache
def _flag_bit() -> tuple[int, int] | None:
    """Return byte offset and mask of `task_must_cancel` in CPython's TaskObj, or None if it is not found."""

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


# -- eager tasks ----------------------------------------------------------------------------------

#: From 3.12 on, a task may take its first step on the stack of its creator (`asyncio.eager_task_factory`).
MAY_BE_EAGER = sys.version_info >= (3, 12)


def _is_in_first_step_312(task: asyncio.Task[Any]) -> bool:
    return bool(eager_tasks) and task in eager_tasks


def _is_in_first_step_314(task: asyncio.Task[Any]) -> bool:
    frame = getattr(task.get_coro(), "cr_frame", None)
    below = None if frame is None else frame.f_back
    return below is not None and below.f_code is not HANDLE_RUN_CODE


#: Return True if the running *task* takes its first step on the stack of its creator. Private names:
#: `asyncio.tasks._eager_tasks` on 3.12 and 3.13; the frames from 3.14 on.
is_in_first_step: Callable[[asyncio.Task[Any]], bool] = (
    _is_in_first_step_314 if sys.version_info >= (3, 14) else _is_in_first_step_312
)


# -- asyncio.Runner ------------------------------------------------------------------------------

_State: Any = asyncio.runners._State  # type: ignore[attr-defined]  # private

#: The stock functions, looked up when this module is imported.
run = cast("FunctionType", asyncio.runners.run)  # not `asyncio.run`: some packages replace that
stock_run = copy_of(run)  # what `run` does while its code is not replaced
Runner = asyncio.Runner
stock_lazy_init: Any = Runner._lazy_init  # type: ignore[attr-defined]  # private


def patch_lazy_init(lazy_init: Callable[[asyncio.Runner], None]) -> Patch:
    """Return the patch of all runners that puts *lazy_init* in place of `stock_lazy_init`. Any thread."""
    return Patch(Runner, "_lazy_init", lazy_init)


def loop_classes() -> list[type[asyncio.AbstractEventLoop]]:
    """Return asyncio's own loop classes on this platform."""
    names = ("SelectorEventLoop", "ProactorEventLoop")
    return [getattr(asyncio, name) for name in names if hasattr(asyncio, name)]


def is_initialized(runner: asyncio.Runner) -> bool:
    """Return True if *runner* has its loop and is not closed yet (`Runner._state`)."""
    return runner._state is _State.INITIALIZED  # type: ignore[attr-defined]  # private


def is_closed(runner: asyncio.Runner) -> bool:
    """Return True if *runner* was closed (`Runner._state`)."""
    return runner._state is _State.CLOSED  # type: ignore[attr-defined]  # private


def loop_of(runner: asyncio.Runner) -> asyncio.AbstractEventLoop | None:
    """Return the loop that *runner* has, without giving it one (`Runner._loop`)."""
    return runner._loop  # type: ignore[attr-defined,no-any-return]  # private


def context_of(runner: asyncio.Runner) -> Context:
    """Return the Context that *runner* keeps across its runs (`Runner._context`)."""
    return runner._context  # type: ignore[attr-defined,no-any-return]  # private


def debug_of(runner: asyncio.Runner) -> bool | None:
    """Return the *debug* argument of *runner* (`Runner._debug`)."""
    return runner._debug  # type: ignore[attr-defined,no-any-return]  # private


def has_loop_factory(runner: asyncio.Runner) -> bool:
    """Return True if *runner* was given a loop factory (`Runner._loop_factory`)."""
    return runner._loop_factory is not None  # type: ignore[attr-defined]  # private


def initialize(runner: Any, loop: asyncio.AbstractEventLoop, context: Context) -> None:
    """Give *runner* a loop and a Context, as `Runner._lazy_init` does with new ones."""
    runner._loop = loop
    runner._context = context
    runner._state = _State.INITIALIZED


def finish(runner: Any) -> None:
    """Mark *runner* closed, as the stock `close` does, without touching the loop."""
    runner._loop = None
    runner._state = _State.CLOSED


def as_coroutine(main: Awaitable[Any]) -> Coroutine[Any, Any, Any]:
    """Return the argument of `run` as a coroutine. Refuses what `run` refuses in this version of Python.

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
    """Return the event loop policy, or None (`_event_loop_policy`).

    Unlike asyncio's getter, it makes none and gives no warning.
    """
    return getattr(asyncio.events, "_event_loop_policy", None)


def error_of(task: asyncio.Future[Any]) -> BaseException | None:
    """Return the error of *task*, if any, without counting it as retrieved (`Future._exception`)."""
    return task._exception
