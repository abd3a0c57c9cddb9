"""Make the await graph of a loop: which task waits for which.

Each task is looked at once, however many wait for it: a diamond of forty layers costs forty layers, not two
to the power of forty. What comes out is pure data; `loopnb/trees.py` shows it.

Everything here runs in the loop's thread, and leaves no frame objects behind.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from loopnb.records import AwaitGraph
from loopnb.tracking.chains import chain_of, kind_at_once, reason_of
from loopnb.tracking.holders import holders_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Generator, Iterable, Mapping

    from loopnb.tracking.chains import Chain
    from loopnb.tracking.tracker import Tracker

SLICE_S = 0.003
"""A slice ends soon after so many seconds."""
_AT_ONCE = 32
"""How many tasks are looked at before the clock is asked again. Each takes 1 to 20 us."""

#: The kinds of waits that end when a holder releases what it holds.
LOCKS = {"lock", "semaphore"}
#: The kinds of waits that end when other tasks do. Those that no rule knows are looked at in any case.
AWAITING = {"tasks", "group", "as completed", "wait_for"}


def slices(tracker: Tracker) -> Generator[None, None, AwaitGraph]:
    """Make the await graph, yielding after each slice of a few milliseconds, and return it at the end.

    The loop may turn in between. If it does, each task is shown as it was when it was looked at.
    """
    yield from tracker.listing.slices()
    edges = Edges(tracker)
    ends = time.perf_counter() + SLICE_S
    for count, number in enumerate(sorted(tracker.listing.records)):
        edges.look_at(number)
        if not count % _AT_ONCE and time.perf_counter() > ends:
            yield
            ends = time.perf_counter() + SLICE_S
    for count, number in enumerate(sorted(tracker.listing.records) if edges.locks else ()):
        edges.look_for_locks(number)
        if not count % _AT_ONCE and time.perf_counter() > ends:
            yield
            ends = time.perf_counter() + SLICE_S
    yield
    awaits = edges.awaits()
    records = {number: record for number, record in tracker.listing.records.items() if number in edges.seen}
    yield
    return AwaitGraph(records, awaits, frozenset(edges.any_of), frozenset(circles(awaits)))


def finish(steps: Generator[None, None, AwaitGraph]) -> AwaitGraph:
    """Go through the slices at once, and return the graph."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            graph: AwaitGraph = stop.value
            return graph


class Edges:
    """Collects who waits for whom.

    Args:
        tracker: Knows the tasks.

    Attributes:
        seen: The numbers of the tasks that were looked at.
        any_of: The numbers of the tasks that go on as soon as one of those they wait for lets them.
        locks: The locks that somebody waits for, by their ids.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._awaits: dict[int, list[int]] = {}
        self._wants: dict[int, int] = {}
        self._holders: dict[int, list[int]] = {}
        self.seen: set[int] = set()
        self.any_of: set[int] = set()
        self.locks: dict[int, Any] = {}

    def look_at(self, number: int) -> None:
        """Note what the task with that number waits for."""
        task = self._tracker.listing.task(number)
        if task is None:
            return
        self.seen.add(number)
        kind = kind_at_once(task, self._tracker.codes)
        if kind and kind not in LOCKS and kind not in AWAITING:
            return
        reason = reason_of(chain_of(task))
        if reason.kind in LOCKS:
            self._wants[number] = id(reason.subject)
            self.locks[id(reason.subject)] = reason.subject
        loop = task.get_loop()
        tasks = [awaited for awaited in reason.tasks if awaited.get_loop() is loop]
        if tasks:
            self._awaits[number] = sorted(map(self._tracker.number_of, tasks))
            if reason.is_any and len(reason.awaited) > 1:
                self.any_of.add(number)

    def look_for_locks(self, number: int) -> None:
        """Note which of the locks the task with that number holds."""
        task = self._tracker.listing.task(number)
        if task is not None:
            for lock, holder in holders_of(self.locks, [(task, chain_of(task))]):
                self._holders.setdefault(lock, []).append(self._tracker.number_of(holder.task))

    def awaits(self) -> dict[int, tuple[int, ...]]:
        """Return the numbers of those that each task waits for, holders of locks included."""
        found = {number: tuple(dict.fromkeys(awaited)) for number, awaited in self._awaits.items()}
        holders = {lock: tuple(dict.fromkeys(numbers)) for lock, numbers in self._holders.items()}
        for number, lock in self._wants.items():
            if lock in holders:
                found[number] = holders[lock]
                if len(holders[lock]) > 1:
                    self.any_of.add(number)
        return found


def circles(awaits: Mapping[int, Iterable[int]]) -> set[int]:
    """Return the nodes of a graph that lead back to themselves. Each node and edge is visited once."""
    found: set[int] = set()
    # Most tasks wait only for tasks that wait for no others. They are in no circle.
    inner = {number: below for number, below in awaits.items() if any(other in awaits for other in below)}
    for component in components(inner):
        if len(component) > 1 or component[0] in awaits.get(component[0], ()):
            found.update(component)
    return found


def components(awaits: Mapping[int, Iterable[int]]) -> list[list[int]]:
    """Return the strongly connected components of a graph (Tarjan's algorithm, without recursion)."""
    found: list[list[int]] = []
    order: dict[int, int] = {}
    lowest: dict[int, int] = {}
    open_nodes: dict[int, None] = {}
    for root in awaits:
        if root in order:
            continue
        order[root] = lowest[root] = len(order)
        open_nodes[root] = None
        work = [(root, iter(awaits.get(root, ())))]
        while work:
            node, below = work[-1]
            for other in below:
                if other not in order:
                    order[other] = lowest[other] = len(order)
                    open_nodes[other] = None
                    work.append((other, iter(awaits.get(other, ()))))
                    break
                if other in open_nodes:
                    lowest[node] = min(lowest[node], order[other])
            else:
                work.pop()
                if work:
                    above = work[-1][0]
                    lowest[above] = min(lowest[above], lowest[node])
                if lowest[node] == order[node]:
                    component: list[int] = []
                    while not component or component[-1] != node:
                        component.append(open_nodes.popitem()[0])
                    found.append(component)
    return found


def chains_of(tasks: Iterable[asyncio.Task[Any]]) -> Iterable[tuple[asyncio.Task[Any], Chain]]:
    """Yield each of *tasks* with its chain."""
    return ((task, chain_of(task)) for task in tasks)
