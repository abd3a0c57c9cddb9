"""Callbacks of file descriptors, once for each event. Checked on CPython 3.11.7 to 3.14.10."""

from __future__ import annotations

import sys
from asyncio.selector_events import BaseSelectorEventLoop
from typing import TYPE_CHECKING, Any

from loopnb.internals.asyncio_state import BaseEventLoop, owner_of_pass, stock_run_once
from loopnb.internals.patching import Patch, looking_like

if TYPE_CHECKING:
    import asyncio

_stock: Any = BaseEventLoop._add_callback  # type: ignore[attr-defined]  # private
_PROCESS_EVENTS = BaseSelectorEventLoop._process_events.__code__  # type: ignore[attr-defined]  # private
_RUN_ONCE = stock_run_once.__code__


def _add_callback(self: Any, handle: asyncio.Handle) -> None:
    lot: Any = getattr(owner_of_pass(self), "lot", None)
    # Signals come here as well, and each of those counts.
    is_event = lot is not None and lot.waits and sys._getframe(1).f_code is _PROCESS_EVENTS
    if not (is_event and (handle in self._ready or lot.runs(handle))):
        _stock(self, handle)


def once_for_each_event() -> Patch:
    """Return a patch by which a reader or writer is queued once for an event, and never while it runs.

    The stock loop selects when all handles of a pass have returned. Where one has parked, the next pass
    selects while others of the same pass are still queued, or while the parked one has yet to read: the
    event is still there, and would be handled once more (`BaseEventLoop._add_callback`).
    """
    return Patch(BaseEventLoop, "_add_callback", looking_like(_stock, _add_callback))


def handle_of(stack: Any) -> asyncio.Handle | None:
    """Return the handle that runs on a parked *stack*: `handle` in the frame of `_run_once`."""
    while stack is not None:
        frame = stack.gr_frame
        while frame is not None:
            if frame.f_code is _RUN_ONCE:
                found: asyncio.Handle | None = frame.f_locals.get("handle")
                return found
            frame = frame.f_back
        stack = stack.parent
    return None
