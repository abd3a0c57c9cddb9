"""The pass that was under way when the engine was installed: nothing of ours is below it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from loopnb.internals.asyncio_state import ready_queue
from loopnb.nesting.lot import stands_on

if TYPE_CHECKING:
    from greenlet import greenlet


class FirstPass:
    """Keeps the stock pass from popping an empty queue, where no driver would swallow the error.

    That pass has counted its handles and will pop as many. While a stack of its own is parked,
    drivers run handles too; so when it goes on, the queue is topped up with handles that do
    nothing. Only for this one pass: doing it always makes nested runs quadratic.

    Args:
        loop: The loop.
        driver: The class of the engine's own greenlets; any other stack is this pass's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, driver: type[greenlet]) -> None:
        self._loop = loop
        self._driver = driver
        self.is_under_way = False
        self._owed = 0

    def begin(self) -> None:
        """Take the pass that runs now for the one that must not run dry."""
        before = self._owed if self.is_under_way else 0
        # What it may still pop is in the queue now, with what was scheduled since it began. Counted
        # anew for each stack, it would grow by the handles of the nested runs themselves.
        self._owed = max(before, len(ready_queue(self._loop)))
        self.is_under_way = True

    def holds(self, stack: greenlet | None) -> bool:
        """Say whether *stack* is this pass's: neither a driver nor started below one."""
        return self.is_under_way and stack is not None and stands_on(stack, self._driver) is None

    def owed(self, stack: greenlet) -> int:
        """Return how many handles the pass below *stack* may still pop without asking."""
        return self._owed if self.holds(stack) else 0

    def repay(self, owed: int) -> None:
        """Top the ready queue up to *owed* handles."""
        queue = ready_queue(self._loop)
        while len(queue) < owed:
            filler = asyncio.Handle(_nothing, (), self._loop)
            filler.cancel()
            queue.append(filler)


def _nothing() -> None: ...
