"""Private names of CPython that watching needs, one function for each.

Checked on CPython 3.11.7 to 3.15.2. Any thread may call them, unless they say otherwise; none blocks. Some
loops, such as uvloop's, are not built on asyncio's own. The docstrings say what is returned for those.
"""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial
from itertools import islice
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from loopnb._cpython import name_of
from loopnb.frames import Owner, owner_of
from loopnb.nesting._cpython import HANDLE_RUN_CODE, callback_of, ready_queue
from loopnb.records import Kept
from loopnb.tracking.holders import attributes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import CodeType, FrameType

#: The most timers and ready handles that are looked at, since a look must not take long.
_MOST = 1_000
#: How many names of tasks a `Kept` holds.
_NAMES = 3
#: The functions of pdb that wait for the user: the end of the file name, and the function. `_cmdloop` calls
#: `cmdloop`.
ASKS_USER = (("/pdb.py", "_cmdloop"),)
#: The file of `concurrent.futures.Future`.
FUTURES_FILE = "/concurrent/futures/_base.py"
#: `asyncio.tasks._current_tasks`: the dictionary by which code can find every task that is running.
CURRENT_TASKS = "_current_tasks"


def frame_of(thread_id: int) -> FrameType | None:
    """Return the innermost frame of that thread (`sys._current_frames`); None if it runs no Python."""
    return sys._current_frames().get(thread_id)


def is_pass(frame: FrameType) -> bool:
    """Return True if *frame* makes a pass of a loop built on asyncio's own (`BaseEventLoop._run_once`).

    By name, since nest-asyncio replaces the method by one that has the same variables.
    """
    return frame.f_code.co_name == "_run_once"


def is_handle(frame: FrameType) -> bool:
    """Return True if *frame* runs a handle (`Handle._run`)."""
    return frame.f_code is HANDLE_RUN_CODE


def pass_facts(frame: FrameType) -> tuple[Any, int, float]:
    """Return the loop of a pass, the identity of the handle that runs, and when its handles began.

    They are local variables of `BaseEventLoop._run_once`: `self`, `handle` and `end_time`, which is the
    loop's time right after select. If a name is missing, its fact is None or 0.
    """
    variables = frame.f_locals
    return variables.get("self"), id(variables.get("handle")), variables.get("end_time", 0.0)


def span_of(code: CodeType, instruction: int) -> tuple[int, int, int, int] | None:
    """Return first and last line, first and last column of the source of an instruction; None if unknown."""
    line, end_line, column, end_column = next(
        islice(code.co_positions(), instruction // 2, None), (None, None, None, None)
    )
    if line is None or end_line is None or column is None or end_column is None:
        return None
    return line, end_line, column, end_column


def cpu_clock(thread_id: int) -> Callable[[], float] | None:
    """Return a clock of the CPU seconds of a live thread; None where there is none (macOS, Windows)."""
    find: Any = getattr(time, "pthread_getcpuclockid", None)
    if find is None:
        return None
    try:
        clock = find(thread_id)
        time.clock_gettime(clock)
    except OSError:
        return None
    return lambda: time.clock_gettime(clock)


# -- what waits --------------------------------------------------------------------------------------


def kept_waiting(loop: Any, now: float) -> Kept:
    """Return what waits for *loop* to turn: nothing, as far as known, if it does not show its queues.

    Private names: `BaseEventLoop._ready`, `BaseEventLoop._scheduled` (a heap), `Handle._callback`.
    """
    try:
        handles = list(islice(ready_queue(loop), _MOST))
        timers = loop._scheduled
        overdue, looked_at = 0, [0]
        while looked_at and overdue < _MOST:
            index = looked_at.pop()
            if index < len(timers) and timers[index]._when <= now:
                timer = timers[index]
                overdue += not timer._cancelled and _owner_of_callback(timer._callback) is not Owner.OURS
                looked_at += (2 * index + 1, 2 * index + 2)
    except (AttributeError, RuntimeError, IndexError):  # another kind of loop; or the queue has just changed
        return Kept()
    tasks = list(islice(filter(None, map(task_of, handles)), _NAMES))
    names = [name_of(task) for task in tasks]  # a list first: see `Judge.block`
    return Kept(len(handles), overdue, tuple(names))


def task_of(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    """Return the task that *handle* steps, or None. Runs no code of the user's."""
    callback = callback_of(handle)
    if type(callback).__module__ not in {"builtins", "_asyncio"}:
        return None  # asking it for an attribute might run a `__getattr__`
    owner = getattr(callback, "__self__", None)
    return owner if issubclass(type(owner), asyncio.Task) else None


def has_handlers(loop: Any) -> bool:
    """Return True if *loop* has a timer or a reader of the user's or a library's. The loop's thread.

    False if it does not show them. Timers and readers of the kernel, the shell and loopnb do not count.
    Timers of asyncio itself do not count either, since a task waits for them. Readers of asyncio count: a
    server may call the user's code. Private names: `BaseEventLoop._scheduled`, `._selector`, `._ssock`,
    `Handle._callback`.
    """
    try:
        timers = islice(loop._scheduled, _MOST)
        own = loop._ssock.fileno()
        keys = list((loop._selector.get_map() or {}).values())
    except AttributeError:
        return False
    readers = [handle for key in keys if key.fd != own for handle in key.data if handle is not None]
    foreign = {Owner.USER, Owner.LIBRARY}
    return _has(timers, foreign) or _has(readers, foreign | {Owner.STDLIB})


def _has(handles: Iterable[Any], owners: set[Owner]) -> bool:
    return any(not handle._cancelled and _owner_of_callback(handle._callback) in owners for handle in handles)


def _owner_of_callback(callback: Any) -> Owner | None:
    """Return who has written *callback*; None for C code. Runs no code of the user's."""
    while True:
        kind = type(callback)
        if kind is partial:
            callback = callback.func
        elif kind is MethodType:
            callback = callback.__func__
        elif kind is FunctionType:
            return owner_of(callback.__code__.co_filename)
        elif type(method := _of_class(kind, "__call__")) is FunctionType:
            callback = method
        else:
            return None


#: Returns the attributes that a class itself has. Runs no code of its metaclass.
_attributes_of_class: Callable[[type], Mapping[str, Any]] = vars(type)["__dict__"].__get__


def _of_class(kind: type, name: str) -> Any:
    """Return what an instance finds at its class, or None.

    Unlike `inspect.getattr_static`, it takes less than 1 us: a thousand timers may ask while the GIL is held.
    """
    for base in type.__getattribute__(kind, "__mro__"):
        found = _attributes_of_class(base)
        if name in found:
            return found[name]
    return None


def selector_of(loop: Any) -> Any:
    """Return the selector whose `select` each pass calls once (`BaseEventLoop._selector`); None if none."""
    return getattr(loop, "_selector", None)


# -- what has a loop ---------------------------------------------------------------------------------

#: A class with one of these names has objects that may have a loop: a slot for it, or the mark of a future.
_LOOP_NAMES = frozenset({"_loop", "_asyncio_future_blocking"})


def stores_loop(value: object) -> bool:
    """Return True if *value* itself holds `_loop`, by which asyncio's objects know their loop."""
    return "_loop" in attributes_of(value)


def may_have_loop(value: object, have_loops: dict[type, bool]) -> bool:
    """Return False if `loop_of`, which takes ten times as long, need not be asked.

    Private names: `_loop`, and `_asyncio_future_blocking`, by which asyncio recognises futures.

    Args:
        value: The object.
        have_loops: Remembers which classes have what it looks for.
    """
    if stores_loop(value):
        return True
    kind = type(value)
    if kind not in have_loops:
        bases = type.__getattribute__(kind, "__mro__")
        names = [name for base in bases for name in _attributes_of_class(base)]
        have_loops[kind] = not _LOOP_NAMES.isdisjoint(names)
    return have_loops[kind]


def has_ended(value: Any) -> bool:
    """Return True if *value*, which has a loop, is of no use any more or needs its loop no more.

    Such objects are: a future that is done, an event that is set, a handle, a TaskGroup that was left, a
    server that was closed, a subprocess that has ended, and any object that notes that it is closed.

    Private names: `TaskGroup._exiting` and `._tasks`, `Server._sockets`, `Process._transport`,
    `BaseSubprocessTransport._returncode`, `StreamWriter._transport`. `_closed` and `_closing` are what
    transports have, and clients of other packages. If a name is missing, the object counts as in use.
    """
    kind = type(value)
    if issubclass(kind, asyncio.Future):
        return asyncio.Future.done(value)
    if issubclass(kind, asyncio.Handle):
        return True
    if kind is asyncio.Event:
        return bool(value.is_set())
    held = attributes_of(value)
    if kind is asyncio.TaskGroup:
        return bool(held.get("_exiting")) and not held.get("_tasks")
    if kind is asyncio.Server:
        return held.get("_sockets", ()) is None
    transport = attributes_of(held.get("_transport"))
    if kind is asyncio.subprocess.Process:
        return transport.get("_returncode") is not None
    return any(names.get(name) is True for names in (held, transport) for name in ("_closed", "_closing"))
