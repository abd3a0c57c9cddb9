"""Keep how late the loop was: percentiles since the start and over the last minute, in bounded memory."""

from __future__ import annotations

import math
from collections import deque

from loopnb.records import Lag

#: Edges of the buckets grow by this factor, so a percentile is at most 9 % too high.
_GROWTH = 2 ** (1 / 8)
#: The lower edge of the first bucket, and the number of buckets: 10 us to about three hours.
_LEAST_S = 1e-5
_BUCKETS = 240
#: Seconds that count as recent, in slices of this many seconds.
_RECENT_S = 60.0
_SLICE_S = 5.0


class Histogram:
    """Counts durations in buckets that grow geometrically. Takes the same memory however many it counts."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._max_s = 0.0
        self._count = 0

    def add(self, duration_s: float) -> None:
        """Count one duration, in seconds."""
        self._counts[_bucket_of(duration_s)] += 1
        self._count += 1
        self._max_s = max(self._max_s, duration_s)

    def merge(self, other: Histogram) -> None:
        """Count everything that *other* has counted."""
        self._counts = [mine + its for mine, its in zip(self._counts, other._counts, strict=True)]
        self._count += other._count
        self._max_s = max(self._max_s, other._max_s)

    def lag(self) -> Lag:
        """Return the percentiles. All are 0 if nothing was counted."""
        return Lag(self._percentile(0.5), self._percentile(0.99), self._max_s, self._count)

    def _percentile(self, share: float) -> float:
        wanted, seen = math.ceil(share * self._count), 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if wanted and seen >= wanted:
                return min(_LEAST_S * _GROWTH ** (bucket + 1), self._max_s)
        return 0.0


def _bucket_of(duration_s: float) -> int:
    if duration_s <= _LEAST_S:
        return 0
    return min(int(math.log(duration_s / _LEAST_S, _GROWTH)), _BUCKETS - 1)


class Lateness:
    """How late the markers were, in the last minute and since the start.

    Args:
        interval_s: Seconds between two markers.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._total = Histogram()
        self._slices: deque[tuple[float, Histogram]] = deque()
        self._worst: deque[tuple[int, float]] = deque(maxlen=int(_RECENT_S))  # of each second

    def add(self, late_s: float, now: float) -> None:
        """Count a marker that was answered *late_s* seconds after it was posted.

        While one marker is late, no other is posted. This counts those that would have been posted meanwhile,
        too. Otherwise a block of 10 s would be one marker among hundreds, and no percentile would show it.
        """
        self._forget(now)
        if self._worst and self._worst[-1][0] == int(now):
            self._worst[-1] = (int(now), max(self._worst[-1][1], late_s))
        else:
            self._worst.append((int(now), late_s))
        if not self._slices or now - self._slices[-1][0] >= _SLICE_S:
            self._slices.append((now, Histogram()))
        while True:
            self._total.add(late_s)
            self._slices[-1][1].add(late_s)
            late_s -= self._interval_s
            if late_s <= 0:
                return

    def recent(self, now: float) -> Lag:
        """Return the percentiles of the last minute."""
        self._forget(now)
        merged = Histogram()
        for _began, part in list(self._slices):
            merged.merge(part)
        return merged.lag()

    def worst(self, now: float) -> list[float]:
        """Return the worst of each of the last 60 seconds, the oldest first; 0 where nothing was measured."""
        worst = dict(self._worst.copy())
        return [worst.get(second, 0.0) for second in range(int(now - _RECENT_S) + 1, int(now) + 1)]

    def total(self) -> Lag:
        """Return the percentiles since the start."""
        return self._total.lag()

    def _forget(self, now: float) -> None:
        while self._slices and now - self._slices[0][0] >= _RECENT_S:
            self._slices.popleft()
