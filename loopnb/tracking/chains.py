"""Await chains: from a task's coroutine down to the innermost thing it waits for."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from loopnb.frames import is_ours, is_users
from loopnb.tracking import _cpython as _cpython_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from loopnb.tracking.tracker import Tracker


def waits_at(frames: list[FrameType], describe: Callable[[str, int], str]) -> str:
    """Return `function file:line` of the innermost frame that a user wrote or installed."""
    for frame in reversed(frames):
        if is_users(frame.f_code):
            place = describe(frame.f_code.co_filename, frame.f_lineno)
            name = frame.f_code.co_qualname
            # `<module>` and its like are what a cell's own lines are called: that is in the place.
            return place if name.startswith("<") else f"{name} {place}"
    return ""


def waits_for(task: asyncio.Task[Any], frames: list[FrameType]) -> str:
    """Say in words what *task* waits for ("" if that cannot be told)."""
    future = _cpython_tasks.waited_future(task)
    if future is None:
        return ""
    if isinstance(future, asyncio.Task):
        return f"task {future.get_name()}"
    if (children := _cpython_tasks.gathered(future)) is not None:
        pending = sum(not child.done() for child in children)
        return f"gather, {pending} of {len(children)} pending"
    if frames and not is_users(frames[-1].f_code):
        return f"{frames[-1].f_code.co_qualname}()"
    return "a future"


def awaited_by(task: asyncio.Task[Any], frames: list[FrameType]) -> list[asyncio.Task[Any]]:
    """Return the live tasks that *task* waits for, across `gather()`, `wait()` and a TaskGroup's end."""
    waited = _cpython_tasks.waited_future(task)
    found: list[Any] = []
    if waited is not None:
        found = list(_cpython_tasks.gathered(waited) or [waited])
    found += _cpython_tasks.awaited_in(frames)
    found.append(_cpython_tasks.waited_by_wait_for(frames))
    live = {one for one in found if isinstance(one, asyncio.Task) and not one.done()}
    return sorted(live, key=asyncio.Task.get_name)


def stack_of(frame: FrameType | None) -> list[FrameType]:
    """Return the frames from *frame* outwards, outermost first."""
    frames: list[FrameType] = []
    while frame is not None and len(frames) < sys.getrecursionlimit():
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


# -- where ------------------------------------------------------------
#
# What a task waits for, down to the end: its own frames, then those of the tasks it awaits.


#: Awaited tasks below one task that are followed; of more it is said how many there are.
_WIDEST = 20
#: Tasks below tasks below tasks that are followed.
_DEEPEST = 50


def where_lines(tracker: Tracker, task: asyncio.Task[Any]) -> Iterator[str]:
    """Say where *task* waits, a line for each frame and each task that it waits for."""
    yield from _where_lines(tracker, task, "", set(), 0)


def _where_lines(
    tracker: Tracker, task: asyncio.Task[Any], indent: str, seen: set[int], depth: int
) -> Iterator[str]:
    record = tracker.record(task)
    seen.add(record.number)
    frames, _below = tracker.frames_of(task)
    for frame in frames:
        if is_ours(frame.f_code.co_filename):
            continue
        place = tracker.place(frame.f_code, frame.f_lasti, record.cell)
        name = frame.f_code.co_qualname
        yield f"{indent}  {place}" if name.startswith("<") else f"{indent}  {name}()  {place}"
    if record.waits_for:
        yield f"{indent}  waits for {record.waits_for}"
    for number, one in enumerate(tracker.awaited_by(task)):
        if number == _WIDEST or depth == _DEEPEST:
            yield f"{indent}    and more tasks"
            return
        own = tracker.number_of(one)
        is_known = own in seen
        yield f"{indent}    task {own} {one.get_name()!r}{' (see above)' if is_known else ''}"
        if not is_known:
            yield from _where_lines(tracker, one, indent + "    ", seen, depth + 1)
