"""Tasks that run their first step on the stack of their creator. Checked on CPython 3.12.1 to 3.14.10."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from loopnb.nesting._cpython import eager_tasks, live_tasks

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

MAY_BE_EAGER = sys.version_info >= (3, 12)
_HANDLE_RUN: Any = asyncio.Handle._run.__code__


def _is_eager_312(task: asyncio.Task[Any]) -> bool:
    return bool(eager_tasks) and task in eager_tasks


def _is_eager_314(task: asyncio.Task[Any]) -> bool:
    frame = getattr(task.get_coro(), "cr_frame", None)
    below = None if frame is None else frame.f_back
    return below is not None and below.f_code is not _HANDLE_RUN


_is_eager: Callable[[asyncio.Task[Any]], bool] = (
    _is_eager_314 if sys.version_info >= (3, 14) else _is_eager_312
)


def creators_of(task: asyncio.Task[Any]) -> list[asyncio.Task[Any]]:
    """Return the tasks in whose steps the running *task* has its own first one; mostly none."""
    return _below(task) if _is_eager(task) else []


def _below(task: asyncio.Task[Any]) -> list[asyncio.Task[Any]]:
    frame: FrameType | None = getattr(task.get_coro(), "cr_frame", None)
    frames = set()
    while frame is not None:
        frames.add(frame)
        frame = frame.f_back
    loop = task.get_loop()
    return [
        one
        for one in live_tasks(loop)
        if one is not task and getattr(one.get_coro(), "cr_frame", None) in frames
    ]
