"""Find tasks that can never go on: tasks that wait for each other, and tasks that nobody can wake.

First, circles. A task goes on when one of those that it awaits does, or when the holder of its lock does.
Tasks whose waits nothing outside their circle can end are a deadlock, whatever else the loop does. A wait
with a timer ends by itself, and so does a wait for the network, a thread or a process.

Then, tasks that nobody can wake. They wait for a Queue, a Lock or the like, and no code that may still run
can reach that object (`reach`). A later cell can: hence "nothing on this loop can wake them".

Both searches err on the safe side: a wait that they do not understand counts as one that will end.

Everything here runs in the loop's thread. The only code of the user's that it runs is what `tracking.details`
names.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from loopnb._cpython import loop_of_task
from loopnb.frames import outwards, package_of
from loopnb.records import Deadlock
from loopnb.tracking import _cpython, waits
from loopnb.tracking._cpython import frames_of_threads
from loopnb.tracking.chains import chain_of, kind_at_once, reason_of
from loopnb.tracking.details import detail_of, name_in
from loopnb.tracking.graph import circles, components, finish
from loopnb.tracking.holders import attributes_of, holders_of
from loopnb.tracking.suspended import code_of
from loopnb.watch.reach import Search, TooFar, may_be_called_back

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loopnb.tracking.chains import Chain
    from loopnb.tracking.holders import Holder
    from loopnb.tracking.tracker import Tracker
    from loopnb.tracking.waits import Reason

#: Waits that end only when another task does something: put, release, set, notify.
_SHARED = {
    "get", "put", "join", "event", "condition", "barrier", "semaphore", "lock", "receive item", "send item",
}  # fmt: skip
#: Waits that end only when other tasks end.
_TASKS = {"task", "wait_for", "shield", "nested", "gather", "tasks", "group", "as completed"}
#: If more tasks than this wait for others, this looks no closer. Each takes some 20 us.
_MOST_WAITING = 1_000
#: How many objects are followed at most, from all that may still run. Each takes about 1 us.
_MOST = 30_000
_REMEDY = "interrupt the cell, or cancel one of them"
#: After a look, `look_if_due` makes no other for this many seconds, nor for this many times as long as the
#: look took.
_EVERY_S = 0.5
_REST = 50
#: How many names of tasks a text lists.
_NAMES = 5


class DeadlockWatch:
    """Looks for deadlocks, but not so often that the loop would notice.

    Call everything in the loop's thread.

    Args:
        tracker: Knows the tasks.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._found: list[Deadlock] = []
        self._next_look = 0.0

    def look(self) -> list[Deadlock]:
        """Return the deadlocks of this moment. Takes 1 us for each task that sleeps, 20 us for the others."""
        began = self._tracker.clock()
        self._found = find(self._tracker)
        ended = self._tracker.clock()
        self._next_look = ended + max(_EVERY_S, (ended - began) * _REST)
        return self._found

    def look_if_due(self) -> list[Deadlock]:
        """Return the deadlocks of the last look, or of this moment if that was some time ago.

        When one of its tasks has ended, a deadlock is gone. Then this looks again, too.
        """
        numbers = (number for deadlock in self._found for number in deadlock.numbers)
        is_due = self._tracker.clock() >= self._next_look
        if is_due or any(self._tracker.listing.task(number) is None for number in numbers):
            return self.look()
        return self._found

    def stuck_cell(self) -> Deadlock | None:
        """Look for a deadlock that keeps a cell waiting for ever."""
        self._tracker.listing.look(exact=False)  # `waits_of` finds the tasks there
        return next((deadlock for deadlock in self.look() if deadlock.is_cell_stuck), None)

    def waits_of(self, deadlock: Deadlock) -> list[object]:
        """Return what each task of *deadlock* waits for: a future, a nested run, or None."""
        tasks = map(self._tracker.listing.task, deadlock.numbers)
        chains = [None if task is None else chain_of(task) for task in tasks]
        return [None if chain is None else chain.waited or chain.wait for chain in chains]

    def is_certain(self, deadlock: Deadlock) -> bool:
        """Return True if not even code in C could wake the tasks of *deadlock*, as far as can be told.

        A callback of the user's may be known to code in C alone. This looks at each object of the process,
        which takes 30 ms and more.
        """
        if deadlock.kind == "circle":
            return True
        tasks = map(self._tracker.listing.task, deadlock.numbers)
        # Do not collect the subjects in a list: it would be one more object that refers to them.
        return not any(
            may_be_called_back(reason_of(chain_of(task)).subject) for task in tasks if task is not None
        )

    def text(self) -> str:
        """Describe a deadlock in which a cell or a task would wait for ever; "" if there is none."""
        for deadlock in self.look_if_due():
            if deadlock.kind != "starved" or deadlock.is_cell_stuck:
                return deadlock.text
        return ""


class Waiting(NamedTuple):
    """A task that waits, and what for.

    Attributes:
        task: The task.
        chain: Its chain.
        reason: Why it waits.
    """

    task: asyncio.Task[Any]
    chain: Chain
    reason: Reason


def find(tracker: Tracker) -> list[Deadlock]:
    """Return the deadlocks among the live tasks, circles first. Finds none if too many tasks wait."""
    look = _Look(tracker)
    return [] if look.is_too_much else [*look.circles(), *look.unwakeable()]


class _Look:
    """One look at all live tasks.

    Args:
        tracker: Knows the tasks.

    Attributes:
        is_too_much: So many tasks wait for each other that looking closer would block the loop.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._codes = tracker.codes
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[asyncio.Task[Any], Waiting] = {}
        self._going_on: set[asyncio.Task[Any]] = set()
        for task in tracker.live(kernels=True):
            self._loop = loop_of_task(task)
            kind = kind_at_once(task, self._codes)
            if kind and kind not in _SHARED and kind not in _TASKS:
                self._going_on.add(task)
                continue
            chain = chain_of(task)
            reason = reason_of(chain)
            if self._may_stay(chain, reason):
                self._waiting[task] = Waiting(task, chain, reason)
                if len(self._waiting) > _MOST_WAITING:
                    break
            else:
                self._going_on.add(task)
        self.is_too_much = len(self._waiting) > _MOST_WAITING
        self._holders = {} if self.is_too_much else self._find_holders()

    def _may_stay(self, chain: Chain, reason: Reason) -> bool:
        """Return True if the wait ends only by what other tasks do."""
        if reason.kind in _SHARED:
            if (
                reason.kind == "lock"
                and isinstance(reason.subject, asyncio.Lock)
                and not reason.subject.locked()
            ):
                return False  # it is just being handed on
            return waits.due_at(chain.links) is None
        if reason.kind in _TASKS:
            awaited = reason.awaited
            if not awaited or any(not isinstance(item, asyncio.Task) for item in awaited):
                return False
            return waits.due_at(chain.links) is None
        return False

    def _find_holders(self) -> dict[int, list[Holder]]:
        wanted = {
            id(waiting.reason.subject): waiting.reason.subject
            for waiting in self._waiting.values()
            if waiting.reason.kind == "lock"
        }
        found: dict[int, list[Holder]] = {}
        if wanted:
            tasks = self._tracker.live(kernels=True)
            for lock, holder in holders_of(wanted, ((task, chain_of(task)) for task in tasks)):
                found.setdefault(lock, []).append(holder)
        return found

    # -- circles ----------------------------------------------------------------------------------

    def circles(self) -> Iterator[Deadlock]:
        """Yield the circles of tasks that wait for each other, and for nothing else."""
        needs = {task: self._needs(waiting) for task, waiting in self._waiting.items()}
        stuck = self._stuck({task: needed for task, needed in needs.items() if needed is not None})
        number_of = self._tracker.number_of
        numbered = {number_of(task): task for task in stuck}
        edges = {
            number: [number_of(needed) for needed in needs[task] or ()] for number, task in numbered.items()
        }
        needed_by: dict[int, list[int]] = {}
        for number, needed in edges.items():
            for other in needed:
                needed_by.setdefault(other, []).append(number)
        cyclic = finish(circles(edges))
        for component in components(edges):
            if component[0] in cyclic:
                tasks = [numbered[number] for number in self._in_order(component, edges)]
                yield Deadlock(
                    "circle",
                    tuple(map(number_of, tasks)),
                    self._circle_text(tasks, needs),
                    self._is_cell_behind(component, needed_by, numbered),
                )

    def _is_cell_behind(
        self,
        component: list[int],
        needed_by: dict[int, list[int]],
        numbered: dict[int, asyncio.Task[Any]],
    ) -> bool:
        """Return True if a cell is part of that circle, or waits for it."""
        seen, work = set(component), list(component)
        while work:
            number = work.pop()
            if self._is_cell(self._waiting[numbered[number]]):
                return True
            for above in needed_by.get(number, ()):
                if above not in seen:
                    seen.add(above)
                    work.append(above)
        return False

    def _is_cell(self, waiting: Waiting) -> bool:
        return self._tracker.is_kernels_own(waiting.task) and has_own_code(waiting.chain)

    def _needs(self, waiting: Waiting) -> list[asyncio.Task[Any]] | None:
        """Return tasks: one of them must go on before this one can. None if something else may free it."""
        if waiting.reason.kind in _TASKS:
            return waiting.reason.tasks
        if waiting.reason.kind == "lock":
            holders = self._holders.get(id(waiting.reason.subject), [])
            if len(holders) == 1:
                return [holders[0].task]
        return None

    def _stuck(self, needs: dict[asyncio.Task[Any], list[asyncio.Task[Any]]]) -> set[asyncio.Task[Any]]:
        """Return the tasks that only wait for tasks that are stuck as well."""
        needed_by: dict[asyncio.Task[Any], list[asyncio.Task[Any]]] = {}
        for task, needed in needs.items():
            for other in needed:
                needed_by.setdefault(other, []).append(task)
        stuck = set(needs)
        work = [other for other in needed_by if other not in needs]
        while work:
            for task in needed_by.get(work.pop(), ()):
                if task in stuck:
                    stuck.discard(task)
                    work.append(task)
        return stuck

    @staticmethod
    def _in_order(component: list[int], edges: dict[int, list[int]]) -> list[int]:
        """Return a circle within *component*, in the order in which its tasks wait for each other."""
        inside = set(component)
        path = [min(component)]
        while True:
            following = next(other for other in edges[path[-1]] if other in inside)
            if following in path:
                return path[path.index(following) :]
            path.append(following)

    def _circle_text(
        self,
        tasks: list[asyncio.Task[Any]],
        needs: dict[asyncio.Task[Any], list[asyncio.Task[Any]] | None],
    ) -> str:
        # The sentence reads best if it begins with a task that holds a lock.
        for index in range(len(tasks)):
            if self._waiting[tasks[index - 1]].reason.kind == "lock":
                tasks = tasks[index:] + tasks[:index]
                break
        first = self._name(tasks[0])
        if len(tasks) == 1:
            return f"deadlock: {self._step(self._waiting[tasks[0]], 'itself')}; {_REMEDY}"
        parts = [self._step(self._waiting[tasks[0]], self._name(tasks[1]))]
        for index in range(1, len(tasks)):
            after = self._name(tasks[(index + 1) % len(tasks)]) if index + 1 < len(tasks) else first
            parts.append(self._what(self._waiting[tasks[index]], after))
        return f"deadlock: {', which '.join(parts)}; {_REMEDY}"

    def _step(self, waiting: Waiting, other: str) -> str:
        return f"{self._name(waiting.task)} {self._what(waiting, other)}"

    def _what(self, waiting: Waiting, other: str) -> str:
        kind = waiting.reason.kind
        if kind == "lock":
            lock = waiting.reason.subject
            (holder,) = self._holders[id(lock)]
            cell = self._tracker.origin_of(holder.task).cell
            place = self._tracker.place(holder.code, holder.instruction, cell)
            name = name_in(waiting.chain, lock)
            named = f" {name}" if name else ""
            return f"needs the {type(lock).__name__}{named} that {other} holds at {place}"
        return f"waits in a nested run for {other}" if kind == "nested" else f"waits for {other}"

    def _name(self, task: asyncio.Task[Any]) -> str:
        if self._tracker.is_kernels_own(task):
            return "the cell"
        record = self._tracker.record(task)
        return record.label + (f" of {record.cell}" if record.cell else "")

    # -- tasks that nobody can wake ----------------------------------------------------------------

    def unwakeable(self) -> Iterator[Deadlock]:
        """Yield the tasks that wait for an object which no code that may still run can reach."""
        candidates = [
            waiting
            for waiting in self._waiting.values()
            if waiting.reason.kind in _SHARED and has_own_code(waiting.chain)
        ]
        if not candidates or self._loop is None:
            return
        roots = _roots(self._loop)
        if roots is None:
            return
        # If a cell asks, it is about to end. So what it might still do does not count.
        current = asyncio.current_task(self._loop)
        for task in self._going_on:
            if task is not current or not self._tracker.is_kernels_own(task):
                roots += [task, *chain_of(task).links]
        search = Search({id(task) for task in self._waiting}, {id(self._waiting)}, _MOST)
        try:
            found = search.found_from(roots)
        except TooFar:
            return
        asleep = [waiting for task, waiting in self._waiting.items() if id(task) not in found]
        yield from self._starved([w for w in candidates if id(w.task) not in found], asleep)

    def _starved(self, candidates: list[Waiting], asleep: list[Waiting]) -> Iterator[Deadlock]:
        """Yield a deadlock for each object that some of *candidates* wait for, and that nobody can reach."""
        is_cell_asleep = any(map(self._is_cell, asleep))
        groups: dict[int, list[Waiting]] = {}
        for waiting in candidates:
            holders = self._holders.get(id(waiting.reason.subject), [])
            if not holders:  # otherwise its holder is what cannot go on
                groups.setdefault(id(waiting.reason.subject), []).append(waiting)
        for group in groups.values():
            numbers = tuple(self._tracker.number_of(waiting.task) for waiting in group)
            kind = "lock" if group[0].reason.kind == "lock" else "starved"
            yield Deadlock(kind, numbers, self._starved_text(group), is_cell_asleep)

    def _starved_text(self, group: list[Waiting]) -> str:
        first = group[0]
        detail = detail_of(self._tracker, first.task)
        names = [self._name(waiting.task) for waiting in group[:_NAMES]]
        more = f" and {len(group) - _NAMES} more" if len(group) > _NAMES else ""
        these = "this task" if len(group) == 1 else f"these {len(group)} tasks"
        waits_for = detail.text
        if first.reason.kind == "lock":
            waits_for += ", whose holder is gone"
        verb = "waits" if len(group) == 1 else "wait"
        return (
            f"nothing on this loop can wake {these}: {', '.join(names)}{more} {verb} for {waits_for} "
            f"(at {detail.line}); interrupt the cell, or cancel the task"
        )


def has_own_code(chain: Chain) -> bool:
    """Return True if code that the user wrote, not installed, is part of *chain*."""
    return any(not package_of(code_of(link).co_filename) for link in chain.links)


def _roots(loop: asyncio.AbstractEventLoop) -> list[Any] | None:
    """Return all objects besides tasks that may run code of the user's; None if that cannot be known.

    These are timers, callbacks that are due, files, signals, threads, and widgets that the user can operate.
    """
    timers, ready, files = (
        _cpython.timers_of(loop), _cpython.ready_handles_of(loop), _cpython.file_handles_of(loop),
    )  # fmt: skip
    if timers is None or ready is None or files is None or _do_threads_run_own_code():
        return None
    roots: list[Any] = list(threading.enumerate())
    for handle in (*timers, *ready, *files, *_cpython.signal_handles_of(loop)):
        callback = _cpython.callback_of(handle)
        roots += [callback, *_cpython.arguments_of(handle)]
        # A deadline of ours wakes its task, which is an attribute of it.
        roots += attributes_of(getattr(callback, "__self__", None)).values()
    comm = sys.modules.get("comm")
    if comm is not None:
        manager = comm.get_comm_manager()
        roots += attributes_of(manager).get("targets", {}).values()
        for opened in list(attributes_of(manager).get("comms", {}).values()):
            roots += attributes_of(opened).values()
    return roots


def _do_threads_run_own_code() -> bool:
    """Return True if another thread executes code that the user wrote. It may do anything."""
    here = threading.get_ident()
    return any(
        not package_of(frame.f_code.co_filename)
        for ident, innermost in frames_of_threads().items()
        if ident != here
        for frame in outwards(innermost)
    )
