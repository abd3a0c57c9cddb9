"""What `kernel` uses of Python under private names. Checked on CPython 3.11.7 to 3.15.2."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


def is_wanted(lock: asyncio.Lock) -> bool:
    """Return True if a task waits for *lock*, or was handed it and has not run yet (`Lock._waiters`)."""
    return bool(lock._waiters)
