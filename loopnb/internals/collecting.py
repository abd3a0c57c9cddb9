"""Whether the garbage collector is at work in this thread, below a finalizer that it has called.

Such a finalizer must not be parked. CPython keeps the heads of the collector's lists in the C stack
frame of the collection, and that memory is other stacks' while this one is parked: whatever garbage
dies meanwhile writes into it. CPython 3.11 to 3.14 crash.
"""

from __future__ import annotations

import gc
import threading
from functools import partial


class _Latest:
    """What `gc.callbacks` was told last: one slot, under the names of both phases."""

    __slots__ = ("start",)
    start: object


_Latest.stop = _Latest.start  # type: ignore[attr-defined,misc]  # another name for it is the point


class _Here(threading.local):
    """What it was told when the latest collection in this thread began."""

    start: object = None


_latest, _here = _Latest(), _Here()
_latest.start = "nothing yet"

# Both are called with the phase, as the name, and a dictionary that no other phase has. They are
# written in C: in a Python function Python would raise a pending KeyboardInterrupt, and the
# collector would swallow it.
_callbacks = (partial(setattr, _latest), partial(setattr, _here))


def watch() -> None:
    """Hear of collections from now on. Does nothing if it does already."""
    if _callbacks[0] not in gc.callbacks:
        gc.callbacks.extend(_callbacks)


def unwatch() -> None:
    """Hear of them no more."""
    gc.callbacks[:] = [callback for callback in gc.callbacks if callback not in _callbacks]


def is_collecting() -> bool:
    """Say whether the calling thread is inside a collection, in a finalizer."""
    return _latest.start is _here.start
