"""Add up who keeps the loop busy, from looks that come at random moments."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from loopnb.records import Busy, BusyRow, Shares
from loopnb.watch.judging import who_runs

if TYPE_CHECKING:
    from loopnb.watch.looking import Look

#: Seconds that count as recent, in slices of this many seconds.
_RECENT_S = 60.0
_SLICE_S = 5.0
#: How many tasks, cells and coroutines are counted one by one. The others are added up under one name.
_MOST = 1_000
_REST = "all others"
_STATES = {"step": "user", "kernel": "kernel", "select": "select"}


class RecentShares:
    """Where the time of the loop's thread went in the last minute."""

    def __init__(self) -> None:
        self._slices: deque[tuple[float, dict[str, float]]] = deque()

    def add(self, look: Look, seconds: float, now: float) -> None:
        """Add a look that stands for *seconds*. Time in which the loop is set aside does not count."""
        kind = _STATES.get(look.state)
        if kind is None:
            return
        self._forget(now)
        if not self._slices or now - self._slices[-1][0] >= _SLICE_S:
            self._slices.append((now, dict.fromkeys(_STATES.values(), 0.0)))
        self._slices[-1][1][kind] += seconds

    def shares(self, now: float) -> Shares | None:
        """Return the shares; None if nothing was seen."""
        self._forget(now)
        slices = [part for _began, part in list(self._slices)]
        sums = {kind: sum(part[kind] for part in slices) for kind in _STATES.values()}
        total = sum(sums.values())
        if total == 0:
            return None
        return Shares(sums["user"] / total, sums["kernel"] / total, sums["select"] / total, total)

    def _forget(self, now: float) -> None:
        while self._slices and now - self._slices[0][0] >= _RECENT_S:
            self._slices.popleft()


class RecentTasks:
    """Which share of the last minute each task has kept the loop busy, by the looks at random moments.

    There are four looks a second, so a share is right to a few percent.
    """

    def __init__(self) -> None:
        # For each slice: when it began; and for how many seconds looks stand, in all (under None) and for
        # each task.
        self._slices: deque[tuple[float, dict[int | None, float]]] = deque(maxlen=int(_RECENT_S / _SLICE_S))

    def add(self, look: Look, seconds: float, now: float) -> None:
        """Add a look that stands for so many seconds. The watchdog's thread."""
        if look.state not in _STATES:
            return
        if not self._slices or now - self._slices[-1][0] >= _SLICE_S:
            self._slices.append((now, {}))
        busy = self._slices[-1][1]
        busy[None] = busy.get(None, 0.0) + seconds
        number = look.task.number if look.task is not None and look.state == "step" else None
        if number is not None and (number in busy or len(busy) < _MOST):
            busy[number] = busy.get(number, 0.0) + seconds

    def shares(self, now: float) -> dict[int, float]:
        """Return the share of each task that was seen, of 1, by number. Any thread."""
        total, sums = 0.0, dict[int, float]()
        for began, busy in self._slices.copy():
            for number, seconds in busy.copy().items() if now - began < _RECENT_S else ():
                if number is None:
                    total += seconds
                else:
                    sums[number] = sums.get(number, 0.0) + seconds
        return {number: seconds / total for number, seconds in sums.items()} if total else {}


class BusyTable:
    """How long each task, cell and coroutine function has kept the loop busy since the table was made."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._looks = 0
        self._tasks: dict[str, float] = {}
        self._cells: dict[str, float] = {}
        self._coroutines: dict[str, float] = {}

    def add(self, look: Look, seconds: float) -> None:
        """Add a look that stands for *seconds*."""
        self._seconds += seconds
        self._looks += 1
        if look.state not in {"step", "kernel"}:
            return
        who = who_runs(look)
        coro = look.task.coro if look.task is not None and who.by == "task" else who.name
        cell = who.cell if who.cell is not None else ("the kernel" if who.by == "kernel" else "no cell")
        _add(self._tasks, who.name, seconds)
        _add(self._cells, str(cell), seconds)
        _add(self._coroutines, coro, seconds)

    def busy(self) -> Busy:
        """Return the rows, the busiest first. Any thread."""
        return Busy(
            self._seconds,
            self._looks,
            self._rows(self._tasks),
            self._rows(self._cells),
            self._rows(self._coroutines),
        )

    def _rows(self, table: dict[str, float]) -> tuple[BusyRow, ...]:
        rows = [BusyRow(name, busy_s / self._seconds, busy_s) for name, busy_s in table.copy().items()]
        return tuple(sorted(rows, key=lambda row: -row.busy_s))


def _add(table: dict[str, float], name: str, seconds: float) -> None:
    if name not in table and len(table) >= _MOST:
        name = _REST
    table[name] = table.get(name, 0.0) + seconds
