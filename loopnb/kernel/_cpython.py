"""What `kernel` uses of Python under private names. Checked on CPython 3.11.7 to 3.15.2."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from types import FrameType


def is_wanted(lock: asyncio.Lock) -> bool:
    """Return True if a task waits for *lock*, or was handed it and has not run yet (`Lock._waiters`)."""
    return bool(lock._waiters)


def main_frame() -> FrameType | None:
    """Return the innermost frame of the main thread; None if it runs no Python code. Any thread.

    `sys._current_frames()`, all versions.
    """
    return sys._current_frames().get(threading.main_thread().ident or 0)
