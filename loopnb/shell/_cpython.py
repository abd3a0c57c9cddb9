"""Private names of CPython that `shell` uses, one function for each.

Checked on CPython 3.11.7, 3.12.1, 3.13.0, 3.14.10 and 3.15.2. Call each in the loop's thread, but for the
function of `before_warnings`, which any thread calls. None blocks.
"""

from __future__ import annotations

import asyncio
import ctypes
import warnings
from typing import TYPE_CHECKING, Any

from loopnb.patching import Patch, looking_like
from loopnb.tracking._cpython import waited_by_wait_for
from loopnb.tracking.suspended import frames_of, links_of

if TYPE_CHECKING:
    from collections.abc import Callable


def group_children(task: asyncio.Task[Any]) -> list[asyncio.Task[Any]]:
    """Return the live children of each TaskGroup that *task* has entered and not left.

    Private names: `TaskGroup._parent_task`, `_tasks`. A group that no variable of a frame refers to is seen
    only once its `async with` block waits for the children: `__aexit__` has it as `self`.
    """
    groups: list[Any] = []
    for frame in frames_of(task.get_coro()):
        # By type: `isinstance` would run code of proxies.
        for value in list(frame.f_locals.values()):
            is_group = issubclass(type(value), asyncio.TaskGroup)
            if is_group and getattr(value, "_parent_task", None) is task and value not in groups:
                groups.append(value)
    return [child for group in groups for child in list(group._tasks)]


def inside_wait_for(task: asyncio.Task[Any]) -> asyncio.Future[Any] | None:
    """Return what *task* awaits through `asyncio.wait_for`; see `waited_by_wait_for`."""
    return waited_by_wait_for(links_of(task.get_coro()))


def shield_from_wait_for(task: asyncio.Task[Any]) -> None:
    """Shield what *task* awaits through `asyncio.wait_for`, so that cancelling the task spares it.

    Needed on 3.11 only, see `waited_by_wait_for`. Replaces the local variable `fut` of `wait_for`.
    """
    *_, frame = frames_of(task.get_coro())
    frame.f_locals["fut"] = asyncio.shield(frame.f_locals["fut"])
    ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))  # as debuggers do


def before_warnings(change: Callable[[Any], None]) -> Patch:
    """Return a patch that calls *change* with each warning that is about to be shown, before it is.

    Private name: `warnings._showwarnmsg(message)`, which Python and C code look up for each warning. It has
    existed since 3.6. `showwarning`, the public name, is not told which object the warning is about, and
    replacing it would lose what `tracemalloc` knows of that. *change* must not raise.
    """
    stock = warnings._showwarnmsg  # type: ignore[attr-defined]  # private

    def show(message: Any) -> None:
        change(message)
        stock(message)

    return Patch(warnings, "_showwarnmsg", looking_like(stock, show))
