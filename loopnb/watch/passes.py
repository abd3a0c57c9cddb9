"""The passes of a loop: keep the GIL in them while the watchdog waits for it, and count them."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from loopnb.patching import Patch
from loopnb.watch import _cpython

if TYPE_CHECKING:
    import asyncio

#: Passes keep the GIL for so many seconds at most. Then they call `select` until the period is over.
_HELD_S = 0.1
#: The period, in seconds. When it is over they keep the GIL again, if it is still wanted.
_HELD_EVERY_S = 0.2


class Passes:
    """Keeps the GIL in the passes of a busy loop, so that a waiting thread gets it; counts passes, too.

    While the GIL is kept, a pass that would not wait in `select` does not call it. `watchdog.py` says why
    that helps. The loop notices what is ready to be read or written up to 0.1 s later. Keeping the GIL costs
    0.2 us a pass. Counting the passes, between `start` and `stop`, costs as much. At other times the selector
    is the stock one.

    Args:
        loop: The loop.

    Attributes:
        can_hold: False for a loop whose selector cannot be seen, such as uvloop's. It is left as it is.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._count = 0
        self._began: float | None = None
        self._due = math.inf
        self._patch: Patch | None = None
        selector = _cpython.selector_of(loop)
        if selector is not None:
            self._patch = Patch(selector, "select", self._holding(selector.select))
        self.can_hold = self._patch is not None

    def start(self) -> None:
        """Count from now on. The loop's thread."""
        if self._patch is not None:
            self._count, self._began = 0, time.monotonic()
            self._patch.install()

    def stop(self) -> None:
        """Count no more, and leave the passes alone. The loop's thread."""
        self._began = None
        if self._patch is not None:
            self._patch.restore()

    def per_second(self, now: float) -> float | None:
        """Return the passes in a second since `start`; None if they are not counted. Any thread."""
        began = self._began
        return None if began is None or now <= began else self._count / (now - began)

    def expect(self, due: float) -> None:
        """Note when the caller will want the GIL next, and not before. Any thread.

        Args:
            due: Monotonic time; `math.inf` if the caller wants it no more, or does not know when.
        """
        self._due = due

    def hold_if_overdue(self) -> float:
        """Keep the GIL from now on, if the caller of `expect` should have had it already.

        When that caller has had the GIL, a later pass gives it up again. The loop's thread.

        Returns:
            The seconds until the caller wants the GIL. Negative if it is overdue.
        """
        left_s = self._due - time.monotonic()
        if left_s < 0.0 and self._patch is not None:
            self._patch.install()
        return left_s

    def _holding(self, stock: Any) -> Any:
        clock = time.monotonic

        def select(timeout: float | None = None) -> Any:
            self._count += 1
            late_s = clock() - self._due
            if timeout == 0 and late_s >= 0.0 and late_s % _HELD_EVERY_S < _HELD_S:
                return []
            if late_s < 0.0 and self._began is None and self._patch is not None:
                self._patch.restore()
            return stock(timeout)

        return select
