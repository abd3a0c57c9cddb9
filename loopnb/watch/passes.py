"""The passes of a loop, while somebody watches who keeps it busy: count them, and keep the GIL in them."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from loopnb.patching import Patch
from loopnb.watch import _cpython

if TYPE_CHECKING:
    import asyncio

#: Passes keep the GIL for so many seconds at most.
_HELD_S = 0.1


class Passes:
    """Counts the passes of a loop between `start` and `stop`. Each pass calls `select` once.

    And it keeps the GIL in them, while the watchdog waits for it: a pass of a busy loop, which would not wait
    in `select`, does not call it then. What is ready to be read or written is noticed some passes later.

    It costs 0.2 us a pass. A loop whose selector cannot be seen, such as uvloop's, is left as it is.

    Args:
        loop: The loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._count = 0
        self._began: float | None = None
        self._held_from = math.inf
        self._patch: Patch | None = None
        selector = _cpython.selector_of(loop)
        if selector is not None:
            self._patch = Patch(selector, "select", self._counting(selector.select))

    def start(self) -> None:
        """Count from now on. The loop's thread."""
        if self._patch is not None:
            self._count, self._began = 0, time.monotonic()
            self._patch.install()

    def stop(self) -> None:
        """Count no more. The loop's thread."""
        self._began = None
        if self._patch is not None:
            self._patch.restore()

    def per_second(self, now: float) -> float | None:
        """Return the passes in a second since `start`; None if they are not counted. Any thread."""
        began = self._began
        return None if began is None or now <= began else self._count / (now - began)

    def hold_from(self, due: float) -> None:
        """Between `start` and `stop`, let busy passes keep the GIL from *due* on. Any thread.

        Args:
            due: Monotonic time at which the caller will wait for the GIL.
        """
        self._held_from = due

    def hold_no_more(self) -> None:
        """Let passes release the GIL again. Any thread."""
        self._held_from = math.inf

    def _counting(self, stock: Any) -> Any:
        clock = time.monotonic

        def select(timeout: float | None = None) -> Any:
            self._count += 1
            if timeout == 0 and 0.0 <= clock() - self._held_from < _HELD_S:
                return []
            return stock(timeout)

        return select
