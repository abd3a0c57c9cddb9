"""Ending what a cell waits for, and only that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from loopnb.internals.task_state import (
    cancelled_with,
    end_gather,
    gathered,
    shield_from_wait_for,
    waited_future,
)
from loopnb.internals.wakeups import wake_with

if TYPE_CHECKING:
    from collections.abc import Callable

    IsForeign = Callable[[asyncio.Task[Any]], bool]


def cancel_sparing(future: asyncio.Future[Any], is_foreign: IsForeign) -> None:
    """Cancel *future*, but no foreign task that it waits for, however deep. The loop's thread.

    `task.cancel()` cancels whatever the task awaits. Of an interrupted cell that is too much: a
    background task that it only looks at shall live on. Whoever awaits a foreign task is woken with
    CancelledError instead.

    Limits: what a TaskGroup has spawned is not seen while its body still awaits something else, nor
    is what runs on behalf of a `concurrent.futures.Future`.

    Args:
        future: What is to end.
        is_foreign: Says of a task whether it must live on.
    """
    if not _leads_to(future, is_foreign, set()):
        future.cancel()
        return
    children = gathered(future)
    if children is not None:
        for child in children:
            if not child.done() and not _is_spared(child, is_foreign):
                cancel_sparing(child, is_foreign)
        end_gather(future)
        return
    assert isinstance(future, asyncio.Task)  # nothing else leads anywhere
    waited = waited_future(future)
    if waited is not None and _is_spared(waited, is_foreign):
        end_with(future, None)
    elif waited is not None and (isinstance(waited, asyncio.Task) or gathered(waited) is not None):
        cancel_sparing(waited, is_foreign)  # whose end is that of *future*
    else:
        for inner in cancelled_with(future):
            if _is_spared(inner, is_foreign):
                shield_from_wait_for(future)
            elif _leads_to(inner, is_foreign, set()):
                cancel_sparing(inner, is_foreign)
        future.cancel()


def _is_spared(future: asyncio.Future[Any], is_foreign: IsForeign) -> bool:
    return isinstance(future, asyncio.Task) and is_foreign(future)


def _leads_to(future: asyncio.Future[Any], is_foreign: IsForeign, seen: set[object]) -> bool:
    """Say whether *future* waits for a foreign task, or for something that does."""
    if future in seen:
        return False
    seen.add(future)
    below = list(gathered(future) or ())
    if isinstance(future, asyncio.Task) and not future.done():
        waited = waited_future(future)
        below = [*([] if waited is None else [waited]), *cancelled_with(future)]
    return any(
        not one.done() and (_is_spared(one, is_foreign) or _leads_to(one, is_foreign, seen)) for one in below
    )


def end_with(task: asyncio.Task[Any], error: BaseException | None) -> bool:
    """Have the await that *task* is at end in *error*, or with None in CancelledError."""
    outcome = task.get_loop().create_future()
    if error is None:
        outcome.cancel()
    else:
        outcome.set_exception(error)
    return wake_with(task, outcome)
