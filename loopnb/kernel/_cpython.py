"""What `kernel` uses of Python under private names. Checked on CPython 3.11.7 to 3.14.10."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loopnb.nesting._cpython import HANDLE_RUN_CODE

if TYPE_CHECKING:
    import asyncio
    from types import CodeType


def is_wanted(lock: asyncio.Lock) -> bool:
    """Return True if somebody waits for *lock*, or has got it and not run yet (`Lock._waiters`)."""
    return bool(lock._waiters)


def code_of_callbacks() -> CodeType:
    """Return the code in which a loop runs each callback and each step of a task."""
    return HANDLE_RUN_CODE
