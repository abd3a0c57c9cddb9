"""Private names of Python that `loop` needs. Checked on CPython 3.11.7 to 3.15.2, and uvloop 0.23.0.

Three stories: state of a loop that user code leaves damaged or open, threads that are busy when Python ends,
and which loop is set here or belongs to an object.
"""

from __future__ import annotations

import asyncio
import asyncio.events
import concurrent.futures.thread as pools
import functools
import inspect
import itertools
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from contextvars import Context
from types import BuiltinMethodType, GetSetDescriptorType, MemberDescriptorType, MethodType
from typing import TYPE_CHECKING, Any

from loopnb.frames import outwards
from loopnb.nesting._cpython import current_policy
from loopnb.patching import MethodWrapper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import AsyncGeneratorType, FrameType


def mend_default_executor(loop: Any) -> bool:
    """Let *loop* make a new default executor if its own was shut down. The loop's thread.

    `BaseEventLoop._executor_shutdown_called` and `_default_executor`; `ThreadPoolExecutor._shutdown`. Loops
    that lack these, such as uvloop's, stay as they are.

    Returns:
        True if the executor was shut down.
    """
    executor = getattr(loop, "_default_executor", None)
    if not getattr(loop, "_executor_shutdown_called", False) and not getattr(executor, "_shutdown", False):
        return False
    loop._executor_shutdown_called = False
    loop._default_executor = None
    return True


def mend_signal_handlers(loop: Any) -> None:
    """Have signals reach *loop* again if another loop took them over and is closed. The main thread.

    A descriptor of somebody else that is still open stays.

    Python announces signals through one file descriptor for the whole process. Each of asyncio's loops sets
    it to a descriptor of its own. A loop that removes its last handler resets it for the whole process.

    Private names: `_signal_handlers` and `_csock` of the loop, `unix_events._sighandler_noop`. Does nothing
    on Windows, which lacks the first and the last.
    """
    handlers, noop = getattr(loop, "_signal_handlers", None), getattr(asyncio, "unix_events", None)
    if not handlers or noop is None or loop.is_closed():
        return
    own = loop._csock.fileno()
    present = signal.set_wakeup_fd(own)
    if present == own:
        return
    if is_open_descriptor(present):  # an open descriptor that is not ours was set on purpose
        signal.set_wakeup_fd(present)
        return
    for sig in handlers:
        if sig != signal.SIGINT and signal.getsignal(sig) is signal.SIG_DFL:
            signal.signal(sig, noop._sighandler_noop)
            signal.siginterrupt(sig, False)


def signal_gate(loop: Any, get: Callable[[int], Any]) -> MethodWrapper | None:
    """Return the patch that has *loop* answer a signal only while Python's handler is the loop's own.

    asyncio reads the numbers of signals from a file descriptor and calls what was added for each, whichever
    handler Python has. Private names: `_UnixSelectorEventLoop._handle_signal(sig)`, and
    `unix_events._sighandler_noop`. Returns None where there are none: on Windows, and for uvloop's loops.

    Args:
        loop: The loop.
        get: Returns Python's handler of a signal.
    """
    noop = getattr(getattr(asyncio, "unix_events", None), "_sighandler_noop", None)
    if noop is None or not hasattr(type(loop), "_handle_signal"):
        return None

    def answer(handle: Callable[[int], None], sig: int) -> None:
        if get(sig) is noop:
            handle(sig)

    return MethodWrapper(type(loop), "_handle_signal", answer, loop)


def is_open_descriptor(descriptor: int) -> bool:
    """Return True if *descriptor* is an open file of this process."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def open_generators(loop: asyncio.AbstractEventLoop) -> list[AsyncGeneratorType[Any, Any]] | None:
    """Return the async generators begun on *loop* that have not ended (`BaseEventLoop._asyncgens`).

    None if the loop keeps them elsewhere, as uvloop's does.
    """
    begun = getattr(loop, "_asyncgens", None)
    return (
        None if begun is None else [generator for generator in list(begun) if generator.ag_frame is not None]
    )


def loop_set_here() -> asyncio.AbstractEventLoop | None:
    """Return the loop last given to `set_event_loop` in this thread (`_local._loop` of the policy)."""
    local = getattr(current_policy(), "_local", None)
    return getattr(local, "_loop", None)


# -- threads that are busy when Python ends -------------------------------------------------------

_IDLE = pools._worker.__code__
_CALL = pools._WorkItem.run.__code__


@contextmanager
def before_threads_are_joined(fn: Callable[[], object]) -> Iterator[None]:
    """Have *fn* called when Python ends, before Python waits for threads, unless the block ends first.

    `atexit` calls its functions after that wait. Private names: `threading._register_atexit`, and
    `_threading_atexits`, the list it adds to, the newest last.
    """
    registered: Any = threading
    registered._register_atexit(fn)
    ours = registered._threading_atexits[-1]
    try:
        yield
    finally:
        if ours in registered._threading_atexits:
            registered._threading_atexits.remove(ours)


def default_executor(loop: Any) -> Any | None:
    """Return the executor of `asyncio.to_thread()`, if *loop* has made one (`_default_executor`)."""
    return getattr(loop, "_default_executor", None)


def busy_threads(executor: Any | None) -> Iterator[tuple[threading.Thread, FrameType]]:
    """Yield the busy threads that Python will wait for when it ends, and the innermost frame of each.

    A thread of a pool is idle while its innermost frame is that of `concurrent.futures.thread._worker`. A
    thread of *executor*, which has been shut down, counts as busy even there: it is between two calls.
    Private names: `sys._current_frames()`, `ThreadPoolExecutor._threads`.
    """
    own = getattr(executor, "_threads", ())
    frames = sys._current_frames()
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if thread.daemon or thread is threading.main_thread() or frame is None:
            continue
        if thread in own or frame.f_code is not _IDLE:
            yield thread, frame


def call_of(frame: FrameType | None) -> tuple[Callable[..., Any] | None, Context | None]:
    """Return the function that a thread of a pool executes, and the Context of that call.

    They come from `_WorkItem.run`: `fn` up to 3.13, `task` from 3.14 on. `asyncio.to_thread` submits
    `partial(context.run, fn)`. Both are None for other threads; the Context is None for other submissions.
    """
    item = next((caller.f_locals.get("self") for caller in outwards(frame) if caller.f_code is _CALL), None)
    fn = getattr(item, "fn", None) or (getattr(item, "task", None) or (None,))[0]
    run = getattr(fn, "func", None)
    context = getattr(run, "__self__", None)
    if isinstance(fn, functools.partial) and isinstance(context, Context) and fn.args:
        return fn.args[0], context
    return fn, None


def has_run_in_pool(error: BaseException) -> bool:
    """Return True if *error* was raised in a thread of a pool: `asyncio.to_thread()`, `run_in_executor()`.

    Its traceback then holds a frame of `concurrent.futures.thread._WorkItem.run`.
    """
    tb = error.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code is _CALL:
            return True
        tb = tb.tb_next
    return False


# -- which loop an object belongs to -------------------------------------------------------------

#: Items of a container that are looked at.
_ITEMS = 20


def objects_in(frame: FrameType) -> Iterator[object]:
    """Yield what the code of *frame* works with: its variables, and some of their attributes and items.

    Of global variables and attributes, these are only those that the code names: a notebook may have
    thousands. No code of the user's runs: instead of the value of a property it yields
    the property.
    """
    code, variables = frame.f_code, frame.f_locals
    named = [frame.f_globals[name] for name in code.co_names if name in frame.f_globals]
    own = [] if variables is frame.f_globals else list(variables.values())
    for value in (*own, *named):
        yield value
        if isinstance(value, list | tuple | set | frozenset):
            yield from itertools.islice(value, _ITEMS)
        elif isinstance(value, dict):
            yield from itertools.islice(value.values(), _ITEMS)
        else:
            for name in code.co_names:
                yield _stored(value, name)


def loop_of(value: object) -> asyncio.AbstractEventLoop | None:
    """Return the loop that *value* belongs to, or *value* if it is a loop. None if it belongs to none.

    `_loop` is the attribute by which asyncio's transports, locks, events and queues know their loop.
    aiohttp's and asyncpg's clients have it, too.
    """
    with suppress(Exception):  # an object of the user's may be half made
        if isinstance(value, MethodType | BuiltinMethodType):
            value = value.__self__
        if isinstance(value, asyncio.AbstractEventLoop):
            return value
        loop = value.get_loop() if asyncio.isfuture(value) else _stored(value, "_loop")
        if isinstance(loop, asyncio.AbstractEventLoop):
            return loop
    return None


def _stored(value: object, name: str) -> Any:
    """Return an attribute of *value* without running code of the user's. None if there is none.

    What its class holds, such as a property, is returned as it is.

    `getattr` would be simpler, but it calls properties and the `__getattr__` of proxies: the user's code.
    """
    with suppress(Exception):
        found = inspect.getattr_static(value, name, None)
        if isinstance(found, MemberDescriptorType | GetSetDescriptorType):
            found = found.__get__(value, type(value))
        return found
    return None
