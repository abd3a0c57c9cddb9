"""Make the await graph of a loop: which task waits for which.

This looks at each task once, however many wait for it: a diamond of forty layers costs forty layers, not two
to the power of forty. The graph is pure data; `loopnb/trees.py` shows it.

Everything here runs in the loop's thread, and makes frame objects only where `chain_of` does.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from loopnb._cpython import loop_of_task
from loopnb.nesting._cpython import waited_future
from loopnb.records import AwaitGraph
from loopnb.tracking import _cpython
from loopnb.tracking.chains import LOCKS, chain_of, reason_of, subject_of
from loopnb.tracking.holders import holders_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    from loopnb.tracking.chains import Chain
    from loopnb.tracking.suspended import Path
    from loopnb.tracking.tracker import Tracker

T = TypeVar("T")

#: The number of a tracked task, without a call.
_number: Callable[[Any], int] = attrgetter("number")
#: How many tasks are looked at in one step. Each takes 1 to 20 us.
_AT_ONCE = 32
#: How many numbers are handled in one step. Each takes 0.1 to 1 us.
_COUNTED_AT_ONCE = 512

#: The kinds of waits that end when other tasks do. Waits for which there is no rule are looked at in any
#: case.
AWAITING = {"tasks", "group", "as completed", "wait_for"}


def slices(tracker: Tracker) -> Generator[None, None, AwaitGraph]:
    """Make the await graph, yielding at least after every 2 ms, and return it at the end.

    The loop may turn in between. If it does, each task is shown as it was when it was looked at.
    """
    yield from tracker.listing.slices()
    yield
    known = tracker.listing.records
    numbers = sorted(known)
    records = dict(zip(numbers, map(known.__getitem__, numbers), strict=True))
    yield
    edges = Edges(tracker)
    for first in range(0, len(numbers), _AT_ONCE):
        edges.look_at_each(numbers[first : first + _AT_ONCE])
        yield
    for number in edges.may_hold if edges.locks else ():
        edges.look_for_locks(number)
        yield
    awaits = yield from edges.awaits()
    cyclic = yield from circles(awaits)
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
    """Collects who waits for whom, as of the last look of the tracker's listing.

    Args:
        tracker: Knows the tasks.

    Attributes:
        any_of: The numbers of the tasks that wait for several, but need only one: they go on when one has
            ended, or has released the lock.
        locks: The locks that somebody waits for, by their ids.
        may_hold: The numbers of the tasks that may hold one.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._listing = tracker.listing
        self._awaits: dict[int, list[int]] = {}
        self._wants: dict[int, list[int]] = {}
        self._holders: dict[int, list[int]] = {}
        #: Future -> the lock for which it queues. By references, since ids may come again.
        self._queues: dict[ref[asyncio.Future[Any]], Any] = {}
        self.any_of: set[int] = set()
        self.locks: dict[int, Any] = {}
        self.may_hold: list[int] = []

    def look_at_each(self, numbers: Iterable[int]) -> None:
        """Note what the tasks with these numbers wait for."""
        path_of, waited_by, known_lock = self._listing.path_of, self._listing.waited_by, self._queues.get
        for number in numbers:
            path = path_of(number)
            kind = None if path is None else path.kind
            if path is None or path.may_hold:
                self.may_hold.append(number)
            if path is not None and kind in LOCKS and (waited_ref := waited_by(number)) is not None:
                waited = waited_ref()  # a reference to a future that is gone may have no hash
                if waited is not None:
                    lock = known_lock(waited_ref)
                    if lock is None:
                        lock = self._lock_of(number, path, waited)
                    if lock is not None:
                        self._wants.setdefault(id(lock), []).append(number)
                        continue
            if not kind or kind in AWAITING or kind in LOCKS:
                self._look_closely(number)

    def _lock_of(self, number: int, path: Path, waited: asyncio.Future[Any]) -> Any:
        """Return the lock that a task waits for; None if its *path* does not tell that."""
        task = self._listing.task(number)
        if task is None or waited_future(task) is not waited:
            return None  # it has moved since the listing has looked at it
        lock = subject_of(task, path)
        if lock is not None and id(lock) not in self.locks:
            self.locks[id(lock)] = lock
            # Thousands may wait for one lock. Asking its queue takes a tenth of the time that asking each of
            # them takes.
            self._queues.update(dict.fromkeys(map(ref, _cpython.futures_of_waiters(lock)), lock))
        return lock

    def _look_closely(self, number: int) -> None:
        task = self._listing.task(number)
        if task is None:
            return
        waited = waited_future(task)
        if isinstance(waited, asyncio.Task):
            self._note_awaited(number, task, [waited])
            return
        reason = reason_of(chain_of(task))
        if reason.kind in LOCKS:
            self._wants.setdefault(id(reason.subject), []).append(number)
            self.locks[id(reason.subject)] = reason.subject
        self._note_awaited(number, task, reason.awaited)
        if reason.is_any and number in self._awaits and len(reason.awaited) > 1:
            self.any_of.add(number)

    def _note_awaited(self, number: int, task: asyncio.Task[Any], awaited: Iterable[Any]) -> None:
        loop = loop_of_task(task)
        tasks = [item for item in awaited if isinstance(item, asyncio.Task) and loop_of_task(item) is loop]
        if tasks:
            self._awaits[number] = sorted(self._numbers_of(tasks))

    def _numbers_of(self, tasks: list[asyncio.Task[Any]]) -> list[int]:
        try:
            return list(map(_number, tasks))  # there may be thousands
        except AttributeError:
            return [self._tracker.number_of(task) for task in tasks]

    def look_for_locks(self, number: int) -> None:
        """Note which of the locks the task with that number holds."""
        task = self._listing.task(number)
        if task is not None:
            for lock, holder in holders_of(self.locks, [(task, chain_of(task))]):
                self._holders.setdefault(lock, []).append(self._tracker.number_of(holder.task))

    def awaits(self) -> Generator[None, None, dict[int, tuple[int, ...]]]:
        """Return for each task the numbers of those it waits for, lock holders included. Yields often."""
        found: dict[int, tuple[int, ...]] = {}
        for count, (number, awaited) in enumerate(self._awaits.items()):
            found[number] = tuple(dict.fromkeys(awaited))
            if not count % _COUNTED_AT_ONCE:
                yield
        for lock, numbers in self._holders.items():
            holders, waiting = tuple(dict.fromkeys(numbers)), self._wants[lock]
            found.update(dict.fromkeys(waiting, holders))
            if len(holders) > 1:
                self.any_of.update(waiting)
            yield
        return found


def circles(awaits: Mapping[int, Iterable[int]]) -> Generator[None, None, set[int]]:
    """Return the nodes of a graph that lead back to themselves. Each node and edge is visited once.

    Yields often.
    """
    found: set[int] = set()
    # Most tasks wait only for tasks that wait for no others. They are in no circle. By id: those who wait for
    # one lock share what stands below them.
    inner: dict[int, Iterable[int]] = {}
    leads_on: dict[int, bool] = {}
    edges = iter(awaits.items())
    while part := list(islice(edges, _COUNTED_AT_ONCE)):
        for key, below in {id(below): below for _number, below in part}.items():
            if key not in leads_on:
                leads_on[key] = not awaits.keys().isdisjoint(below)
        inner.update((number, below) for number, below in part if leads_on[id(below)])
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
