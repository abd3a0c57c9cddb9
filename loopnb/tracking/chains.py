"""Await chains: from a task's coroutine down to the innermost thing it waits for."""

from __future__ import annotations

import asyncio
import os
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

from loopnb.internals import task_state
from loopnb.internals.frames import is_ours

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

_STDLIB = sysconfig.get_path("stdlib") + os.sep


def is_users(code: CodeType) -> bool:
    """Say whether *code* is neither the standard library's nor this package's."""
    filename = code.co_filename
    if filename.startswith("<frozen") or is_ours(filename):
        return False
    return not filename.startswith(_STDLIB) or "site-packages" in filename


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
    future = task_state.waited_future(task)
    if future is None:
        return ""
    if isinstance(future, asyncio.Task):
        return f"task {future.get_name()}"
    if (children := task_state.gathered(future)) is not None:
        pending = sum(not child.done() for child in children)
        return f"gather, {pending} of {len(children)} pending"
    if frames and not is_users(frames[-1].f_code):
        return f"{frames[-1].f_code.co_qualname}()"
    return "a future"


def awaited_by(task: asyncio.Task[Any], frames: list[FrameType]) -> list[asyncio.Task[Any]]:
    """Return the live tasks that *task* waits for, across `gather()`, `wait()` and a TaskGroup's end."""
    waited = task_state.waited_future(task)
    found: list[Any] = []
    if waited is not None:
        found = list(task_state.gathered(waited) or [waited])
    found += task_state.awaited_in(frames)
    found.append(task_state.waited_by_wait_for(frames))
    live = {one for one in found if isinstance(one, asyncio.Task) and not one.done()}
    return sorted(live, key=asyncio.Task.get_name)


def stack_of(frame: FrameType | None) -> list[FrameType]:
    """Return the frames from *frame* outwards, outermost first."""
    frames: list[FrameType] = []
    while frame is not None and len(frames) < sys.getrecursionlimit():
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]
