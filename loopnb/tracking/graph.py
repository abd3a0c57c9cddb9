"""Make the await graph of a loop: which task waits for which.

Each task is looked at once, however many wait for it: a diamond of forty layers costs forty layers, not two
to the power of forty. What comes out is pure data; `loopnb/trees.py` shows it.

Everything here runs in the loop's thread, and leaves no frame objects behind.
"""

from __future__ import annotations

import asyncio
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from loopnb.records import AwaitGraph
from loopnb.tracking.chains import LOCKS, chain_of, kind_at_once, may_hold_lock, reason_of
from loopnb.tracking.holders import holders_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    from loopnb.records import TaskRecord
    from loopnb.tracking.chains import Chain
    from loopnb.tracking.tracker import Tracker

T = TypeVar("T")

#: The number of a tracked task, without a call.
_number: Callable[[Any], int] = attrgetter("number")
#: How many tasks are looked at in one step. Each takes 1 to 20 us.
_AT_ONCE = 32
#: How many numbers are handled in one step. Each takes 0.1 to 1 us.
_COUNTED_AT_ONCE = 512

#: The kinds of waits that end when other tasks do. Those that no rule knows are looked at in any case.
AWAITING = {"tasks", "group", "as completed", "wait_for"}


def slices(tracker: Tracker) -> Generator[None, None, AwaitGraph]:
    """Make the await graph, yielding at least after every 2 ms, and return it at the end.

    The loop may turn in between. If it does, each task is shown as it was when it was looked at.
    """
    yield from tracker.listing.slices()
    edges = Edges(tracker)
    numbers = sorted(tracker.listing.records)
    for count, number in enumerate(numbers):
        edges.look_at(number)
        if not count % _AT_ONCE:
            yield
    for count, number in enumerate(numbers if edges.locks else ()):
        edges.look_for_locks(number)
        if not count % _AT_ONCE:
            yield
    awaits = yield from edges.awaits()
    cyclic = yield from circles(awaits)
    records: dict[int, TaskRecord] = {}
    for first in range(0, len(numbers), _COUNTED_AT_ONCE):
        yield
        part = numbers[first : first + _COUNTED_AT_ONCE]
        known = tracker.listing.records
        records |= {number: known[number] for number in part if number in edges.seen and number in known}
    return AwaitGraph(records, awaits, frozenset(edges.any_of), frozenset(cyclic))


def finish(steps: Generator[None, None, T]) -> T:
    """Go through all steps at once, and return what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            value: T = stop.value
            return value


class Edges:
    """Collects who waits for whom.

    Args:
        tracker: Knows the tasks.

    Attributes:
        seen: The numbers of the tasks that were looked at.
        any_of: The numbers of the tasks that need only one of those that they wait for: they go on when that
            one has ended, or lets the lock go.
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
        kind, lock = kind_at_once(task, self._tracker.codes)
        if kind in LOCKS:
            self._wants[number] = id(lock)
            self.locks[id(lock)] = lock
            return
        if kind and kind not in AWAITING:
            return
        reason = reason_of(chain_of(task))
        if reason.kind in LOCKS:
            self._wants[number] = id(reason.subject)
            self.locks[id(reason.subject)] = reason.subject
        loop = task.get_loop()
        tasks = [
            awaited
            for awaited in reason.awaited
            if isinstance(awaited, asyncio.Task) and awaited.get_loop() is loop
        ]
        if tasks:
            self._awaits[number] = sorted(self._numbers_of(tasks))
            if reason.is_any and len(reason.awaited) > 1:
                self.any_of.add(number)

    def _numbers_of(self, tasks: list[asyncio.Task[Any]]) -> list[int]:
        try:
            return list(map(_number, tasks))  # there may be thousands
        except AttributeError:
            return [self._tracker.number_of(task) for task in tasks]

    def look_for_locks(self, number: int) -> None:
        """Note which of the locks the task with that number holds."""
        task = self._tracker.listing.task(number)
        if task is not None and may_hold_lock(task, self._tracker.codes):
            for lock, holder in holders_of(self.locks, [(task, chain_of(task))]):
                self._holders.setdefault(lock, []).append(self._tracker.number_of(holder.task))

    def awaits(self) -> Generator[None, None, dict[int, tuple[int, ...]]]:
        """Return the numbers of those that each task waits for, holders of locks included. Yields often."""
        found: dict[int, tuple[int, ...]] = {}
        for count, (number, awaited) in enumerate(self._awaits.items()):
            found[number] = tuple(dict.fromkeys(awaited))
            if not count % _COUNTED_AT_ONCE:
                yield
        holders = {lock: tuple(dict.fromkeys(numbers)) for lock, numbers in self._holders.items()}
        for count, (number, lock) in enumerate(self._wants.items()):
            if lock in holders:
                found[number] = holders[lock]
                if len(holders[lock]) > 1:
                    self.any_of.add(number)
            if not count % _COUNTED_AT_ONCE:
                yield
        return found


def circles(awaits: Mapping[int, Iterable[int]]) -> Generator[None, None, set[int]]:
    """Return the nodes of a graph that lead back to themselves. Each node and edge is visited once.

    Yields often.
    """
    found: set[int] = set()
    # Most tasks wait only for tasks that wait for no others. They are in no circle.
    inner: dict[int, Iterable[int]] = {}
    for count, (number, below) in enumerate(awaits.items()):
        if any(other in awaits for other in below):
            inner[number] = below
        if not count % _COUNTED_AT_ONCE:
            yield
    for count, component in enumerate(components(inner)):
        if len(component) > 1 or component[0] in awaits.get(component[0], ()):
            found.update(component)
        if not count % _COUNTED_AT_ONCE:
            yield
    return found


def components(awaits: Mapping[int, Iterable[int]]) -> Iterator[list[int]]:
    """Yield the strongly connected components of a graph (Tarjan's algorithm, without recursion)."""
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
                    yield component


def chains_of(tasks: Iterable[asyncio.Task[Any]]) -> Iterable[tuple[asyncio.Task[Any], Chain]]:
    """Yield each of *tasks* with its chain."""
    return ((task, chain_of(task)) for task in tasks)
