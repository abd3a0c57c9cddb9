"""What a task knows of itself under private names. Checked on CPython 3.11.7 to 3.14.10."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

_GatheringFuture: Any = asyncio.tasks._GatheringFuture  # type: ignore[attr-defined]  # private


def waited_future(task: asyncio.Task[Any]) -> asyncio.Future[Any] | None:
    """Return the future that *task* waits for; None if it is due to step (`Task._fut_waiter`)."""
    return task._fut_waiter  # type: ignore[attr-defined,no-any-return]  # private


def gathered(future: asyncio.Future[Any]) -> list[asyncio.Future[Any]] | None:
    """Return what a `gather()` waits for; None if *future* is none (`_GatheringFuture._children`)."""
    if isinstance(future, _GatheringFuture):
        return future._children  # type: ignore[no-any-return]  # untyped, since private
    return None


#: Code of asyncio's that awaits tasks through a future of its own, and the local variable that knows them.
_AWAITERS: dict[Any, str] = {
    code: name
    for fn, name in (
        (getattr(asyncio.tasks, "_wait", None), "fs"),
        (asyncio.TaskGroup.__aexit__, "self"),
        (getattr(asyncio.TaskGroup, "_aexit", None), "self"),
    )
    if (code := getattr(fn, "__code__", None)) is not None
}


def awaited_in(frames: list[FrameType]) -> list[Any]:
    """Return the tasks that `asyncio.wait` or the end of a TaskGroup awaits in the last of *frames*.

    `fs` of `asyncio.tasks._wait` and `TaskGroup._tasks`. Nothing where a version has neither.
    """
    for frame in reversed(frames):
        name = _AWAITERS.get(frame.f_code)
        if name is not None:
            value: Any = frame.f_locals.get(name)
            return list(value if name == "fs" else getattr(value, "_tasks", ()))
    return []


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
