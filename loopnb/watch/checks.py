"""What the doctor checks: facts in, findings out. Pure.

To add a check, write a function that takes `Facts` and yields findings, and add it to `CHECKS`. If it needs a
fact that is not there yet, add an attribute to `Facts`, and gather it in `doctor.py`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from loopnb.records import Finding
from loopnb.views import age_text, seconds_text
from loopnb.watch import texts

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

    from loopnb.records import Block, CellRef, Deadlock, Severity, TaskRecord

_T = TypeVar("_T")

LONG_WAIT_S = 300.0
"""A wait that lasts longer counts as long."""

#: Blocks that ended longer ago than this many seconds are left to `%loopnb blocks`.
_RECENT_S = 600.0
#: A cell that blocks is normal, but not if it blocks for this many seconds while tasks wait.
_LONG_CELL_S = 5.0
#: A task spins if it makes more steps a second than this, one in nearly every pass, and waits for nothing.
_SPINS_PER_S = 1_000
_SPINS_SHARE = 0.9
_SPINS_LEAST = 50
#: A step that takes more CPU seconds than this does some work: the task computes, and lets others run in
#: between.
_IDLE_STEP_S = 0.00025
#: More tasks than this with the same wait are too many.
_FAN_OUT = 1_000
#: Any number of tasks may wait for one of these: they are held back on purpose, or wait for work or a timer.
_BOUNDED = (".acquire()", "Queue.get()", "Queue.put()", "Condition.wait()", "Barrier.wait()")
_HARMLESS = {"sleep()", "a thread"}
#: A wait that begins with one of these is for tasks, which are counted themselves.
_FOR_TASKS = ("gather, ", "the tasks of ", "wait()", "wait_for()", "the next of ", "nested ")
_shape_of = attrgetter("state", "coro", "spawn_site", "waits_at", "waits_for")
#: How many names a sentence lists.
_NAMES = 3
_ONLY_A_CELL = " Nothing on this loop can end that; only a later cell can."
_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}


class LongWait(NamedTuple):
    """A task that has waited for long.

    Attributes:
        task: The task.
        waited_s: Seconds that it has waited, at least.
        text: What it waits for.
        line: The user's innermost line, with its text.
        has_timer: A timer will end the wait.
    """

    task: TaskRecord
    waited_s: float
    text: str
    line: str
    has_timer: bool


class Spin(NamedTuple):
    """How often a task was about to step, without having waited for anything.

    Attributes:
        task: The task.
        steps: In how many passes of the loop it was about to step.
        passes: How many passes there were.
        seconds: CPU seconds that they took.
    """

    task: TaskRecord
    steps: int
    passes: int
    seconds: float


class Pool(NamedTuple):
    """A pool of threads.

    Attributes:
        name: What the user calls it, or "the loop's default executor".
        is_default: It is the one of `asyncio.to_thread()`.
        busy: How many of its threads are busy.
        most: How many threads it may have.
        queued: How many calls wait for a thread.
    """

    name: str
    is_default: bool
    busy: int
    most: int
    queued: int


class Stray(NamedTuple):
    """An object of the notebook's that belongs to another loop than the notebook's.

    Attributes:
        name: Its name in the notebook, `client` or `pool[0]`.
        kind: The name of its class.
        is_closed: Its loop is closed.
        is_running: Its loop runs, in another thread.
        closed_at: Where its loop was closed ("" if unknown).
    """

    name: str
    kind: str
    is_closed: bool
    is_running: bool
    closed_at: str


class Foreign(NamedTuple):
    """A change that somebody else has made to asyncio or to the loop.

    Attributes:
        what: What it is: a sentence without capital letter and full stop.
        remedy: How to take it back.
        place: Where it was made ("" if unknown).
        severity: How bad it is.
    """

    what: str
    remedy: str
    place: str = ""
    severity: Severity = "note"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the doctor knows at one moment.

    Attributes:
        wall_s: Wall-clock time, in seconds since the Unix epoch.
        tasks: The live tasks, without the kernel's own.
        blocks: The last blocks, oldest first.
        failures: Tasks that have failed with errors that nobody has looked at. Background runs are left out,
            since their tracebacks were shown.
        dropped: Tasks that are lost, since nothing referred to them while they waited.
        outdated: The executions of cells that have been run again since. Only executions that one of these
            tasks or blocks belongs to are here.
        runs: The executions of each cell that has been run again, oldest first, by the id of the cell.
        excused: The numbers of live tasks that may outlive a run of their cell: `loopnb.hold()` keeps them,
            or they have been cancelled and are ending.
        deadlocks: Tasks that can never go on.
        long_wait_s: A wait that lasts longer counts as long.
        waits: The longest waits, without those that are meant to last and those for other tasks.
        spins: Tasks that stepped without waiting while steps were counted. Empty if they were not counted.
        pools: Pools of threads.
        strays: Objects of other loops.
        foreign: What others have changed.
        names: How many names of the notebook were looked at.
        unknown: What could not be looked at, each in words.
    """

    wall_s: float = 0.0
    tasks: tuple[TaskRecord, ...] = ()
    blocks: tuple[Block, ...] = ()
    failures: tuple[TaskRecord, ...] = ()
    dropped: tuple[TaskRecord, ...] = ()
    outdated: frozenset[CellRef] = frozenset()
    runs: tuple[tuple[CellRef, ...], ...] = ()
    excused: frozenset[int] = frozenset()
    deadlocks: tuple[Deadlock, ...] = ()
    long_wait_s: float = LONG_WAIT_S
    waits: tuple[LongWait, ...] = ()
    spins: tuple[Spin, ...] = ()
    pools: tuple[Pool, ...] = ()
    strays: tuple[Stray, ...] = ()
    foreign: tuple[Foreign, ...] = ()
    names: int = 0
    unknown: tuple[str, ...] = ()


def examine(facts: Facts) -> list[Finding]:
    """Return what all checks have found, worst first."""
    found = [finding for check in CHECKS for finding in check(facts)]
    return sorted(found, key=lambda finding: _ORDER[finding.severity])


def looked_at(facts: Facts) -> str:
    """Say in one line what was looked at, and what could not be."""
    parts = (
        _count(len(facts.tasks), "live task"),
        _count(len(facts.blocks), "block"),
        _count(len(facts.failures) + len(facts.dropped), "failed or lost task"),
        _count(len(facts.pools), "pool") + " of threads",
        _count(facts.names, "name") + " of the notebook",
        "what others have changed of asyncio",
    )
    text = f"Looked at {', '.join(parts[:-1])}, and {parts[-1]}."
    return f"{text} Not looked at: {'; '.join(facts.unknown)}." if facts.unknown else text


# -- the checks ----------------------------------------------------------------------------------


def blocked_by_coroutine(facts: Facts) -> Iterator[Finding]:
    """Find coroutines and callbacks that have kept the loop from turning."""
    for block, text in _blocks_by_place(facts, lambda block: block.is_alarm):
        remedy = f"{texts.remedy(block)}. '%loopnb blocks' shows the stack."
        severity: Severity = "warning" if block.is_over else "error"
        yield Finding("blocked-by-coroutine", severity, text, _sentence(remedy), block.place)


def blocked_by_cell(facts: Facts) -> Iterator[Finding]:
    """Find cells that have kept the loop from turning for long, while tasks waited for it."""

    def is_long(block: Block) -> bool:
        has_kept_tasks = bool(block.kept.tasks or block.kept.timers)
        return block.by == "cell" and not block.is_alarm and block.lasted_s >= _LONG_CELL_S and has_kept_tasks

    for block, text in _blocks_by_place(facts, is_long):
        kept = f" It kept waiting: {texts.kept_text(block)}."
        remedy = (
            "Put the work into a function and `await asyncio.to_thread(function)`, or "
            "`await asyncio.sleep(0)` now and then."
        )
        yield Finding("blocked-by-cell", "warning", text + kept, remedy, block.place)


def _blocks_by_place(facts: Facts, is_wanted: Callable[[Block], bool]) -> Iterator[tuple[Block, str]]:
    """Yield the longest recent block of each place, or one that goes on, and a text about all of them."""
    recent = [
        block
        for block in facts.blocks
        if is_wanted(block)
        and block.cell not in facts.outdated
        and facts.wall_s - block.began_at - block.lasted_s <= _RECENT_S
    ]
    for group in _grouped(recent, lambda block: block.place or block.name):
        longest = max(group, key=lambda block: (not block.is_over, block.lasted_s))
        text = _sentence(texts.block_text(longest))
        if len(group) > 1:
            total = seconds_text(sum(block.lasted_s for block in group))
            text += f" It was blocked there {len(group)} times, for {total} in all."
        yield longest, text


def unobserved_failure(facts: Facts) -> Iterator[Finding]:
    """Find tasks whose errors nobody has looked at."""
    failures = [task for task in facts.failures if task.cell not in facts.outdated]
    for group in _grouped(failures, lambda task: (task.coro, task.spawn_site, task.error)):
        first = group[0]
        yield Finding(
            "unobserved-failure",
            "error",
            f"{_who(group)} failed, and nothing has awaited {_them(group)}: {first.error}.",
            f"'%loopnb where {first.number}' shows the traceback. Keep the task and `await` it, or use a "
            "TaskGroup.",
            first.spawn_site,
        )


def dropped_while_pending(facts: Facts) -> Iterator[Finding]:
    """Find tasks that were lost, since nothing referred to them."""
    dropped = [task for task in facts.dropped if task.cell not in facts.outdated]
    for group in _grouped(dropped, lambda task: (task.coro, task.spawn_site)):
        first = group[0]
        at = f" The last wait was at {first.waits_at}." if first.waits_at else ""
        yield Finding(
            "dropped-while-pending",
            "error",
            f"{_who(group)} had not ended when the garbage collector took {_them(group)}: nothing referred "
            f"to {_them(group)}.{at}",
            f"Use `loopnb.spawn({first.coro.rpartition('.')[2]}(...))`, which keeps the task, or keep it in "
            "a variable.",
            first.spawn_site,
        )


def left_over(facts: Facts) -> Iterator[Finding]:
    """Find tasks of earlier runs of a cell that live on."""
    for runs in facts.runs:
        latest = runs[-1]
        left = [
            task
            for task in facts.tasks
            if task.cell is not None and task.cell != latest and task.cell in runs
            if task.number not in facts.excused
        ]
        if left:
            before = ", ".join(f"In[{run.execution_count}]" for run in runs[:-1][-_NAMES:])
            verb = "lives" if len(left) == 1 else "live"
            yield Finding(
                "left-over",
                "warning",
                f"{latest} was run {len(runs)} times (before as {before}), and {len(left):,} of the tasks of "
                f"its earlier runs {verb} on: {_names(left)}.",
                f"'%loopnb cancel --cell {latest.execution_count}' cancels the tasks of all its runs. With "
                "%%aloop -b on top, a run of the cell ends the run before.",
                left[0].spawn_site,
            )


def deadlock(facts: Facts) -> Iterator[Finding]:
    """Find tasks that can never go on."""
    places = {task.number: task.waits_at for task in facts.tasks}
    for found in facts.deadlocks:
        if not _is_certain(found):
            continue
        number = next((number for number in found.numbers if number in places), None)
        remedy = "Interrupt the cell." if number is None else f"'%loopnb cancel {number}' ends one of them."
        place = "" if number is None else places[number]
        yield Finding("deadlock", "error", _sentence(found.text.partition("; interrupt")[0]), remedy, place)


def _is_certain(found: Deadlock) -> bool:
    """Return False if a later cell may yet wake the tasks, as cells give work to idle workers."""
    return found.kind != "starved" or found.is_cell_stuck


def waits_for_long(facts: Facts) -> Iterator[Finding]:
    """Find waits that last longer than they should, and that no timer ends."""
    stuck = {number for found in facts.deadlocks if _is_certain(found) for number in found.numbers}
    asleep = {number for found in facts.deadlocks for number in found.numbers}
    waits = [
        wait
        for wait in facts.waits
        if wait.waited_s > facts.long_wait_s and not wait.has_timer and wait.task.number not in stuck
    ]
    for group in _grouped(waits, lambda wait: (wait.task.coro, wait.line, wait.text)):
        longest = max(group, key=lambda wait: wait.waited_s)
        tasks = [wait.task for wait in group]
        number = longest.task.number
        have = "has" if len(group) == 1 else "have"
        most = "" if len(group) == 1 else "up to "
        yield Finding(
            "waits-for-long",
            "note",
            f"{_who(tasks)} {have} waited {most}{age_text(longest.waited_s)} for "
            f"{longest.text or 'something'}.{_ONLY_A_CELL if number in asleep else ''}",
            f"'%loopnb where {number}' shows the whole chain, '%loopnb cancel {number}' ends it. `async with "
            "asyncio.timeout(60):` limits a wait.",
            longest.line or longest.task.waits_at,
        )


def spins(facts: Facts) -> Iterator[Finding]:
    """Find tasks that step thousands of times a second, wait for nothing, and do nothing."""
    steps = sum(spin.steps for spin in facts.spins)
    spinning = [spin for spin in facts.spins if _does_spin(spin, steps)]
    for group in _grouped(spinning, lambda spin: (spin.task.coro, spin.task.waits_at)):
        task = group[0].task
        per_s = f"{max(spin.steps / spin.seconds for spin in group):,.0f} steps a second"
        what = (
            f"makes {per_s} and waits for nothing: it polls, and takes"
            if len(group) == 1
            else f"make up to {per_s} each and wait for nothing: they poll, and take"
        )
        yield Finding(
            "spins",
            "warning",
            f"{_who([spin.task for spin in group])} {what} all of a core.",
            "Wait for an asyncio.Event or Queue, or `await asyncio.sleep(0.05)` instead of sleep(0).",
            task.waits_at or task.spawn_site,
        )


def _does_spin(spin: Spin, steps: int) -> bool:
    """Return True if a task spins. *steps* is how many steps all tasks have made in the time of *spin*."""
    is_always = spin.steps >= max(_SPINS_LEAST, spin.passes * _SPINS_SHARE)
    is_fast = spin.seconds > 0 and spin.steps / spin.seconds > _SPINS_PER_S
    return is_always and is_fast and spin.seconds / steps <= _IDLE_STEP_S


def unbounded_fan_out(facts: Facts) -> Iterator[Finding]:
    """Find more tasks in one wait than a server or file system can take."""
    # Count instead of grouping as elsewhere: ten thousand tasks take 3 ms, and grouping takes longer.
    for (state, coro, _site, waits_at, waits_for), count in Counter(map(_shape_of, facts.tasks)).items():
        if count > _FAN_OUT and state == "waiting" and not _is_bounded(waits_for):
            yield Finding(
                "unbounded-fan-out",
                "warning",
                f"{count:,} tasks of {coro}() all wait for {waits_for or 'the same thing'}.",
                "Use a Semaphore: `limit = asyncio.Semaphore(100)`, and `async with limit:` around the wait.",
                waits_at,
            )


def _is_bounded(waits_for: str) -> bool:
    """Return True if any number of tasks may wait for *waits_for*, since that burdens nobody."""
    return (
        waits_for in _HARMLESS
        or any(word in waits_for for word in _BOUNDED)
        or waits_for.startswith(_FOR_TASKS)
    )


def executor_saturated(facts: Facts) -> Iterator[Finding]:
    """Find pools whose threads are all busy while calls wait.

    A pool with a single thread does not count: it is there to make calls one after the other.
    """
    for pool in facts.pools:
        if pool.queued and pool.busy >= pool.most > 1:
            larger = "ThreadPoolExecutor(max_workers=64)"
            remedy = (
                f"`asyncio.get_running_loop().set_default_executor({larger})`, with `from concurrent.futures "
                "import ThreadPoolExecutor`; or use async clients."
                if pool.is_default
                else f"Make it larger, `{larger}`, or use async clients."
            )
            calls = "call waits" if pool.queued == 1 else "calls wait"
            yield Finding(
                "executor-saturated",
                "warning",
                f"In {pool.name} {pool.busy} of {pool.most} threads are busy, and {pool.queued:,} {calls} "
                "for one.",
                remedy,
            )


def object_of_other_loop(facts: Facts) -> Iterator[Finding]:
    """Find clients, queues and locks that fail when they are next used: they belong to another loop."""
    strays = [stray for stray in facts.strays if stray.is_closed or not stray.is_running]
    for group in _grouped(strays, lambda stray: (stray.is_closed, stray.closed_at)):
        first = group[0]
        named = ", ".join(f"{stray.name} ({stray.kind})" for stray in group[:_NAMES])
        more = f" and {len(group) - _NAMES} more" if len(group) > _NAMES else ""
        verb = "belongs" if len(group) == 1 else "belong"
        where = f", at {first.closed_at}" if first.closed_at else ""
        loop = (
            f"an event loop that was closed{where}"
            if first.is_closed
            else "another event loop, which stands still"
        )
        yield Finding(
            "object-of-other-loop",
            "warning" if first.is_closed else "note",
            f"{named}{more} {verb} to {loop}.",
            f"Make {'it' if len(group) == 1 else 'them'} again in a cell, on the notebook's loop; or "
            f"`del {', '.join(stray.name.partition('[')[0].partition('.')[0] for stray in group[:_NAMES])}`.",
            first.closed_at,
        )


def foreign_patches(facts: Facts) -> Iterator[Finding]:
    """Find what others have changed of asyncio, or of the loop."""
    for change in facts.foreign:
        yield Finding("foreign-patch", change.severity, _sentence(change.what), change.remedy, change.place)


CHECKS: tuple[Callable[[Facts], Iterable[Finding]], ...] = (
    deadlock,
    blocked_by_coroutine,
    unobserved_failure,
    dropped_while_pending,
    blocked_by_cell,
    left_over,
    spins,
    unbounded_fan_out,
    executor_saturated,
    object_of_other_loop,
    waits_for_long,
    foreign_patches,
)
"""All checks. Findings of one severity come in this order."""


# -- words ---------------------------------------------------------------------------------------


def _grouped(items: Iterable[_T], key: Callable[[_T], Hashable]) -> list[list[_T]]:
    groups: dict[Hashable, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _who(tasks: Sequence[TaskRecord]) -> str:
    first = tasks[0]
    of = f" of {first.cell}" if first.cell is not None else ""
    if len(tasks) == 1:
        return f"{_capital(first.label)}{of}"
    return f"{len(tasks):,} tasks of {first.coro}(){of} ({_names(tasks)})"


def _names(tasks: Sequence[TaskRecord]) -> str:
    """Return the names of the tasks if they are few, else the coroutines that they run, with counts."""
    if len(tasks) <= _NAMES:
        return ", ".join(task.name or f"task {task.number}" for task in tasks)
    counts = Counter(task.coro for task in tasks).most_common(_NAMES)
    return ", ".join(f"{count:,} x {coro}()" for coro, count in counts)


def _them(tasks: Sequence[TaskRecord]) -> str:
    return "it" if len(tasks) == 1 else "them"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    text = _capital(text)
    return text if text.endswith(".") else f"{text}."


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
