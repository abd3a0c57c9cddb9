"""Gather what the doctor wants to know, and have it checked.

Gathering takes some 30 us for each live task the first time. The only code of the user's that it runs is what
`tracking.details` names, and `get_loop()` of futures of their own. It names what it could not look at, and
raises nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from loopnb._cpython import thread_time
from loopnb.loop._cpython import loop_of
from loopnb.nesting import other_packages
from loopnb.nesting._cpython import waited_future
from loopnb.nesting.loop_task import cancel_requests
from loopnb.tracking import _cpython
from loopnb.tracking.chains import chain_of, reason_of
from loopnb.tracking.details import detail_of
from loopnb.tracking.holders import attributes_of
from loopnb.tracking.holding import is_held
from loopnb.watch._cpython import has_ended, may_have_loop, stores_loop, task_of
from loopnb.watch.checks import LONG_WAIT_S, Facts, Foreign, LongWait, Pool, Spin, Stray, examine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from loopnb.records import CellRef, Deadlock, Finding, TaskRecord
    from loopnb.tracking.failures import Failures
    from loopnb.tracking.tracker import Tracker
    from loopnb.watch.deadlocks import DeadlockWatch
    from loopnb.watch.watch import Watch

_T = TypeVar("_T")

#: How many of the tasks that have waited longest are asked what for. Each takes 0.1 ms.
_WAITS = 50
#: How many of these are looked at to find the others, since some waits are meant to last. Each takes 20 us.
_MOST_WAITS = 500
#: Waits of servers, which are meant to last.
_SERVES = {"accept", "serve"}
#: How many names of the notebook are looked at, and how many items and attributes of each.
_NAMES = 5_000
_ITEMS = 20
#: What never belongs to a loop.
_PLAIN = (type, str, bytes, int, float, complex, bool, ModuleType, FunctionType, BuiltinFunctionType)

#: The most CPU seconds of the thread, seconds and passes for which steps are counted. CPU seconds tell a task
#: that spins from one that computes, even if the thread gets only a part of a core on a busy machine.
_COUNT_CPU_S = 0.05
_COUNT_S = 0.25
_PASSES = 300
#: If more tasks than this are about to step, their steps are not counted.
_MOST_READY = 1_000
#: So many passes tell if nothing spins.
_FEW_PASSES = 3

_log = logging.getLogger("loopnb")


class Notebook(Protocol):
    """What the doctor asks of the notebook. The loop's thread."""

    def names(self) -> Mapping[str, object]:
        """Return the variables of the notebook."""

    def closed_at(self, loop: asyncio.AbstractEventLoop) -> str:
        """Return where *loop* was closed; "" if that is not known."""

    def notes(self) -> tuple[str, ...]:
        """Return what has been changed of the event loop policy, each a sentence."""


class Doctor:
    """Looks at one loop and its surroundings, and says what is wrong. The loop's thread.

    Args:
        loop: The loop.
        tracker: Knows its tasks.
        watch: Knows its blocks.
        failures: Knows which errors nobody has looked at.
        deadlocks: Looks for deadlocks.
        notebook: Knows the notebook.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tracker: Tracker,
        watch: Watch,
        failures: Failures,
        deadlocks: DeadlockWatch,
        notebook: Notebook,
    ) -> None:
        self._loop = loop
        self._tracker = tracker
        self._watch = watch
        self._failures = failures
        self._deadlocks = deadlocks
        self._notebook = notebook

    def quick(self) -> list[Finding]:
        """Return what is known without counting steps. It looks for deadlocks only now and then."""
        return examine(self.facts(look_for_deadlocks=self._deadlocks.look_if_due))

    def facts(
        self,
        spins: Iterable[Spin] | None = None,
        long_wait_s: float = LONG_WAIT_S,
        look_for_deadlocks: Callable[[], list[Deadlock]] | None = None,
    ) -> Facts:
        """Gather the facts of this moment. Never raises.

        Args:
            spins: What `count_steps` has returned; None if steps could not be counted.
            long_wait_s: A wait of more seconds counts as long.
            look_for_deadlocks: Returns the deadlocks; None looks now.
        """
        unknown = self._not_looked_at(spins)

        def ask(what: str, question: Callable[..., Iterable[_T]], *about: object) -> tuple[_T, ...]:
            try:
                return tuple(question(*about))
            except Exception:  # noqa: BLE001  an observer: one fact less
                _log.exception("the doctor could not look at %s", what)
                unknown.append(f"{what}, because of an error of loopnb's own (see the log)")
                return ()

        tasks = ask("the live tasks", self._tasks)
        blocks = ask("the blocks", self._watch.blocks)
        failures = ask("the failed tasks", self._failed)
        dropped = ask("the lost tasks", self._dropped)
        cells: set[CellRef | None] = {record.cell for record in (*tasks, *failures, *dropped)}
        cells.update(block.cell for block in blocks)
        runs = self._tracker.runs
        outdated = frozenset(cell for cell in cells if cell is not None and runs.is_outdated(cell))
        names = dict(ask("the names of the notebook", self._names))
        return Facts(
            wall_s=time.time(),
            tasks=tasks,
            blocks=blocks,
            failures=failures,
            dropped=dropped,
            outdated=outdated,
            runs=tuple({runs.all_runs_of(cell): None for cell in outdated}),
            excused=frozenset(ask("tasks of earlier runs", self._excused, tasks, outdated)),
            deadlocks=ask("deadlocks", look_for_deadlocks or self._deadlocks.look),
            long_wait_s=long_wait_s,
            waits=ask("long waits", self._waits, tasks, long_wait_s),
            spins=tuple(spins or ()),
            pools=ask("pools of threads", self._pools, names),
            strays=ask("objects of other loops", self._strays, names),
            foreign=ask("what others have changed", self._foreign),
            names=len(names),
            unknown=tuple(unknown),
        )

    def _not_looked_at(self, spins: Iterable[Spin] | None) -> list[str]:
        unknown = [] if spins is not None else ["whether a task spins"]
        if not self._watch.is_on:
            unknown.append("what blocks the loop, as LoopNB.blocked_after is 0")
        return unknown

    def _tasks(self) -> Iterable[TaskRecord]:
        self._tracker.listing.look()
        return self._tracker.listing.ordered()

    def _failed(self) -> tuple[TaskRecord, ...]:
        failed = {ended.origin.number: ended for ended in self._failures.unseen() if ended.state == "raised"}
        # The traceback of a background run stands in its cell, so there is no more to say of it.
        return tuple(
            self._tracker.record_ended(ended)
            for number, ended in failed.items()
            if not self._failures.was_shown_in_full(number)
        )

    def _dropped(self) -> tuple[TaskRecord, ...]:
        # Tasks that are lost are not held, so the history has them: no scan of all objects.
        return tuple(
            self._tracker.record_ended(ended)
            for ended in self._tracker.history
            if ended.state == "dropped" and not self._tracker.is_kernels_coro(ended.origin.coro)
        )

    def _excused(self, tasks: tuple[TaskRecord, ...], outdated: frozenset[CellRef]) -> Iterator[int]:
        for record in tasks:
            task = self._tracker.listing.task(record.number) if record.cell in outdated else None
            if task is not None and (is_held(task) or cancel_requests(task)):
                yield record.number

    def _waits(self, tasks: tuple[TaskRecord, ...], long_wait_s: float) -> Iterator[LongWait]:
        now = self._tracker.clock()
        since = [(record.waiting_since, record) for record in tasks if record.waiting_since is not None]
        long = sorted(
            ((now - began, record) for began, record in since if now - began > long_wait_s),
            key=lambda pair: -pair[0],
        )
        asked = (
            (waited_s, record, task)
            for waited_s, record in long[:_MOST_WAITS]
            if (task := self._tracker.listing.task(record.number)) is not None and not _may_last(task)
        )
        for waited_s, record, task in itertools.islice(asked, _WAITS):
            detail = detail_of(self._tracker, task)
            yield LongWait(record, waited_s, detail.text, detail.line, detail.due_at is not None)

    # -- what the notebook's names lead to ----------------------------------------------------------

    def _names(self) -> Iterator[tuple[str, object]]:
        names = list(self._notebook.names().items())
        return itertools.islice(((name, value) for name, value in names if name[:1] != "_"), _NAMES)

    def _pools(self, names: Mapping[str, object]) -> Iterator[Pool]:
        default = _cpython.default_executor_of(self._loop)
        pools = {name: value for name, value in names.items() if type(value) is ThreadPoolExecutor}
        for name, pool in {"the loop's default executor": default, **pools}.items():
            if pool is default and name in pools:
                continue
            load = _cpython.load_of(pool)
            if load is not None:
                yield Pool(name, pool is default, *load)

    def _strays(self, names: Mapping[str, object]) -> Iterator[Stray]:
        seen: set[int] = set()
        have_loops: dict[type, bool] = {}
        for name, value in _objects_in(names):
            if id(value) in seen or not may_have_loop(value, have_loops):
                continue
            loop = None if isinstance(value, asyncio.AbstractEventLoop) else loop_of(value)
            if loop is None or loop is self._loop or has_ended(value):
                continue
            seen.add(id(value))
            closed_at = self._notebook.closed_at(loop) if loop.is_closed() else ""
            yield Stray(name, type(value).__name__, loop.is_closed(), loop.is_running(), closed_at)

    # -- what others have changed -------------------------------------------------------------------

    def _foreign(self) -> Iterator[Foreign]:
        package = other_packages.applied_before()
        if package is not None:
            yield Foreign(
                f"{package} had changed asyncio before loopnb was loaded: tasks and futures are slow ones",
                f"Leave out {package}.apply() and restart the kernel; loopnb nests without it.",
                severity="warning",
            )
        for applied in other_packages.applied_by():
            yield Foreign(
                f"{applied.package}.apply() was called, which did nothing",
                "Leave out that line: loopnb nests without it.",
                self._tracker.describe(applied.filename, applied.line),
            )
        if type(self._loop).__module__.partition(".")[0] == "uvloop":
            yield Foreign(
                "the notebook's loop is uvloop's: stacks cannot be parked on it, and less of it can be seen",
                "Start the kernel without uvloop, unless you need it.",
            )
        if self._loop.get_debug():
            yield Foreign(
                "the loop is in debug mode, in which every task is slow to spawn",
                "`asyncio.get_running_loop().set_debug(False)`, and no PYTHONASYNCIODEBUG.",
            )
        for note in self._tracker.notes():
            yield Foreign(note.partition("; ")[0], "`asyncio.get_running_loop().set_task_factory(None)`.")
        for note in self._notebook.notes():
            yield Foreign(note, "`asyncio.set_event_loop_policy(None)`, or leave out the line that sets it.")


def _objects_in(names: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield what the names stand for, and what that holds directly, each with the expression for it."""
    for name, value in names.items():
        if _is_plain(value):
            continue
        yield name, value
        for inner, item in itertools.islice(_held_by(name, value), _ITEMS):
            if not _is_plain(item):
                yield inner, item


def _held_by(name: str, value: Any) -> Iterator[tuple[str, object]]:
    """Yield the items or attributes of *value*, unless it is known to belong to a loop itself."""
    if type(value) in {list, tuple}:
        yield from ((f"{name}[{index}]", item) for index, item in enumerate(value[:_ITEMS]))
    elif type(value) is dict:
        items = list(itertools.islice(value.items(), _ITEMS))
        yield from ((f"{name}[{key!r:.20}]", item) for key, item in items if type(key) is str)
    elif not stores_loop(value):
        yield from ((f"{name}.{attribute}", item) for attribute, item in list(attributes_of(value).items()))


def _is_plain(value: object) -> bool:
    kind = type(value)
    return kind in _PLAIN or issubclass(kind, type)


def _may_last(task: asyncio.Task[Any]) -> bool:
    """Return True if *task* waits as it should, however long.

    That is so if it holds something, if it serves, or if it waits for tasks, which are looked at themselves.
    """
    if is_held(task):
        return True
    reason = reason_of(chain_of(task))
    return reason.kind in _SERVES or bool(reason.tasks)


async def count_steps(loop: asyncio.AbstractEventLoop, tracker: Tracker) -> tuple[Spin, ...]:
    """Count for some passes of *loop* which tasks step without having waited for anything.

    This counts for three passes if no task does so, else for 300 or for as many as 50 ms of CPU time allow,
    but never for more than a quarter of a second. The loop turns as usual meanwhile.
    """
    counts: dict[int, int] = {}
    records: dict[int, TaskRecord] = {}
    began, cpu_began, passes = time.perf_counter(), thread_time(), 0
    while (
        passes < _PASSES
        and thread_time() - cpu_began < _COUNT_CPU_S
        and time.perf_counter() - began < _COUNT_S
    ):
        await asyncio.sleep(0)
        ready = _cpython.ready_handles_of(loop)
        if ready is None or len(ready) > _MOST_READY:
            break
        passes += 1
        for task in filter(None, map(task_of, ready)):
            # A woken task still has the future that it waited for. A task that has only yielded has none.
            if waited_future(task) is None and not tracker.is_kernels_own(task):
                number = tracker.number_of(task)
                counts[number] = counts.get(number, 0) + 1
                if passes == _FEW_PASSES:
                    records[number] = tracker.record(task)
        if passes == _FEW_PASSES and not records:
            break
    seconds = thread_time() - cpu_began
    return tuple(Spin(record, counts[number], passes, seconds) for number, record in records.items())
