"""Private state of asyncio that user code leaves damaged. Checked on CPython 3.11.7 to 3.14.10."""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.events
import asyncio.mixins
from asyncio import futures
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from loopnb.internals.patching import CodePatch, Patch, PatchSet

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Note = Callable[[RuntimeError], None]


def mend_default_executor(loop: Any) -> bool:
    """Let *loop* make a new default executor if its own was shut down.

    `BaseEventLoop._executor_shutdown_called` and `_default_executor`; `ThreadPoolExecutor._shutdown`.
    Other loops do not show theirs.

    Returns:
        Whether there was something to mend.
    """
    executor = getattr(loop, "_default_executor", None)
    if not getattr(loop, "_executor_shutdown_called", False) and not getattr(executor, "_shutdown", False):
        return False
    loop._executor_shutdown_called = False
    loop._default_executor = None
    return True


def current_policy() -> object:
    """Return the event loop policy without making or deprecating one (`_event_loop_policy`)."""
    return getattr(asyncio.events, "_event_loop_policy", None)


def loop_set_here() -> asyncio.AbstractEventLoop | None:
    """Return what `set_event_loop` was last given in this thread (`_local._loop` of the policy)."""
    local = getattr(current_policy(), "_local", None)
    return getattr(local, "_loop", None)


# By closed loop: who is to see the errors of using it.
_notes: WeakKeyDictionary[asyncio.AbstractEventLoop, Note] = WeakKeyDictionary()


def annotate_closed(loop: asyncio.AbstractEventLoop, note: Note) -> None:
    """Have *note* see the errors of using *loop*, which has been closed.

    `BaseEventLoop._check_closed` is called by each `call_soon`, so only the instance that has been
    closed is patched: an open loop pays nothing.
    """
    stock = type(loop)._check_closed.__get__(loop)  # type: ignore[attr-defined]  # private

    def check_closed() -> None:
        try:
            stock()
        except RuntimeError as error:
            _annotate(error, note)
            raise

    vars(loop)["_check_closed"] = check_closed
    _notes[loop] = note


def forget_closed(loop: asyncio.AbstractEventLoop) -> None:
    """Take `annotate_closed` back."""
    vars(loop).pop("_check_closed", None)
    _notes.pop(loop, None)


def annotate_futures() -> Patch:
    """Return a patch by which futures that are made on a closed loop annotate their errors, too.

    Streams and protocols make futures on their loop without asking whether it is closed. Some keep
    the bound method, hence the code of `BaseEventLoop.create_future`.
    """
    stock: Any = asyncio.base_events.BaseEventLoop.create_future
    return CodePatch(stock, cast("FunctionType", _create_future))


def _create_future(self: Any) -> asyncio.Future[Any]:
    # Runs with the globals of asyncio.base_events, for each future of each loop.
    if self._closed:
        from loopnb.internals.loop_health import stranded_future

        return stranded_future(self)
    return futures.Future(loop=self)


def stranded_future(loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
    """Return a future of *loop*, which has been closed."""
    note = _notes.get(loop)
    return asyncio.Future(loop=loop) if note is None else _StrandedFuture(note, loop=loop)


class _StrandedFuture(asyncio.Future[Any]):
    """A future of a closed loop. A task of another one that awaits it is thrown asyncio's error."""

    def __init__(self, note: Note, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._note = note

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from super().__await__())
        except RuntimeError as error:
            if not self.done():
                _annotate(error, self._note)
            raise

    __iter__ = __await__


_StrandedFuture.__name__ = asyncio.Future.__name__  # its repr is part of asyncio's message


def _annotate(error: RuntimeError, note: Note) -> None:
    """Have *note* see *error*, and take the frame that has caught it out of its traceback."""
    note(error)
    inner = error.__traceback__
    error.__traceback__ = inner.tb_next if inner is not None else None


def annotate_bound(note: Callable[[asyncio.AbstractEventLoop, RuntimeError], None]) -> Patch:
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


class AllTasks:
    """`asyncio.all_tasks`, with some tasks hidden from whoever calls it.

    A Python function up to 3.13, whose code is replaced, so that names imported earlier follow;
    in C from 3.14 on, where the modules' attributes are.

    Args:
        is_hidden: Says of a task whether it is left out.
    """

    def __init__(self, is_hidden: Callable[[asyncio.Task[Any]], bool]) -> None:
        self._is_hidden = is_hidden
        stock: Any = asyncio.all_tasks
        self.patches = PatchSet()
        if isinstance(stock, FunctionType):
            patch = CodePatch(stock, cast("FunctionType", _visible_tasks))
            self._stock: Any = patch.original_function
            self.patches = PatchSet(patch)
        else:
            self._stock = stock
            self.patches = PatchSet(
                Patch(asyncio, "all_tasks", self.visible), Patch(asyncio.tasks, "all_tasks", self.visible)
            )

    def install(self) -> None:
        """Hide them from now on."""
        _hiding.append(self)
        self.patches.install()

    def restore(self) -> None:
        """Hide nothing any more."""
        self.patches.restore()
        _hiding.remove(self)

    def visible(self, loop: asyncio.AbstractEventLoop | None = None) -> set[asyncio.Task[Any]]:
        """Return the tasks of *loop* that are not hidden, as `asyncio.all_tasks` does."""
        return {task for task in self._stock(loop) if not self._is_hidden(task)}


_hiding: list[AllTasks] = []


def _visible_tasks(loop: Any = None) -> Any:
    # Runs with the globals of asyncio.tasks.
    from loopnb.internals.loop_health import _hiding

    return _hiding[-1].visible(loop)
