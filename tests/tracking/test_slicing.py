"""When a slice of long work is over."""

from __future__ import annotations

import gc
import math
from typing import TYPE_CHECKING

import pytest

from loopnb.tracking import slicing
from loopnb.tracking.slicing import SlicePace

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def collect_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[int, int, int]], None]:
    """Set how many objects are young, and how many collections have been made, of 2,000 and 10."""

    def set_counts(counts: tuple[int, int, int]) -> None:
        monkeypatch.setattr(gc, "get_count", lambda: counts)

    monkeypatch.setattr(gc, "get_threshold", lambda: (2_000, 10, 10))
    set_counts((0, 0, 0))
    return set_counts


def test_a_slice_is_over_when_it_has_taken_its_time(
    collect_after: Callable[[tuple[int, int, int]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slicing, "SLICE_S", math.inf)
    assert not SlicePace().is_over()
    monkeypatch.setattr(slicing, "SLICE_S", -1.0)
    assert SlicePace().is_over()
    assert not SlicePace(is_unlimited=True).is_over()


def test_a_long_collection_gets_a_slice_of_its_own(
    collect_after: Callable[[tuple[int, int, int]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slicing, "SLICE_S", math.inf)

    def is_over(*counts: int, pace: SlicePace | None = None) -> bool:
        young, middle, old = counts
        collect_after((young, middle, old))
        return (pace or SlicePace()).is_over()

    assert is_over(1_990, 11, 0)
    assert not is_over(1_990, 11, 0, pace=SlicePace(is_unlimited=True))
    assert not is_over(1_990, 10, 0)  # only the youngest are looked at
    assert not is_over(1_000, 11, 0)
    assert not is_over(9_000, 11, 0)  # it is switched off
