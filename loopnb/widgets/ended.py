"""Know how tasks have ended, and when, if that was while a view was visible.

The tracker's history has the tasks to which nothing refers any more, and the listing tells of the others as
they end. Nothing notes the time when a task ends, since that would cost time in each task. A look finds out a
half a second later at most, and only while a view is visible.

The loop's thread. Nothing here keeps a task alive.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from loopnb.tracking.history import EndedTask, coro_of, ended_well, spawned_at_of, state_of
from loopnb.tracking.tracked import has_origin
from loopnb.widgets.protocol import cut

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator
    from weakref import ref

    from loopnb.records import TaskRecord, TaskState
    from loopnb.tracking.history import EndedWell
    from loopnb.tracking.tracker import Tracker
    from loopnb.widgets.protocol import Query

#: How many ends of tasks are remembered, and how many ended tasks to which something refers.
_REMEMBERED = 2_000
#: If a task was found ended so many seconds after it was spawned, it ended about halfway.
_QUICK_S = 1.0
#: How many tasks are looked at before others get a turn. Each takes some microseconds.
_AT_ONCE = 64
#: The same for tasks that ended well. Each takes a quarter of a microsecond.
_WELL_AT_ONCE = 512
#: The order of the finished tasks, if nothing else is asked for: failed ones first.
_RANKS = {"raised": 0, "dropped": 1, "cancelled": 2, "returned": 2}


class Ended:
    """The tasks that have ended.

    Args:
        tracker: Knows the tasks.

    Attributes:
        when: When tasks ended, by number, in monotonic seconds: within half a second.
        count: Of the tasks that are kept, how many returned or were cancelled, and how many failed or were
            lost.
        version: Changes whenever the tasks may have changed.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._held: dict[int, ref[asyncio.Task[Any]]] = {}
        # Those that failed, or to which something still refers; and how the others have ended. Of these, only
        # the history has more: hundreds of them may come and go between two looks.
        self._tasks: dict[int, EndedTask] = {}
        self._well: dict[int, TaskState] = {}
        self._records: dict[int, TaskRecord] = {}
        self.when: OrderedDict[int, float] = OrderedDict()
        self.count = (0, 0)
        self.version = 0

    def find_held(self) -> None:
        """Find ended tasks to which something refers, but whose end no look has seen.

        From Python 3.14 on this looks at every object of the process, which may take 15 ms and more.
        """
        self.hold(self._tracker.held())

    def note(self, number: int, now: float) -> None:
        """Note that the task with that number, one of the user's, has been found ended."""
        self.when[number] = now
        self.version += 1  # a look may have shown it already, without that instant
        if len(self.when) > _REMEMBERED:
            self.when.popitem(last=False)

    def hold(self, refs: dict[int, ref[asyncio.Task[Any]]]) -> None:
        """Take in ended tasks to which something still refers."""
        self._held.update(refs)
        if len(self._held) > _REMEMBERED:
            self._held = dict(list(self._held.items())[-_REMEMBERED:])

    def look(self, now: float) -> Iterator[None]:
        """Bring everything up to date, and yield now and then. Takes 0.25 us for each task in the history.

        Args:
            now: Monotonic seconds.
        """
        tasks: dict[int, EndedTask] = {}
        is_kernels = self._tracker.is_kernels_coro
        for count, (number, task_ref) in enumerate(list(self._held.items())):
            if not count % _AT_ONCE:
                task = None
                yield
            task = task_ref()
            if task is None:
                del self._held[number]
            elif has_origin(task) and not is_kernels(task.origin.coro):
                self._take_in(tasks, self._tasks.get(number) or EndedTask.of(task), now)
        for count, ended in enumerate(self._tracker.history.failed()):
            if not count % _AT_ONCE:
                yield
            number = ended.origin.number
            if number in tasks:
                continue
            if self._tasks.get(number) is ended:
                tasks[number] = ended
            elif not is_kernels(ended.origin.coro):
                self._take_in(tasks, ended, now)
        well: dict[int, TaskState] = {}
        for count, kept in enumerate(self._tracker.history.well()):
            if not count % _WELL_AT_ONCE:
                yield
            number = kept[0]
            if number in tasks:
                continue
            if number not in self._well:
                if is_kernels(coro_of(kept)):
                    continue
                self._note_quick(number, spawned_at_of(kept), now)
            well[number] = state_of(kept)
        if tasks.keys() != self._tasks.keys() or well.keys() != self._well.keys():
            known = self._records.keys() & (tasks.keys() | well.keys())
            self._records = {number: self._records[number] for number in known}
            self._tasks, self._well = tasks, well
            self._recount()

    def _note_quick(self, number: int, spawned_at: float, now: float) -> None:
        """Note about when a task has ended that no look has found alive, unless that is long ago."""
        if number not in self.when and now - spawned_at < _QUICK_S:
            self.note(number, (spawned_at + now) / 2)

    def _take_in(self, tasks: dict[int, EndedTask], ended: EndedTask, now: float) -> None:
        number = ended.origin.number
        if number not in self._tasks:
            self._records.pop(number, None)  # of a task of another loop that has the same number
            self._note_quick(number, ended.origin.spawned_at, now)
        if ended.error is not None:
            if number not in self._records:
                self._records[number] = self._tracker.record_ended(ended)
            # The error holds the variables of the user's frames.
            ended = EndedTask(ended.origin, ended.name, ended.state, None, ended.waited_at)
        tasks[number] = ended

    def _recount(self) -> None:
        failed = sum(ended.state in {"raised", "dropped"} for ended in self._tasks.values())
        self.count = (len(self._tasks) + len(self._well) - failed, failed)
        self.version += 1

    def state_of(self, number: int, otherwise: str = "returned") -> str:
        """Return how the task with that number has ended; *otherwise* if that is not known."""
        ended = self._tasks.get(number)
        if ended is not None:
            return ended.state
        return self._well.get(number, otherwise)

    def task(self, number: int) -> asyncio.Task[Any] | None:
        """Return the ended task with that number, if something refers to it."""
        task_ref = self._held.get(number)
        return None if task_ref is None else task_ref()

    def of(self, number: int) -> EndedTask | None:
        """Return how the task with that number has ended; None if that is not known."""
        task = self.task(number)
        if task is not None and has_origin(task):
            return EndedTask.of(task)
        for ended in self._tracker.history:
            if ended.origin.number == number:
                return ended
        return None

    def records(self) -> Iterator[TaskRecord]:
        """Yield the records of the ended tasks. Each takes 10 us the first time."""
        kept: dict[int, EndedWell] = {}
        if not self.has_all_records:
            kept = {each[0]: each for each in self._tracker.history.well()}
        for number in [*self._tasks, *self._well]:
            record = self._records.get(number)
            if record is None:
                record = self._make_record(self._tasks.get(number), kept.get(number))
            if record is not None:
                self._records[number] = record
                yield record

    def _make_record(self, ended: EndedTask | None, kept: EndedWell | None) -> TaskRecord | None:
        if ended is None and kept is not None:
            ended = ended_well(kept)
        return None if ended is None else self._tracker.record_ended(ended)

    @property
    def has_all_records(self) -> bool:
        """True if `records` takes no longer than to go through a list."""
        return self._tasks.keys() | self._well.keys() <= self._records.keys()

    def row(self, record: TaskRecord) -> dict[str, Any]:
        """Return the row of an ended task."""
        return {
            "key": f"f{record.number}",
            "number": record.number,
            "name": cut(record.name),
            "coro": cut(record.coro),
            "state": record.state,
            "cell": None if record.cell is None else str(record.cell),
            "spawned_s": record.spawned_at,
            "duration_s": self._duration_s(record),
            "ended_s": self.when.get(record.number),
            "error": cut(record.error),
            "waits_at": cut(record.waits_at),
            "spawn_site": cut(record.spawn_site),
            "depth": 0,
        }

    def _duration_s(self, record: TaskRecord) -> float | None:
        ended_at = self.when.get(record.number)
        return None if ended_at is None else max(ended_at - record.spawned_at, 0.0)

    def select(self, query: Query, records: Iterable[TaskRecord]) -> list[TaskRecord]:
        """Return those of *records* that *query* finds, in its order."""
        text = query.text.casefold()
        found = [
            record
            for record in records
            if (not query.states or record.state in query.states)
            and (query.cell is None or query.cell == str(record.cell))
            and (not text or text in _words(record).casefold())
        ]
        found.sort(key=lambda record: self._value(query.sort, record), reverse=query.desc)
        return found

    def _value(self, sort: str, record: TaskRecord) -> tuple[Any, ...]:
        number = record.number
        if sort == "number":
            return (number,)
        if sort == "name":
            return ((record.name or record.coro).casefold(), number)
        if sort == "state":
            return (record.state, number)
        if sort == "cell":
            return (float("inf") if record.cell is None else record.cell.execution_count, number)
        if sort == "waited":  # how long it took: the longest first
            took_s = self._duration_s(record)
            return (took_s is None, -(took_s or 0.0), number)
        if sort == "waits_for":  # its error
            return (not record.error, record.error, number)
        return (_RANKS.get(record.state, 2), -self.when.get(number, record.spawned_at), -number)


def _words(record: TaskRecord) -> str:
    texts = (f"#{record.number}", record.name, record.coro, str(record.cell or ""), record.state)
    return "\n".join((*texts, record.error, record.waits_at, record.spawn_site))
