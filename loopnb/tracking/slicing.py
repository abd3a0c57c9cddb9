"""Divide long work into slices, so that the loop turns in between."""

from __future__ import annotations

import gc
import time

SLICE_S = 0.002
"""A slice ends soon after so many seconds."""
_LONG_STEP_S = 0.0018
"""A slice ends so many seconds earlier if the next step is a long one."""


class SlicePace:
    """Tells when a slice is over.

    Args:
        is_unlimited: It never is: the work is done in one step.

    Attributes:
        is_unlimited: As given.
    """

    def __init__(self, *, is_unlimited: bool = False) -> None:
        self.is_unlimited = is_unlimited
        self.begin()

    def begin(self) -> None:
        """Begin a slice."""
        self._ends = time.perf_counter() + SLICE_S

    def expect_long_step(self) -> None:
        """End the slice sooner: what comes next cannot be divided, and takes 2 ms for 10,000 tasks."""
        self._ends -= _LONG_STEP_S

    def is_over(self) -> bool:
        """Return True if the slice has taken its time, or if the next step may collect garbage for long."""
        return not self.is_unlimited and (time.perf_counter() > self._ends or _is_collection_near())


#: No step between two questions makes more objects than this.
_NEAR = 128


def _is_collection_near() -> bool:
    """Return True if Python is about to look at more than the youngest objects.

    From 3.13 on it looks at some 20,000 then, which takes 2.5 ms. So that needs a slice of its own.
    """
    (young, middle, _old), (most_young, most_middle, _most_old) = gc.get_count(), gc.get_threshold()
    return middle > most_middle and most_young - _NEAR < young <= most_young
