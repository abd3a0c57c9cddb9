"""Clearing the cancel request that a C task has noted in the middle of a step.

`Task.cancel()` on a task whose step is executing sets a flag in the C struct, and the next await
raises CancelledError. When the step is parked in a nested run, the request is delivered there, and
the flag must go, or it would be delivered twice. CPython 3.13 clears it when `uncancel()` counts
down to zero, which loses the count; 3.11 and 3.12 offer nothing at all.

So the bit is looked for: a scratch task is cancelled, and what changed in its memory is compared.
Where that finds anything but exactly one bit, nothing is ever written.
"""

from __future__ import annotations

import asyncio
import ctypes
from functools import cache
from typing import Any


def has_cancel_flag(task: asyncio.Task[Any]) -> bool:
    """Say whether *task* will raise CancelledError at its next await (`Task._must_cancel`)."""
    return task._must_cancel  # type: ignore[attr-defined,no-any-return]  # private


def cancel_message(task: asyncio.Task[Any]) -> Any:
    """Return the message of the latest `cancel(msg)` of *task* (`Future._cancel_message`)."""
    return task._cancel_message  # type: ignore[attr-defined]  # private


def clear_cancel_flag(task: asyncio.Task[Any]) -> bool:
    """Withdraw the request that `has_cancel_flag` sees; `cancelling()` keeps its count.

    Returns:
        False where this interpreter gives no way to do it: the next await will raise once more.
    """
    if not has_cancel_flag(task):
        return True
    try:
        task._must_cancel = False  # type: ignore[attr-defined]  # a Task written in Python
    except AttributeError:
        bit = _flag_bit()
        if bit is None:
            return False
        offset, mask = bit
        byte = ctypes.c_ubyte.from_address(id(task) + offset)
        byte.value &= ~mask
    return True


class _NoLoop:
    """As much of a loop as a task asks for that never runs."""

    def get_debug(self) -> bool:
        return False

    def call_soon(self, *_args: Any, **_kwargs: Any) -> None: ...

    def is_running(self) -> bool:
        return False


@cache
def _flag_bit() -> tuple[int, int] | None:
    """Find byte offset and mask of `task_must_cancel` in CPython's TaskObj.

    Checked on CPython 3.11.7, 3.12.1, 3.13.0 and 3.14.10.
    """

    async def nothing() -> None: ...

    coro = nothing()
    task: Any = asyncio.Task(coro, loop=_NoLoop())  # type: ignore[arg-type]  # never runs
    try:
        task._cancel_message = None
        size = type(task).__basicsize__
        before = ctypes.string_at(id(task), size)
        task.cancel()
        once = ctypes.string_at(id(task), size)
        task.cancel()
        twice = ctypes.string_at(id(task), size)
        # The counter changes twice, the flag only once.
        found = [
            (offset, before[offset] ^ once[offset])
            for offset in range(size)
            if before[offset] != once[offset] and once[offset] == twice[offset]
        ]
        if len(found) != 1 or found[0][1].bit_count() != 1:
            return None
        offset, mask = found[0]
        ctypes.c_ubyte.from_address(id(task) + offset).value &= ~mask
        if task._must_cancel or task.cancelling() != 2:
            return None
        return found[0]
    finally:
        task._log_destroy_pending = False
        coro.close()
