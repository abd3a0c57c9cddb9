"""Ending what a cell waits for, and only that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from loopnb.internals.task_state import gathered, waited_future
from loopnb.internals.wakeups import wake_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    IsForeign = Callable[[asyncio.Task[Any]], bool]


def cancel_sparing(future: asyncio.Future[Any], is_foreign: IsForeign) -> None:
    """Cancel *future*, but no foreign task that it waits for, however deep. The loop's thread.

    `task.cancel()` cancels whatever the task awaits. Of an interrupted cell that is too much: a
    background task that it only looks at shall live on. Whoever awaits a foreign task is woken with
    CancelledError instead.

    Args:
        future: What is to end.
        is_foreign: Says of a task whether it must live on.
    """
    if not isinstance(future, asyncio.Task) or not any(map(is_foreign, _awaited_by(future))):
        future.cancel()
        return
    waited = waited_future(future)
    for below in _below(waited):
        if not (isinstance(below, asyncio.Task) and is_foreign(below)):
            cancel_sparing(below, is_foreign)
    if waited is not None and any(map(is_foreign, _tasks(_below(waited)))):
        end_with(future, None)


def end_with(task: asyncio.Task[Any], error: BaseException | None) -> bool:
    """Have the await that *task* is at end in *error*, or with None in CancelledError."""
    outcome = task.get_loop().create_future()
    if error is None:
        outcome.cancel()
    else:
        outcome.set_exception(error)
    return wake_with(task, outcome)


def _awaited_by(task: asyncio.Task[Any]) -> Iterator[asyncio.Task[Any]]:
    """Yield the tasks that *task* waits for, and those that they wait for."""
    for below in _tasks(_below(waited_future(task))):
        yield below
        yield from _awaited_by(below)


def _below(future: asyncio.Future[Any] | None) -> list[asyncio.Future[Any]]:
    if future is None:
        return []
    return gathered(future) or [future]


def _tasks(futures: list[asyncio.Future[Any]]) -> list[asyncio.Task[Any]]:
    return [future for future in futures if isinstance(future, asyncio.Task) and not future.done()]
