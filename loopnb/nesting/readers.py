"""Callbacks of file descriptors, once for each event. Checked on CPython 3.11.7 to 3.14.10."""

from __future__ import annotations

import sys
from asyncio.selector_events import BaseSelectorEventLoop
from typing import TYPE_CHECKING, Any

from loopnb.nesting._cpython import BaseEventLoop, owner_of_pass, stock_run_once
from loopnb.patching import Patch, looking_like

if TYPE_CHECKING:
    import asyncio

_stock: Any = BaseEventLoop._add_callback  # type: ignore[attr-defined]  # private
_PROCESS_EVENTS = BaseSelectorEventLoop._process_events.__code__  # type: ignore[attr-defined]  # private
_RUN_ONCE = stock_run_once.__code__


#: Their callbacks have read when they call anybody, and may find nothing: called again, they go on.
_READ_FIRST = ("asyncio.", "tornado.", "zmq.")


def _add_callback(self: Any, handle: asyncio.Handle) -> None:
    lot: Any = getattr(owner_of_pass(self), "lot", None)
    # Signals come here as well, and each of those counts.
    if lot is None or not lot.waits or sys._getframe(1).f_code is not _PROCESS_EVENTS:
        _stock(self, handle)
        return
    owner: Any = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]  # private
    reads_first = type(owner).__module__.startswith(_READ_FIRST)
    if reads_first or not (lot.runs(handle) or handle in self._ready):
        _stock(self, handle)


def once_for_each_event() -> Patch:
    """Return a patch by which a reader or writer is queued once for an event, and never while it runs.

    The stock loop selects when all handles of a pass have returned. Where one has parked, the next pass
    selects while others of the same pass are still queued, or while the parked one has yet to read: the
    event is still there, and would be handled once more (`BaseEventLoop._add_callback`). Transports are
    left alone: a protocol that nests may wait for what comes next.
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
