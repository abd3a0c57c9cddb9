"""Cancel what a cell waits for, but no task of another cell. Call in the loop's thread."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from loopnb.nesting._cpython import waited_future
from loopnb.shell._cpython import group_children, inside_wait_for, shield_from_wait_for
from loopnb.tracking._cpython import end_gather, gathered
from loopnb.tracking.leaving import end_with, leave

if TYPE_CHECKING:
    from collections.abc import Callable

    IsForeign = Callable[[asyncio.Task[Any]], bool]


def cancel_sparing(future: asyncio.Future[Any], is_foreign: IsForeign) -> None:
    """Cancel *future*, but none of the foreign tasks that it waits for, however indirectly.

    `task.cancel()` cancels whatever the task awaits. For an interrupted cell that is too much: a background
    task that the cell awaits must live on. Instead, a task that awaits a foreign task is woken
    with CancelledError.

    The children of its TaskGroups are cancelled with it, no matter which cell spawned them.

    A task that has not begun is cancelled first, before what waits for it. `wait_for` and TaskGroups would
    cancel it only in a later pass. By then it would have begun, and might await a foreign task.

    Tasks that await each other in a circle are ended, too. `task.cancel()` would go round the circle until it
    raises RecursionError. Instead, we wake a task of the circle with CancelledError, and go no further there.

    What it cannot do: see tasks behind a `concurrent.futures.Future`, or a TaskGroup that no variable refers
    to.

    Args:
        future: The future or task to cancel.
        is_foreign: Returns True for a task that must live on.
    """
    knots = _knots(future, is_foreign)
    for knot in knots:
        leave(knot)
    _cancel_what_has_not_begun(future, is_foreign)
    _cancel(future, (lambda task: task in knots or is_foreign(task)) if knots else is_foreign)


def _cancel_what_has_not_begun(future: asyncio.Future[Any], is_foreign: IsForeign) -> None:
    seen: set[object] = {future}
    left = _all_below(future)
    while left:
        below = left.pop()
        if below in seen or _is_spared(below, is_foreign):
            continue
        seen.add(below)
        left += _all_below(below)
        if isinstance(below, asyncio.Task) and not _has_begun(below):
            below.cancel()


def _has_begun(task: asyncio.Task[Any]) -> bool:
    coro = task.get_coro()
    return not inspect.iscoroutine(coro) or inspect.getcoroutinestate(coro) != inspect.CORO_CREATED


def _cancel(future: asyncio.Future[Any], is_foreign: IsForeign) -> None:
    if not _leads_to(future, is_foreign, set()):
        try:
            future.cancel()
        except RecursionError:  # a chain of a thousand tasks
            leave(future)
        return
    children = gathered(future)
    if children is not None:
        for child in children:
            if not child.done() and not _is_spared(child, is_foreign):
                _cancel(child, is_foreign)
        end_gather(future)
        return
    assert isinstance(future, asyncio.Task)  # no other future leads to a foreign task
    waited = waited_future(future)
    if waited is not None and _is_spared(waited, is_foreign):
        end_with(future, None)
    elif waited is not None and (isinstance(waited, asyncio.Task) or gathered(waited) is not None):
        _cancel(waited, is_foreign)  # when that ends, so does *future*
    else:
        inner = inside_wait_for(future)
        if inner is not None and _is_spared(inner, is_foreign):
            shield_from_wait_for(future)
        for below in (inner, *group_children(future)):
            if below is not None and _leads_to(below, is_foreign, set()):
                _cancel(below, is_foreign)
        future.cancel()


def cancel_below(task: asyncio.Task[Any], is_foreign: IsForeign) -> None:
    """Cancel the tasks that *task* waits for and those of its TaskGroups, as `cancel_sparing` does."""
    waited = waited_future(task)
    for below in (waited, inside_wait_for(task), *group_children(task)):
        is_task = below is not None and (isinstance(below, asyncio.Task) or gathered(below) is not None)
        if below is not None and is_task and not below.done() and not _is_spared(below, is_foreign):
            cancel_sparing(below, is_foreign)


def _is_spared(future: asyncio.Future[Any], is_foreign: IsForeign) -> bool:
    return isinstance(future, asyncio.Task) and is_foreign(future)


def _leads_to(future: asyncio.Future[Any], is_foreign: IsForeign, seen: set[object]) -> bool:
    """Return True if *future* waits for a foreign task, or for something that does."""
    left = [future]
    while left:
        future = left.pop()
        if future in seen:
            continue
        seen.add(future)
        below, children = _below(future)
        if any(_is_spared(fut, is_foreign) for fut in below):
            return True
        left += below + children
    return False


def _below(future: asyncio.Future[Any]) -> tuple[list[asyncio.Future[Any]], list[asyncio.Future[Any]]]:
    """Return what *future* waits for, and the children of its TaskGroups; nothing that is done."""
    below: list[asyncio.Future[Any] | None] = list(gathered(future) or ())
    children: list[asyncio.Task[Any]] = []
    if isinstance(future, asyncio.Task) and not future.done():
        below = [waited_future(future), inside_wait_for(future)]
        children = group_children(future)
    return (
        [fut for fut in below if fut is not None and not fut.done()],
        [child for child in children if not child.done()],
    )


def _all_below(future: asyncio.Future[Any]) -> list[asyncio.Future[Any]]:
    below, children = _below(future)
    return below + children


def _knots(future: asyncio.Future[Any], is_foreign: IsForeign) -> set[asyncio.Future[Any]]:
    """Return one task of each circle that *future* leads to: without these there is no circle.

    What foreign tasks wait for is left out, since they live on.
    """
    knots: set[asyncio.Future[Any]] = set()
    seen: set[object] = {future}
    path = [future]
    left = [_all_below(future)]  # what is still to be followed from each future of the path
    while path:
        if not left[-1]:
            path.pop()
            left.pop()
            continue
        below = left[-1].pop()
        if below in path:
            circle = path[path.index(below) :]
            knots.add(next(fut for fut in reversed(circle) if isinstance(fut, asyncio.Task)))
        elif below not in seen and not _is_spared(below, is_foreign):
            seen.add(below)
            path.append(below)
            left.append(_all_below(below))
    return knots
