"""Select, sort and group the live tasks for the views, at a cost that depends on what has changed.

Of ten thousand tasks a thousand change each second, and a view shows sixty rows. So each selection (a filter,
an order, grouped or not) keeps its rows in order, and is told of each task that has changed. The window of
rows that is sent is cut out of it.

Pure: records in, keys and rows out. Nothing here holds a task.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from loopnb.widgets.protocol import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from loopnb.records import CellRef, TaskRecord
    from loopnb.widgets.protocol import Query

#: The words of the views for the states of records, in the order in which they sort.
STATES = {"running": "running", "scheduled": "ready", "waiting": "waiting", "parked": "parked"}
_RANKS = {state: rank for rank, state in enumerate(("cancelling", *STATES.values()))}
_LAST = float("inf")
#: How many tasks of a group are asked for what they have in common.
_SAMPLE = 300
#: So many groups that have ended are remembered.
_MOST_ENDED = 1_000
#: With so many changes at once, sorting anew is faster than putting each in its place.
_MANY = 512


class LiveTask(NamedTuple):
    """A live task as the views show it.

    Attributes:
        record: Its record.
        state: `running`, `ready`, `waiting`, `parked` or `cancelling`.
        note: Notes in words, joined by `; ` ("" if there are none).
        cancelling_since: Since when it is being cancelled, in monotonic seconds; None if it is not.
    """

    record: TaskRecord
    state: str
    note: str
    cancelling_since: float | None = None

    @property
    def is_leftover(self) -> bool:
        """True if an earlier run of its cell, or an `asyncio.run()` that is over, has left it behind."""
        return bool(self.record.note)


class Tasks:
    """All live tasks, and counts of the user's.

    A task that nobody has asked to end is only its record here: an object more for each of ten thousand tasks
    would keep the garbage collector busy.

    Attributes:
        records: The records of the tasks, by number.
        asked: Those that were asked to end, as the views show them, by number.
        states: How many of the user's tasks are in each state.
        cells: How many of them each cell has spawned, by the number in its prompt.
        leftovers: How many of them are left over.
    """

    def __init__(self) -> None:
        self.records: dict[int, TaskRecord] = {}
        self.asked: dict[int, LiveTask] = {}
        self.states: Counter[str] = Counter()
        self.cells: Counter[int] = Counter()
        self.leftovers = 0

    def __len__(self) -> int:
        return len(self.records)

    def __contains__(self, number: int) -> bool:
        return number in self.records

    def get(self, number: int) -> LiveTask | None:
        """Return the task with that number as the views show it; None if it does not live."""
        record = self.records.get(number)
        return None if record is None else self.shown(record)

    def shown(self, record: TaskRecord) -> LiveTask:
        """Return the live task of *record* as the views show it."""
        asked = self.asked.get(record.number)
        return LiveTask(record, STATES[record.state], record.note) if asked is None else asked

    def state_of(self, record: TaskRecord) -> str:
        """Return the state of the live task of *record* in the words of the views."""
        asked = self.asked.get(record.number) if self.asked else None
        return STATES[record.state] if asked is None else asked.state

    def put(self, record: TaskRecord, asked: LiveTask | None = None) -> bool:
        """Take in a task that is new or has changed. Return True if it is new.

        Args:
            record: Its record.
            asked: How the views show it, if it was asked to end.
        """
        number = record.number
        old = self.records.get(number)
        self.records[number] = record
        before = self.asked.pop(number, None) if self.asked else None
        if old is not None:
            is_plain = asked is None and before is None and old.cell is record.cell
            if is_plain and old.state == record.state and old.note == record.note:
                return False  # most tasks that have changed only wait anew
            self._count(old, STATES[old.state] if before is None else before.state, -1)
        if asked is not None:
            self.asked[number] = asked
        self._count(record, STATES[record.state] if asked is None else asked.state, 1)
        return old is None

    def drop(self, number: int) -> TaskRecord | None:
        """Forget a task that has ended. Returns its last record, if it was known."""
        old = self.records.pop(number, None)
        asked = self.asked.pop(number, None) if self.asked else None
        if old is not None:
            self._count(old, STATES[old.state] if asked is None else asked.state, -1)
        return old

    def _count(self, record: TaskRecord, state: str, by: int) -> None:
        if record.is_kernel:
            return
        self.states[state] += by
        cell = record.cell
        if cell is not None:
            count = self.cells[cell.execution_count] + by
            if count:
                self.cells[cell.execution_count] = count
            else:
                del self.cells[cell.execution_count]
        if record.note:
            self.leftovers += by


class Order:
    """Keys in the order of their values, which may change. No two are equal, since each has a number."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[Any, ...]] = {}
        self._sorted: list[tuple[Any, ...]] = []
        self._late: dict[str, tuple[Any, ...] | None] = {}

    def put(self, key: str, value: Any, number: int) -> None:
        """Place *key* by *value*, and by *number* among equal values. It takes effect with `settle`."""
        self._late[key] = (value, number, key)

    def drop(self, key: str) -> None:
        """Take *key* out. Does nothing if it is not there. It takes effect with `settle`."""
        self._late[key] = None

    def settle(self) -> None:
        """Do what was asked for since the last call."""
        late, self._late = self._late, {}
        changed = {key: value for key, value in late.items() if self._values.get(key) != value}
        if len(changed) > _MANY:
            self._values.update({key: value for key, value in changed.items() if value is not None})
            for key, value in changed.items():
                if value is None:
                    self._values.pop(key, None)
            self._sorted = sorted(self._values.values())
            return
        for key, value in changed.items():
            old = self._values.pop(key, None)
            if old is not None:
                del self._sorted[bisect_left(self._sorted, old)]
            if value is not None:
                self._values[key] = value
                insort(self._sorted, value)

    def __len__(self) -> int:
        return len(self._sorted)

    def index(self, key: str, *, desc: bool) -> int | None:
        """Return the place of *key*; None if it is not there."""
        value = self._values.get(key)
        if value is None:
            return None
        index = bisect_left(self._sorted, value)
        return len(self) - 1 - index if desc else index

    def keys(self, first: int, last: int, *, desc: bool) -> list[str]:
        """Return the keys from place *first* up to, but not including, place *last*."""
        if desc:
            first, last = len(self) - last, len(self) - first
        found = [value[2] for value in self._sorted[max(first, 0) : max(last, 0)]]
        return found[::-1] if desc else found


class Group:
    """The tasks of one coroutine and cell that wait at one place.

    Attributes:
        key: Its key.
        coro, cell, waits_at: What its tasks have in common: the name of their coroutine, the number of their
            cell (see `cell_number`), and where they wait.
        numbers: The numbers of its tasks.
        states: How many of them are in each state.
        members: Its tasks in order, once it was opened.
        row_key: The key of the row that stands for it: its own, or that of its only task.
        anchor: If the order is by age or number: the number of its oldest task when it became one row.
            Otherwise None.
        has_ended: True if the task that was the last to leave has ended, and does not wait elsewhere.
    """

    def __init__(self, key: str, coro: str, cell: int, waits_at: str) -> None:
        self.key = key
        self.coro = coro
        self.cell = cell
        self.waits_at = waits_at
        self.numbers: set[int] = set()
        self.states: Counter[str] = Counter()
        self.members: Order | None = None
        self.row_key: str | None = None
        self.anchor: int | None = None
        self.has_ended = False
        # Remembered, since of ten thousand numbers it takes long to find them. None if not known.
        self._oldest: int | None = None
        self._newest: int | None = None

    def add(self, number: int) -> None:
        """Add a task, by its number."""
        self.numbers.add(number)
        if self._oldest is not None and number < self._oldest:
            self._oldest = number
        if self._newest is not None and number > self._newest:
            self._newest = number

    def discard(self, number: int, *, has_ended: bool) -> None:
        """Take a task out, by its number: it has ended, or is shown elsewhere."""
        self.has_ended = has_ended
        self.numbers.discard(number)
        if number == self._oldest:
            self._oldest = None
        if number == self._newest:
            self._newest = None

    @property
    def oldest(self) -> int:
        """The number of its oldest task. Numbers grow with time, so that is the least one."""
        if self._oldest is None:
            self._oldest = min(self.numbers)
        return self._oldest

    @property
    def newest(self) -> int:
        """The number of its newest task."""
        if self._newest is None:
            self._newest = max(self.numbers)
        return self._newest

    @property
    def right_row_key(self) -> str | None:
        """The key of the row that ought to stand for it; None if it has no task any more."""
        if len(self.numbers) > 1:
            return self.key
        return next((f"t{number}" for number in self.numbers), None)


class Selection:
    """The rows that one query finds, in its order, whatever part of them a view shows.

    Args:
        query: The query. Its opened groups and its part of the rows do not matter.
        tasks: All live tasks.
        busy: Share of the loop's time that each task takes, by number. Always the same dictionary.

    Attributes:
        is_fixed: True if a task that changes stays where it is. Then `put` is for new ones only.
        groups: The groups, by key.
        ended_groups: Keys of groups whose tasks have ended.
    """

    def __init__(self, query: Query, tasks: Tasks, busy: Mapping[int, float]) -> None:
        self._query = query
        self._text = query.text.casefold()
        self._states = frozenset(query.states)
        self._is_filtered = bool(query.text or query.states or query.cell is not None)
        self._tasks = tasks
        self._busy = busy
        self._value = _VALUES[query.sort]
        self._is_lasting = query.sort in {"age", "number"}  # no change moves a task
        self.is_fixed = self._is_lasting and not query.group and not self._is_filtered
        self._order = Order()
        # Of grouped tasks: the group, and the state as it was counted there.
        self._group_of: dict[int, Group] = {}
        self._state_of: dict[int, str] = {}
        self.groups: dict[str, Group] = {}
        self.ended_groups: set[str] = set()
        self._touched: set[str] = set()

    def put(self, number: int) -> None:
        """Take in a live task that is new or has changed. Call `settle` after some of these."""
        record = self._tasks.records[number]
        if not self._is_wanted(record):
            self.drop(number, has_ended=False)
        elif self._query.group:
            self._put_in_group(record)
        else:
            self._order.put(f"t{number}", self._value_of(record), number)

    def drop(self, number: int, *, has_ended: bool = True) -> None:
        """Take out a task that has ended, or is not wanted any more, if it is there."""
        if not self._query.group:
            self._order.drop(f"t{number}")
        else:
            self._leave_group(number, has_ended=has_ended)

    def settle(self) -> None:
        """Bring the order up to date after some calls of `put` and `drop`."""
        touched = [self.groups[key] for key in self._touched]
        self._touched.clear()
        # Drop first: a task that has left one group may stand for another one now.
        for group in touched:
            if group.row_key is not None and group.row_key != group.right_row_key:
                self._order.drop(group.row_key)
        for group in touched:
            group.row_key = group.right_row_key
            if group.row_key is None:
                del self.groups[group.key]
                if group.has_ended:
                    self._note_ended(group.key)
            else:
                self._place(group, group.row_key)
        self._order.settle()

    def look_at_busy(self, numbers: set[int]) -> None:
        """If the rows are sorted by share of the loop's time, move those whose share has changed.

        Call `settle` afterwards.

        Args:
            numbers: The numbers of the tasks whose share has changed.
        """
        if self._query.sort == "busy":
            for number in numbers & self._tasks.records.keys():
                self.put(number)

    def _note_ended(self, key: str) -> None:
        if len(self.ended_groups) >= _MOST_ENDED:
            self.ended_groups.clear()
        self.ended_groups.add(key)

    # -- groups -----------------------------------------------------------------------------------

    def _put_in_group(self, record: TaskRecord) -> None:
        number, coro, waits_at, cell = record.number, record.coro, record.waits_at, cell_number(record.cell)
        state = self._tasks.state_of(record)
        group = self._group_of.get(number)
        if group is not None and (group.waits_at != waits_at or group.coro != coro or group.cell != cell):
            self._leave_group(number, has_ended=False)
            group = None
        if group is None:
            key = group_key(coro, cell, waits_at)
            group = self.groups.get(key)
            if group is None:
                group = self.groups[key] = Group(key, coro, cell, waits_at)
                self.ended_groups.discard(key)
            group.add(number)
            self._group_of[number] = group
        elif group.members is None and self._is_lasting and self._state_of[number] == state:
            return
        else:
            group.states[self._state_of[number]] -= 1
        group.states[state] += 1
        self._state_of[number] = state
        self._touched.add(group.key)
        if group.members is not None:
            group.members.put(f"t{number}", self._value_of(record), number)

    def _leave_group(self, number: int, *, has_ended: bool) -> None:
        group = self._group_of.pop(number, None)
        if group is None:
            return
        group.states[self._state_of.pop(number)] -= 1
        group.discard(number, has_ended=has_ended)
        self._touched.add(group.key)
        if group.members is not None:
            group.members.drop(f"t{number}")

    def _value_of(self, record: TaskRecord) -> Any:
        """Return the value by which the task of *record* is sorted."""
        return self._value(record, self._tasks, self._busy)

    def _place(self, group: Group, row_key: str) -> None:
        """Put the row that stands for *group* where it belongs."""
        sort, numbers, is_folded = self._query.sort, group.numbers, row_key == group.key
        if is_folded and self._is_lasting:
            if group.anchor is not None:
                return  # a group stays where it is when its oldest task ends
            group.anchor = group.oldest
        elif not is_folded:
            group.anchor = None
        first, records = group.oldest, self._tasks.records
        value = self._value_of(records[first])
        if is_folded and sort == "waited":
            value = min(self._value_of(records[number]) for number in numbers)
        elif is_folded and sort == "busy":
            value = sum(self._value_of(records[number]) for number in numbers)
        self._order.put(row_key, value, first)

    def open_group(self, key: str) -> Group | None:
        """Return the group of that key with its tasks in order; None if there is no such row."""
        group = self.groups.get(key)
        if group is None or group.row_key != key:
            return None
        if group.members is None:
            group.members = Order()
            for number in group.numbers:
                group.members.put(f"t{number}", self._value_of(self._tasks.records[number]), number)
        group.members.settle()
        return group

    # -- windows ----------------------------------------------------------------------------------

    def window(self, query: Query) -> tuple[int, list[tuple[str, int]]]:
        """Return the number of rows, and the keys of those that *query* shows, each with its depth."""
        desc = query.desc
        opened = []
        for key in query.open:
            index = self._order.index(key, desc=desc)
            group = self.open_group(key)
            if index is not None and group is not None:
                opened.append((index, group))
        opened.sort(key=lambda pair: pair[0])
        total = len(self._order) + sum(len(group.numbers) for _index, group in opened)
        first = min(query.offset, max(total - 1, 0))
        last = first + query.limit
        found: list[tuple[str, int]] = []
        position = done = 0
        for index, group in [*opened, (len(self._order) - 1, None)]:
            stop = index + 1
            found += _part(self._order, done, stop, position, (first, last), 0, desc)
            position += stop - done
            done = stop
            if group is not None and group.members is not None:
                size = len(group.members)
                found += _part(group.members, 0, size, position, (first, last), 1, desc)
                position += size
        return total, found

    def numbers_in(self, key: str) -> list[int]:
        """Return the numbers of the tasks behind the row of a group, oldest first."""
        group = self.groups.get(key)
        return [] if group is None else sorted(group.numbers)

    # -- filters ----------------------------------------------------------------------------------

    def _is_wanted(self, record: TaskRecord) -> bool:
        query = self._query
        if record.is_kernel and not query.kernels:
            return False
        if not self._is_filtered:
            return True
        if self._states and self._tasks.state_of(record) not in self._states:
            return False
        if query.cell is not None and str(record.cell) != query.cell:
            return False
        return not self._text or self._text in _words(self._tasks.shown(record)).casefold()


def _part(
    order: Order, first: int, last: int, position: int, wanted: tuple[int, int], depth: int, desc: bool
) -> Iterator[tuple[str, int]]:
    """Yield those keys from *first* up to *last* that are wanted, each with *depth*.

    The key at *first* stands at *position* among all rows.
    """
    begin = max(first, first + wanted[0] - position)
    end = min(last, first + wanted[1] - position)
    if begin < end:
        for key in order.keys(begin, end, desc=desc):
            yield key, depth


def _words(task: LiveTask) -> str:
    record = task.record
    texts = (f"#{record.number}", record.name, record.coro, str(record.cell or ""), task.state)
    return "\n".join((*texts, record.waits_for, record.waits_at, record.spawn_site, task.note))


def cell_number(cell: CellRef | None) -> int:
    """Return the number in the prompt of *cell*; -1 for None."""
    return -1 if cell is None else cell.execution_count


@lru_cache(4_096)
def group_key(coro: str, cell: int, waits_at: str) -> str:
    """Return the key of the group of such tasks."""
    text = f"{coro}\0{cell}\0{waits_at}".encode("utf-8", "surrogatepass")
    return f"g{blake2b(text, digest_size=6).hexdigest()}"


_VALUES: dict[str, Callable[[TaskRecord, Tasks, Mapping[int, float]], Any]] = {
    "age": lambda record, _tasks, _busy: record.spawned_at,
    "number": lambda record, _tasks, _busy: record.number,
    "name": lambda record, _tasks, _busy: (record.name or record.coro).casefold(),
    "state": lambda record, tasks, _busy: _RANKS[tasks.state_of(record)],
    "cell": lambda record, _tasks, _busy: _LAST if record.cell is None else record.cell.execution_count,
    "waited": lambda record, _tasks, _busy: _LAST if record.waiting_since is None else record.waiting_since,
    "waits_for": lambda record, _tasks, _busy: record.waits_for,
    "busy": lambda record, _tasks, busy: -busy.get(record.number, 0.0),
}

# -- rows ------------------------------------------------------------------------------------------


def task_row(task: LiveTask, depth: int, busy: float | None, waits_for: str, line: str) -> dict[str, Any]:
    """Return the row of one live task.

    Args:
        task: The task.
        depth: 1 for a task of an opened group, else 0.
        busy: Its share of the loop's time; None if that is not known.
        waits_for: What it waits for, in words.
        line: The user's line where it waits: `In[4], line 3: await r.read()`; "" if that is not known.
    """
    record = task.record
    return {
        "key": f"t{record.number}",
        "number": record.number,
        "name": cut(record.name),
        "coro": cut(record.coro),
        "state": task.state,
        "spawned_s": record.spawned_at,
        "waiting_since_s": record.waiting_since,
        "cancelling_since_s": task.cancelling_since,
        "cell": None if record.cell is None else str(record.cell),
        "spawn_site": cut(record.spawn_site),
        "waits_for": cut(waits_for),
        "waits_at": cut(record.waits_at),
        "line": cut(line),
        "parent": record.parent,
        "busy": busy,
        "note": cut(task.note),
        "blocked_s": round(record.blocked_s, 3),
        "is_leftover": task.is_leftover,
        "is_kernel": record.is_kernel,
        "depth": depth,
    }


def group_row(
    group: Group,
    records: Mapping[int, TaskRecord],
    *,
    is_open: bool,
    busy: float | None,
    waits_for: str | None,
    line: str,
) -> dict[str, Any]:
    """Return the row of a group.

    Args:
        group: The group.
        records: The records of all live tasks.
        is_open: Its tasks are shown below it.
        busy: The share of the loop's time that its tasks take together; None if that is not known.
        waits_for: What all of them wait for, in words; None for what their records say.
        line: The user's line where they wait; "" if that is not known.
    """
    record = records[group.oldest]
    # A group may have ten thousand tasks. Its row says of all of them what is true of a few hundred.
    members = [records[number] for number in islice(group.numbers, _SAMPLE)]
    states = [state for state, count in group.states.items() if count]
    since = [member.waiting_since for member in members if member.waiting_since is not None]
    return {
        "key": group.key,
        "count": len(group.numbers),
        "coro": cut(record.coro),
        "name": cut(record.name) if all(member.name == record.name for member in members) else "",
        "state": states[0] if len(states) == 1 else "mixed",
        "cell": None if record.cell is None else str(record.cell),
        "waits_for": cut(_common(members) if waits_for is None else waits_for),
        "waits_at": cut(record.waits_at),
        "line": cut(line),
        "spawn_site": cut(record.spawn_site),
        "oldest_s": record.spawned_at,
        "waiting_since_s": min(since) if since else None,
        "busy": busy,
        "is_leftover": all(member.note for member in members),
        "is_kernel": record.is_kernel,
        "is_open": is_open,
        "depth": 0,
    }


def _common(members: list[TaskRecord]) -> str:
    """Return the words that begin the texts of all *members*: `task 5` and `task 6` become `task`."""
    texts = {member.waits_for for member in members}
    if len(texts) == 1:
        return texts.pop()
    words = [text.split(" ") for text in texts]
    shared = []
    for column in zip(*words, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return " ".join(shared)
