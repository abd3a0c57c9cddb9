"""Note long garbage collections. Nothing else runs meanwhile, and no stack shows them."""

from __future__ import annotations

import gc
import time
from collections import deque
from typing import Any

from loopnb.patching import ListEntry

#: Collections that took less than this many seconds are forgotten.
_LEAST_S = 0.01
_KEPT = 200


class GarbageWatch:
    """Times the collections of this process. Costs each of them about a microsecond."""

    def __init__(self) -> None:
        self._pauses: deque[tuple[float, float]] = deque(maxlen=_KEPT)
        self._began = 0.0
        # Kept: each access makes a new object, and entries are compared by `is`.
        self._callback = self._on_collection
        self._entry = ListEntry(gc.callbacks, self._callback)

    def start(self) -> None:
        """Time collections from now on."""
        self._entry.install()

    def stop(self) -> None:
        """Time no more."""
        self._entry.restore()

    def seconds_between(self, began: float, ended: float) -> float:
        """Return for how many seconds long collections ran between two monotonic instants. Any thread."""
        pauses = list(self._pauses)
        return sum(max(0.0, min(last, ended) - max(first, began)) for first, last in pauses)

    def _on_collection(self, phase: str, _info: dict[str, Any]) -> None:
        # In whichever thread collects. Collections never overlap.
        now = time.monotonic()
        if phase == "start":
            self._began = now
        elif now - self._began >= _LEAST_S:
            self._pauses.append((self._began, now))
