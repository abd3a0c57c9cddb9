"""Make a task leave what it awaits, where `task.cancel()` cancels too much or fails. The loop's thread."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from loopnb.nesting._cpython import waited_future
from loopnb.tracking._cpython import end_gather, gathered, wake_with
from loopnb.tracking.tracked import woken

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_in_circle(task: asyncio.Task[Any], known: set[int]) -> bool:
    """Return True if *task* awaits itself, or tasks that do, so that `task.cancel()` would never end.

    Like `cancel()`, this follows awaits and gathers. It finds no circle with a nested run in it.

    Args:
        task: The task.
        known: The ids of futures that lead to no circle. This adds those that it finds. If you cancel many
            tasks in one step, pass the same set: they may all await one gather of thousands.
    """
    path: list[asyncio.Future[Any]] = [task]
    on_path, left = {id(task)}, [_cancelled_with(task)]
    while path:
        below = next(left[-1], None)
        if below is None:
            left.pop()
            ended = id(path.pop())
            on_path.discard(ended)
            known.add(ended)
        elif id(below) in on_path:
            return True
        elif id(below) not in known:
            path.append(below)
            on_path.add(id(below))
            left.append(_cancelled_with(below))
    return False


def _cancelled_with(future: asyncio.Future[Any]) -> Iterator[asyncio.Future[Any]]:
    """Yield the tasks and gathers that `future.cancel()` cancels."""
    awaited = [waited_future(future)] if isinstance(future, asyncio.Task) else gathered(future) or ()
    for item in awaited:
        if item is not None and (isinstance(item, asyncio.Task) or gathered(item) is not None):
            yield item


def leave(future: asyncio.Future[Any]) -> None:
    """Make a task leave what it awaits, with CancelledError, or end a gather without its children."""
    waited = waited_future(future) if isinstance(future, asyncio.Task) else future
    if waited is not None and gathered(waited) is not None:
        end_gather(waited)
    elif isinstance(future, asyncio.Task):
        end_with(future, None)


def end_with(task: asyncio.Task[Any], error: BaseException | None) -> bool:
    """End the current await of *task* with *error*, or with CancelledError if *error* is None.

    Returns:
        False if the task has no await that can be ended.
    """
    outcome = task.get_loop().create_future()
    if error is None:
        outcome.cancel()
    else:
        outcome.set_exception(error)
    is_woken = wake_with(task, outcome)
    if is_woken:
        woken.add(task)
    return is_woken
