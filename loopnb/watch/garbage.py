"""Time garbage collections: nothing else runs meanwhile, and no stack shows them.

Python calls each of `gc.callbacks` with a phase, "start" or "stop", and a dictionary. The callbacks have to
be C functions: in a Python function Python would raise a pending KeyboardInterrupt, and the collector would
swallow it. In a cell that collects all the time, no interrupt would ever get through.

So each callback is `getattr` bound to an object: it reads the attribute named "start" or "stop", and the
dictionary is the default for objects that have no such attribute. Reading it appends the time to the object,
which is a deque: the attribute is a property, and its getter calls `extend` with an object that yields the
time once.
"""

from __future__ import annotations

import gc
import time
from bisect import bisect_left
from collections import deque
from functools import partial
from itertools import islice
from operator import methodcaller

from loopnb.patching import ListEntry

#: Collections that took less than this many seconds do not count.
_LEAST_S = 0.01
#: Most collections are short. Between two long ones there are some hundred of them.
_KEPT = 10_000


class _Now:
    """Yields the time now, on `time.monotonic()`, once for each iteration over it."""

    __iter__ = staticmethod(partial(islice, iter(time.monotonic, None), 1))


class _Times(deque[float]):
    """Instants on `time.monotonic()`, the newest last."""

    def __init__(self) -> None:
        super().__init__(maxlen=_KEPT)

    def __repr__(self) -> str:
        return f"<{len(self)} times>"  # short: it is a part of the repr of `gc.callbacks`


class _Starts(_Times):
    """When collections began."""

    start = property(methodcaller("extend", _Now()))


class _Stops(_Times):
    """When collections ended."""

    stop = property(methodcaller("extend", _Now()))


class GarbageWatch:
    """Times the collections of this process. Costs each of them about a microsecond."""

    def __init__(self) -> None:
        self._starts, self._stops = _Starts(), _Stops()
        both = (self._starts, self._stops)
        self._entries = [ListEntry(gc.callbacks, partial(getattr, times)) for times in both]

    def start(self) -> None:
        """Time collections from now on."""
        for entry in self._entries:
            entry.install()

    def stop(self) -> None:
        """Time no more."""
        for entry in self._entries:
            entry.restore()

    def seconds_between(self, began: float, ended: float) -> float:
        """Return for how many seconds long collections ran between two monotonic instants. Any thread."""
        # Copy them in this order: a collection that ends between the two copies has begun before. Collections
        # never overlap.
        stops, starts = list(self._stops), list(self._starts)
        seconds = 0.0
        for last in stops[bisect_left(stops, began) :]:
            number = bisect_left(starts, last) - 1
            if number >= 0 and last - starts[number] >= _LEAST_S:
                seconds += max(0.0, min(last, ended) - max(starts[number], began))
        return seconds
