"""Find deadlocks: a task holds a lock, and waits in a nested run for a task that needs the same lock."""

from __future__ import annotations

import ast
import asyncio
import linecache
from itertools import islice
from typing import TYPE_CHECKING, Any

from loopnb.tracking.chains import awaited_by, chain_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

    from loopnb.tracking.tracker import Tracker

_ACQUIRERS = {asyncio.Lock.acquire.__code__, asyncio.Semaphore.acquire.__code__}
#: How many tasks are looked at for one status. The status must not take long if thousands are parked.
_MOST = 200


def find(tracker: Tracker, parked: Iterable[asyncio.Task[Any]]) -> str:
    """Describe a deadlock: the lock, the task that holds it and the task that needs it.

    Returns "" if there is none.

    A lock does not know who holds it. We recognise the holder by the `async with` block that it is in, if
    that block names the lock by variables and attributes. A lock taken by a bare `await lock.acquire()` is
    not found. The loop's thread.

    Args:
        tracker: The tracker of the loop.
        parked: The tasks whose stacks are parked in nested runs.
    """
    for holder in islice(parked, _MOST):
        for waiter in _needed_by(holder):
            lock = _wanted_lock(waiter)
            held = lock and next(_holding(chain_of(holder).frames, lock), None)
            if held:
                since = tracker.describe(*held, tracker.origin_of(holder).cell)
                return (
                    f"deadlock: {_name(tracker, holder)} holds a {type(lock).__name__} since "
                    f"{since} and waits in a nested run for "
                    f"{_name(tracker, waiter)}, which needs it; interrupt the cell, or cancel one of them"
                )
    return ""


def _needed_by(task: asyncio.Task[Any]) -> Iterator[asyncio.Task[Any]]:
    """Yield the tasks that *task* waits for, directly or through other tasks."""
    seen = {task}
    queue = [task]
    while queue and len(seen) < _MOST:
        for awaited in awaited_by(queue.pop()):
            if awaited not in seen:
                seen.add(awaited)
                queue.append(awaited)
                yield awaited


def _wanted_lock(task: asyncio.Task[Any]) -> Any:
    frames = chain_of(task).frames
    if frames and frames[-1].f_code in _ACQUIRERS:
        return frames[-1].f_locals.get("self")
    return None


def _holding(frames: list[FrameType], lock: Any) -> Iterator[tuple[str, int]]:
    """Yield file and line of each `async with` block in *frames* that holds *lock*."""
    for frame in frames:
        for expression in _entered(frame):
            if _value(expression, frame) is lock:
                yield frame.f_code.co_filename, expression.lineno


def _entered(frame: FrameType) -> Iterator[ast.expr]:
    """Yield the expressions of the `async with` blocks around the current line of *frame*."""
    source = "".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals))
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # a cell with magics in it, or no source at all
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncWith) and _is_within(frame.f_lineno, node.body):
            for item in node.items:
                yield item.context_expr


def _is_within(line: int, body: list[ast.stmt]) -> bool:
    return body[0].lineno <= line <= (body[-1].end_lineno or body[-1].lineno)


def _value(expression: ast.expr, frame: FrameType) -> Any:
    """Look *expression* up without running any code: variables and plain attributes only."""
    if isinstance(expression, ast.Name):
        name = expression.id
        return frame.f_locals.get(name, frame.f_globals.get(name))
    if isinstance(expression, ast.Attribute):
        owner = _value(expression.value, frame)
        attributes = getattr(owner, "__dict__", {})
        return attributes.get(expression.attr) if isinstance(attributes, dict) else None
    return None


def _name(tracker: Tracker, task: asyncio.Task[Any]) -> str:
    if tracker.is_kernels_own(task):
        return "the cell"
    record = tracker.record(task)
    return record.label + (f" of {record.cell}" if record.cell else "")
