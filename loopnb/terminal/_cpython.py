"""Private names of asyncio that the terminal needs. Checked on CPython 3.11.7 to 3.15.2."""

from __future__ import annotations

import asyncio.base_events
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_END_OF_RUN = asyncio.base_events._run_until_complete_cb.__code__  # type: ignore[attr-defined]  # private


def is_end_of_run(frame: FrameType | None) -> bool:
    """Return True if *frame* is the callback by which `run_until_complete` stops its loop.

    `asyncio.base_events._run_until_complete_cb`, since Python 3.5.
    """
    return frame is not None and frame.f_code is _END_OF_RUN
