"""Private state of asyncio's event loop, one function per name.

Checked on CPython 3.11.7, 3.12.1, 3.13.0 and 3.14.10.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator
    from contextvars import Context
    from types import AsyncGeneratorType, FrameType

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
