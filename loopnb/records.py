"""Frozen data that crosses folders: a cell, a task, a block, a finding, the loop, a snapshot, a delta."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

TaskState = Literal["running", "waiting", "parked", "scheduled", "returned", "raised", "cancelled", "dropped"]
Severity = Literal["error", "warning", "note"]
LoopCondition = Literal["running", "idle", "nested", "set aside", "closed"]
BlockedBy = Literal["cell", "task", "callback", "kernel", "unknown"]
BlockedHow = Literal[
    "computes",
    "c call",
    "gil",
    "garbage",
    "sleep",
    "socket",
    "loop socket",
    "process",
    "lock",
    "file",
    "call",
]


@dataclass(frozen=True, slots=True)
class CellRef:
    """One execution of one cell.

    Attributes:
        cell_id: The front end's id of the cell, the same over re-runs; None where it sends none.
        execution_count: The number in the cell's prompt, `In[4]`.
        background: Number of the background run that this code belongs to; None for the rest of the cell. A
            run counts as its cell, so this is not compared.
    """

    cell_id: str | None
    execution_count: int
    background: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"In[{self.execution_count}]"


class Describe(Protocol):
    """Formats a place for people."""

    def __call__(self, filename: str, line: int, cell: CellRef | None = None) -> str:
        """Return that line of that file as people write it.

        Cells of the same text share one file name. Give *cell*, the execution whose code runs, to tell them
        apart.
        """


class TaskRecord(NamedTuple):
    """One task as it was when it was looked at, live or ended.

    It holds instants rather than ages, so that the record of a task that has not moved need not be made
    again. It is a named tuple, since making ten thousand frozen dataclasses takes as long as everything else
    in a listing.

    Attributes:
        number: loopnb's own counter, never reused in a session. It begins at 1. The kernel's own tasks do not
            count: they have numbers of 13 digits.
        name: Its name; "" if the task has ended and nobody ever set or read its name.
        coro: Qualified name of its coroutine.
        state: `running` (its step is executing now), `waiting` (for `waits_for`), `parked` (it waits in
            a nested run), `scheduled` (its next step is due). If it has ended: `returned`, `raised`,
            `cancelled` or `dropped` (it waited, and nothing referred to it any more).
        spawned_at: When it was spawned, in monotonic seconds.
        cell: The cell execution that spawned it, if any.
        spawn_site: `file:line` of the user's code that spawned it ("" if unknown).
        waits_at: `function file:line` of the innermost link of its await chain that the user wrote. If there
            is none, that of the innermost that the user installed; "" if there is none either.
        waits_for: What it waits for, in words ("" if nothing is known).
        parent: Number of the task that spawned it.
        is_kernel: It belongs to the kernel itself and is hidden by default.
        note: Notes, such as which run has left the task behind ("" if there are none).
        error: What it failed with, in words ("" if it has not failed).
        blocked_s: Seconds for which it has blocked the loop, all its blocks together.
        waiting_since: When it was first seen in this wait, in monotonic seconds. It may have begun to wait
            earlier, but not before the previous look. None if it does not wait.
    """

    number: int
    name: str
    coro: str
    state: TaskState
    spawned_at: float
    cell: CellRef | None
    spawn_site: str
    waits_at: str
    waits_for: str
    parent: int | None = None
    is_kernel: bool = False
    note: str = ""
    error: str = ""
    blocked_s: float = 0.0
    waiting_since: float | None = None

    @property
    def age_s(self) -> float:
        """Seconds since it was spawned, until now."""
        return time.monotonic() - self.spawned_at

    @property
    def label(self) -> str:
        """The task's name in a sentence: `task 5 'feed'`. The kernel's own have no number in it."""
        if self.is_kernel and self.name:
            return f"task {self.name!r}"
        return f"task {self.number} {self.name!r}" if self.name else f"task {self.number}"

    @property
    def doing(self) -> str:
        """What it does and where, in words: `waiting for sleep() at main In[3], line 2`."""
        doing = f"waiting for {self.waits_for}" if self.waits_for else self.state
        return f"{doing} at {self.waits_at}" if self.waits_at else doing

    @property
    def is_finished(self) -> bool:
        """True if it has ended."""
        return self.state in {"returned", "raised", "cancelled", "dropped"}


class TaskDelta(NamedTuple):
    """What has changed among the live tasks between two looks.

    Attributes:
        changed: The records of tasks that are new, or whose record is another one now, by number, oldest
            first.
        gone: The numbers of tasks that have ended. The receiver may never have heard of some of them.
    """

    changed: dict[int, TaskRecord]
    gone: frozenset[int]

    def __bool__(self) -> bool:
        """True if anything has changed."""
        return bool(self.changed or self.gone)


class AwaitGraph(NamedTuple):
    """Who waits for whom, at one moment. Pure data: numbers stand for tasks.

    Attributes:
        records: The live tasks, the kernel's own included.
        awaits: The number of a task -> the numbers of those that it waits for, each once: tasks that it
            awaits, and the holders of the lock that it waits for. Tasks that wait for none are left out.
        any_of: The numbers of the tasks that wait for several, but need only one: they go on when one has
            ended, or has released the lock.
        cyclic: The numbers of the tasks that wait for themselves, through others or directly.
    """

    records: dict[int, TaskRecord]
    awaits: dict[int, tuple[int, ...]]
    any_of: frozenset[int]
    cyclic: frozenset[int]


class WaitDetail(NamedTuple):
    """What one task waits for, as of the moment it was looked at.

    Attributes:
        text: What it waits for: `Queue.get of jobs`.
        state: What may change while it waits, such as `empty, 3 others wait`; "" if nothing may.
        due_at: When a timer ends the wait, in monotonic seconds; None if no such timer is known.
        since: For a lock: since when its holder has been waiting, in monotonic seconds. It has held the lock
            for that long, or longer. None if that is not known.
        line: The user's own innermost line: `In[4], line 3: await r.read()`; "" if there is none.
    """

    text: str
    state: str = ""
    due_at: float | None = None
    since: float | None = None
    line: str = ""


class Deadlock(NamedTuple):
    """Tasks that can never go on.

    Attributes:
        kind: `circle` (they wait for each other), `lock` (the holder of their lock is gone), `starved`
            (nothing on the loop can wake them).
        numbers: The numbers of the tasks.
        text: A sentence that names them.
        is_cell_stuck: A cell waits as well, so no other cell can run and wake them.
    """

    kind: str
    numbers: tuple[int, ...]
    text: str
    is_cell_stuck: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """What a block keeps waiting, as far as it can be seen from another thread.

    Attributes:
        ready: Number of callbacks and task steps that could run now.
        timers: Number of timers that are overdue.
        tasks: Names of the first tasks among the ready ones.
        messages: True if messages of the front end wait as well. Known when the block is over.
    """

    ready: int = 0
    timers: int = 0
    tasks: tuple[str, ...] = ()
    messages: bool = False


class Standstill(NamedTuple):
    """The loop stands still, and nobody blocks it: another loop runs, or the user is asked for input.

    Attributes:
        lasted_s: Seconds that it has lasted so far.
    """

    lasted_s: float


@dataclass(frozen=True, slots=True)
class Block:
    """One step that has kept the loop from turning.

    Attributes:
        number: The watchdog's own counter.
        began_at: When it began, wall-clock time in seconds since the Unix epoch.
        lasted_s: Seconds that it has lasted, so far or in all.
        is_over: False while it lasts.
        by: Who blocks: a `cell` that executes, a `task`, a `callback`, the `kernel` itself, or `unknown`.
        name: Who that is, in words: `In[7]`, `task 5 'hog'`, `callback on_click()`.
        cell: The cell that executes, or the cell that spawned the task.
        task: The task's number.
        how: What it does meanwhile. `computes` (Python code), `c call` (C code computes and has released the
            GIL), `gil` (C code holds the GIL), `garbage` (the garbage collector runs). Or it waits in a
            blocking call: `sleep`, `socket`, `loop socket` (asyncio was given a socket in blocking mode),
            `process`, `lock`, `file`, or another `call`.
        place: The user's innermost line, where most of the time was spent ("" if unknown).
        function: Name of the user's innermost function ("" for a cell's own lines).
        coroutine: Name of the innermost coroutine function that blocks; "" if there is none.
        call: The call on the line of `place`, as written ("" if unknown).
        below: The innermost frame, if it is a library's: `recv_into() socket.py:720`; "" if it is the user's.
        stack: The frames from the outermost one of the step to the innermost, for people.
        garbage_s: Seconds of it that the garbage collector took.
        is_late: For more than half of it nothing could be seen, as C code held the GIL.
        kept: What was kept waiting.
    """

    number: int
    began_at: float
    lasted_s: float
    is_over: bool
    by: BlockedBy
    name: str
    cell: CellRef | None
    task: int | None
    how: BlockedHow
    place: str
    function: str = ""
    coroutine: str = ""
    call: str = ""
    below: str = ""
    stack: tuple[str, ...] = ()
    garbage_s: float = 0.0
    is_late: bool = False
    kept: Kept = Kept()

    @property
    def is_alarm(self) -> bool:
        """True if the user should mend it: a coroutine or callback blocks. A cell that computes is normal."""
        return self.by in {"task", "callback"} or bool(self.coroutine)


@dataclass(frozen=True, slots=True)
class PlaceTotal:
    """All blocks at one place.

    Attributes:
        place: The place.
        count: Number of blocks.
        total_s: Seconds that they lasted in all.
        longest_s: Seconds that the longest of them lasted.
    """

    place: str
    count: int
    total_s: float
    longest_s: float


@dataclass(frozen=True, slots=True)
class Lag:
    """How late the loop runs what it is asked to run, in seconds.

    A thread posts a marker to the loop four times a second (`watch/watchdog.py`), and the loop runs it.

    Attributes:
        p50_s: Half of the markers were at most this late.
        p99_s: 99 of 100 markers were at most this late.
        max_s: How late the most delayed marker was.
        count: Number of markers.
    """

    p50_s: float
    p99_s: float
    max_s: float
    count: int


@dataclass(frozen=True, slots=True)
class Shares:
    """Where the time of the loop's thread goes, as shares from 0 to 1.

    Attributes:
        user: In cells, tasks and callbacks of the user's and of libraries.
        kernel: In the kernel's own handlers, loopnb's among them.
        select: Waiting for something to happen.
        seconds: Seconds that were looked at.
    """

    user: float
    kernel: float
    select: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the loop turns.

    Attributes:
        recent: Lag in the last minute.
        total: Lag since loopnb was loaded.
        shares: Where the time went in the last minute; None if nobody has looked.
        passes_per_s: Passes of the loop in a second; None unless `%loopnb watch` is on.
    """

    recent: Lag
    total: Lag
    shares: Shares | None
    passes_per_s: float | None


@dataclass(frozen=True, slots=True)
class BusyRow:
    """How busy one task, cell or coroutine has kept the loop.

    Attributes:
        name: Its name, for people.
        share: Its share of all the time looked at, from 0 to 1.
        busy_s: The same in seconds.
    """

    name: str
    share: float
    busy_s: float


@dataclass(frozen=True, slots=True)
class Busy:
    """Who keeps the loop busy, by sampling: busiest first.

    Attributes:
        seconds: Seconds that were looked at.
        looks: Number of samples.
        tasks: Rows of tasks.
        cells: Rows of cells.
        coroutines: Rows of coroutine functions, or callbacks.
    """

    seconds: float
    looks: int
    tasks: tuple[BusyRow, ...]
    cells: tuple[BusyRow, ...]
    coroutines: tuple[BusyRow, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Finding:
    """What the doctor has found, and what to do about it.

    Attributes:
        code: Its name, the same for all findings of that kind: `deadlock`.
        severity: `error` (something is stuck or was lost), `warning` (it will hurt) or `note`.
        summary: What is the matter, a sentence with the numbers.
        remedy: What to type, or to change.
        place: Where in the user's code ("" if that is not known).
    """

    code: str
    severity: Severity
    summary: str
    remedy: str
    place: str = ""

    def __repr__(self) -> str:
        """Return it as text: `error deadlock at In[3], line 2: ... Remedy: ...`."""
        at = f" at {self.place}" if self.place else ""
        return f"<{self.severity} {self.code}{at}: {self.summary} Remedy: {self.remedy}>"


@dataclass(frozen=True, slots=True)
class LoopState:
    """The persistent loop as it was when the snapshot was taken.

    Attributes:
        kind: Class name of the loop.
        condition: `running` (a cell is executing), `idle` (no cell is executing), `nested` (the cell is
            parked in a nested run), `set aside` (another loop runs inside a cell), `closed`.
        detail: More about the condition, such as who set the loop aside ("" if nothing).
        generation: Which of this shell's loops it is. The first is 1.
        engine: `handoff`, `nest-asyncio`, `stack-switching` or `off`.
        parked: Number of stacks parked in nested runs.
        cell: The cell that is executing, if any.
        notes: Further notes, each a sentence.
        block: The newest block, also if it is over; None if there was none.
    """

    kind: str
    condition: LoopCondition
    detail: str
    generation: int
    engine: str
    parked: int
    cell: CellRef | None
    notes: tuple[str, ...] = ()
    block: Block | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Loop and live tasks at one moment.

    Attributes:
        epoch: Names the session; another epoch means another kernel process or a reload.
        taken_at: Wall-clock time, seconds since the Unix epoch.
        clock_s: The same moment on the monotonic clock of the records, in seconds.
        loop: The loop's state.
        tasks: The oldest of the live tasks, oldest first, without the kernel's own.
        more: How many more live tasks there are.
    """

    epoch: str
    taken_at: float
    clock_s: float
    loop: LoopState
    tasks: tuple[TaskRecord, ...]
    more: int = 0

    @property
    def count(self) -> int:
        """How many live tasks there are."""
        return len(self.tasks) + self.more
