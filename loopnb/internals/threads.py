"""What threads are busy with. Checked on CPython 3.11.7, 3.12.1, 3.13.0 and 3.14.10."""

from __future__ import annotations

import concurrent.futures.thread as pools
import functools
import sys
import threading
from contextlib import contextmanager
from contextvars import Context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_IDLE = pools._worker.__code__
_CALL = pools._WorkItem.run.__code__


@contextmanager
def before_threads_are_joined(fn: Callable[[], object]) -> Iterator[None]:
    """Have *fn* called when Python ends, unless the block does so first: before it waits for threads.

    Functions of `atexit` come after that. `threading._register_atexit`, and `_threading_atexits`, the
    list of what it makes of them, newest last.
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
    """Yield the threads that Python will wait for at its end, and the innermost frame of each.

    Frames come from `sys._current_frames()`. A thread of a pool is idle while it stands in
    `concurrent.futures.thread._worker` itself; but one of *executor*, which has been shut down, does
    so only between two calls (`ThreadPoolExecutor._threads`).
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
    """Return what a thread of a pool was asked to call, and the Context it was told to call it in.

    The arguments of `_WorkItem.run`: `fn` up to 3.13, `task` from 3.14 on. `asyncio.to_thread` asks
    for `partial(context.run, fn)`. Both are None where it is no thread of a pool.
    """
    while frame is not None and frame.f_code is not _CALL:
        frame = frame.f_back
    item = frame.f_locals.get("self") if frame is not None else None
    fn = getattr(item, "fn", None) or (getattr(item, "task", None) or (None,))[0]
    run = getattr(fn, "func", None)
    context = getattr(run, "__self__", None)
    if isinstance(fn, functools.partial) and isinstance(context, Context) and fn.args:
        return fn.args[0], context
    return fn, None
