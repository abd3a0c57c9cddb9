"""Percentiles of lag, over a minute and since the start."""

from __future__ import annotations

import sys

import pytest

from loopnb.records import Lag
from loopnb.watch.lateness import Histogram, Lateness


def test_percentiles_are_at_most_a_tenth_too_high() -> None:
    histogram = Histogram()
    for number in range(1, 1_001):
        histogram.add(number / 1_000)
    lag = histogram.lag()

    assert 0.5 <= lag.p50_s <= 0.55
    assert 0.99 <= lag.p99_s <= 1.0
    assert (lag.max_s, lag.count) == (1.0, 1_000)


def test_nothing_counted_is_all_0() -> None:
    assert Histogram().lag() == Lag(0.0, 0.0, 0.0, 0)


@pytest.mark.parametrize("duration_s", [0.0, 1e-9, 1e9])
def test_no_duration_is_too_short_or_too_long(duration_s: float) -> None:
    histogram = Histogram()
    histogram.add(duration_s)

    assert histogram.lag().max_s == duration_s


def test_its_size_does_not_grow() -> None:
    histogram = Histogram()
    before = sys.getsizeof(vars(histogram)["_counts"])
    for number in range(10_000):
        histogram.add(number / 10)

    assert sys.getsizeof(vars(histogram)["_counts"]) == before


def test_a_long_block_counts_for_all_the_markers_that_it_kept_from_being_posted() -> None:
    lateness = Lateness(0.25)
    for second in range(10):
        lateness.add(0.001, second)
    lateness.add(10.0, 20.0)
    lag = lateness.total()

    assert lag.count == 10 + 40
    assert lag.p50_s > 3.0


def test_the_last_minute_forgets_and_the_whole_does_not() -> None:
    lateness = Lateness(0.25)
    lateness.add(0.2, 0.0)
    lateness.add(0.001, 30.0)

    assert lateness.recent(50.0).max_s == 0.2
    assert lateness.recent(61.0).max_s == 0.001
    assert lateness.recent(1_000.0).count == 0
    assert lateness.total().max_s == 0.2


def test_the_worst_of_each_second_of_the_last_minute_is_kept() -> None:
    lateness = Lateness(0.25)
    for late_s, now in ((9.0, 30.0), (0.1, 100.2), (0.3, 100.4), (0.2, 100.9), (0.05, 102.1)):
        lateness.add(late_s, now)
    worst = lateness.worst(102.5)

    assert len(worst) == 60
    assert worst[-3:] == [0.3, 0.0, 0.05]
    assert max(worst) == 0.3
