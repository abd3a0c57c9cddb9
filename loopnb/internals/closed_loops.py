"""Seeing the errors of what is bound to a closed loop, before anybody else does.

Checked on CPython 3.11.7 to 3.14.10, uvloop 0.23.0.
"""

from __future__ import annotations

import asyncio
import asyncio.base_futures
import asyncio.mixins
import contextlib
import gc
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from loopnb.internals.asyncio_state import running_loop
from loopnb.internals.patching import MethodWrapper, Patch

if TYPE_CHECKING:
    from collections.abc import Callable

    Note = Callable[[RuntimeError], None]
    NoteOf = Callable[[asyncio.AbstractEventLoop, RuntimeError], None]

#: What a loop that is not asyncio's can refuse once it is closed. Its own check is out of reach.
_REFUSED_WHEN_CLOSED = [
    name
    for name, method in vars(asyncio.AbstractEventLoop).items()
    if inspect.isfunction(method) and not name.startswith("_") and not inspect.iscoroutinefunction(method)
]


def annotate_closed(loop: asyncio.AbstractEventLoop, note: Note) -> None:
    """Have *note* see the errors of using *loop*, which has been closed.

    Only the instance that has been closed is patched: an open loop pays nothing. Each `call_soon` of
    a closed loop of asyncio's calls `BaseEventLoop._check_closed`.
    """
    names = ["_check_closed"] if isinstance(loop, asyncio.BaseEventLoop) else _REFUSED_WHEN_CLOSED
    for name in names:
        vars(loop)[name] = _annotating(getattr(loop, name), note)


def forget_closed(loop: asyncio.AbstractEventLoop) -> None:
    """Take `annotate_closed` back."""
    for name in ("_check_closed", *_REFUSED_WHEN_CLOSED):
        vars(loop).pop(name, None)


def _annotating(stock: Callable[..., Any], note: Note) -> Callable[..., Any]:
    def method(*args: Any, **kwargs: Any) -> Any:
        try:
            return stock(*args, **kwargs)
        except RuntimeError as error:
            _annotate(error, note)
            raise

    return method


def _annotate(error: RuntimeError, note: Note) -> None:
    """Have *note* see *error*, and take the frame that has caught it out of its traceback."""
    note(error)
    inner = error.__traceback__
    error.__traceback__ = inner.tb_next if inner is not None else None


def annotate_bound(note: NoteOf) -> Patch:
    """Return a patch by which *note* sees the errors of locks, events and queues of other loops.

    Those that have waited once are bound to their loop (`_LoopBoundMixin._get_loop` and `_loop`).
    """
    owner: Any = asyncio.mixins._LoopBoundMixin
    stock = owner._get_loop

    def get_loop(self: Any) -> Any:
        try:
            return stock(self)
        except RuntimeError as error:
            _annotate(error, partial(note, self._loop))
            raise

    return Patch(owner, "_get_loop", get_loop)


def annotate_awaited(is_closed: Callable[[asyncio.AbstractEventLoop], bool], note: NoteOf) -> Patch:
    """Return a patch by which *note* sees "attached to a different loop".

    A task raises that where it awaits a future or a task of another loop. The error is made in C, and
    goes into the task by way of `call_soon`. On the way there the future says its repr, for the
    message: that it is said in the middle of a step, while the task's coroutine does not run, is how
    to tell (`base_futures._future_repr_info`, which the reprs of tasks call, too).

    Args:
        is_closed: Says of a loop whether *note* wants to see the errors of its futures.
        note: Called with the loop and the error.
    """
    stock: Any = asyncio.base_futures._future_repr_info

    def future_repr_info(future: Any) -> Any:
        with contextlib.suppress(Exception):  # a future of another kind, a repr in any state
            loop = future.get_loop()
            if is_closed(loop) and _is_step_over():
                _see_next_error(partial(note, loop))
                # Else asyncio takes the next `await` of it for a mistake of another kind.
                future._asyncio_future_blocking = False
        return stock(future)

    return Patch(asyncio.base_futures, "_future_repr_info", future_repr_info)


#: From 3.14 on the one in C does not know of tasks in Python, which nest_asyncio2 makes.
_current_python_task = getattr(asyncio.tasks, "_py_current_task", asyncio.current_task)


def _is_step_over() -> bool:
    """Say whether the running task's coroutine has just yielded, and the task looks at what it has."""
    task = asyncio.current_task() or _current_python_task()
    coro: Any = None if task is None else task.get_coro()
    return coro is not None and not getattr(coro, "cr_running", getattr(coro, "gi_running", True))


def _see_next_error(note: Note) -> None:
    """Have *note* see the error that the next `call_soon` of the running loop is about to deliver."""
    loop: Any = running_loop()

    def call_soon(call: Callable[..., Any], callback: Any, *args: Any, **options: Any) -> Any:
        wrapper.restore()
        # Of C's tasks the callback is an object that knows task and error; Python's pass it on.
        for error in (*args, *gc.get_referents(callback)):
            if isinstance(error, RuntimeError):
                note(error)
        return call(callback, *args, **options)

    wrapper = MethodWrapper(type(loop), "call_soon", call_soon, loop)
    wrapper.install()
