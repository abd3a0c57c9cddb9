"""Keep the records of a loop's live tasks up to date, at a cost that depends on what has changed.

The wish: ten thousand live tasks are listed a few times a second, and their loop notices nothing.

What does not work: looking at each task each time. It takes 30 us to say what a task waits for, and 3 us even
if every text is known.

Instead we look again at what may have changed.

* A task cannot step before the future that it waits for is done. So a weak reference to that future tells
  whether the task has moved: the task still waits while the future lives and is pending. Asking takes 0.1 us.
* New tasks are a set difference: the weak references of all tasks, less those that we know.
* A record also depends on names, on whether its cell was run again, and on whether its run has ended.
  `Listing._outdated` finds what has changed there. Where nothing tells us (a `gather()` counts what is
  pending, a future takes no weak references) we look each time.

If a record says the same as before, it stays the same object. So a reader can compare by `is`. A `Follower`
is told which numbers were touched.

A look goes in slices, so that the loop turns in between. Each slice leaves the listing whole. Between two
slices, somebody may make another look in one step: each writes what is true at that moment.

Nothing here keeps a task, a future, a coroutine or code of the user's alive. A look leaves the record of each
live task, with its texts, and a weak reference to what it waits for. The first look after the task's end
drops both.
"""

from __future__ import annotations

import asyncio
import logging
import math
from asyncio import Future
from collections import deque
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import WeakSet, ref

from loopnb._cpython import coro_of, count_live, is_done, loop_of_task, name_of, refs_in_steps, refs_of_tasks
from loopnb.nesting._cpython import current_task, waited_future
from loopnb.records import TaskDelta, TaskRecord
from loopnb.tracking import chains, tracked
from loopnb.tracking.slicing import SlicePace
from loopnb.tracking.suspended import FutureIterator, Shape, instruction_of, instruction_within
from loopnb.tracking.tracked import TrackedTask, has_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator
    from types import CodeType

    from loopnb._cpython import Refs
    from loopnb.nesting.engine import Wait
    from loopnb.records import CellRef, TaskState
    from loopnb.tracking.cells import CellRuns
    from loopnb.tracking.history import BlockedTimes
    from loopnb.tracking.suspended import KnownCodes, Path, Words
    from loopnb.tracking.tracked import Origin, Run, Spawned

_AT_ONCE = 32
"""How many tasks are looked at before the clock is asked again. Each takes 3 to 10 us."""
SEARCH_S = 1.0
"""After so many seconds, a look that need not be exact finds the tasks whose spawn was not noted."""
_ASKED_AT_ONCE = 2_048
"""How many futures are asked whether they are done before the clock is asked again. Each takes 0.1 us."""
_NAMED_AT_ONCE = 512
"""How many tasks are asked for their name before the clock is asked again. Each takes 0.4 us."""

#: Makes the default name from Python 3.12 on. `TrackedTask.get_name` does more, and takes longer.
_stock_name = asyncio.Task.get_name
#: Makes a record from a tuple, four times faster than its class does.
_make_record: Callable[[type[TaskRecord], tuple[Any, ...]], TaskRecord] = tuple.__new__

#: Stands for path and code of the task before, if there is none.
_NO_PATH: tuple[Path | None, tuple[CodeType, ...]] = None, ()

_log = logging.getLogger("loopnb")


class Origins(Protocol):
    """Knows where tasks came from: the tracker. The loop's thread."""

    @property
    def clock(self) -> Callable[[], float]:
        """Returns monotonic seconds."""

    @property
    def runs(self) -> CellRuns:
        """The executions of cells."""

    @property
    def blocked(self) -> BlockedTimes:
        """For how long each task has blocked the loop."""

    def origin_of(self, task: asyncio.Task[Any]) -> Origin:
        """Return where *task* came from."""

    def is_left_over(self, origin: Origin) -> bool:
        """Return True if an `asyncio.run()` that is over has left this task behind."""


class Look(NamedTuple):
    """What a look at one task has found.

    Attributes:
        record: Its record.
        origin: Where it came from.
        chain: Its await chain.
        words: What it waits for, in words.
    """

    record: TaskRecord
    origin: Origin
    chain: chains.Chain
    words: Words


class Follower:
    """Collects which records have changed, for one reader. `Listing.follow` makes it.

    Call everything in the loop's thread. Nothing blocks.

    Args:
        listing: The listing that it follows.
    """

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._touched = set(listing.records)
        self._ended: dict[int, ref[asyncio.Task[Any]]] = {}

    def look(self) -> TaskDelta:
        """Bring the listing up to date, and return what has changed since this was last asked.

        The first time that is everything. This makes the look in one step: for 10,000 tasks the first one
        takes some 30 ms. It is not exact, see `Listing.look`.
        """
        self._listing.look(exact=False)
        return self.take()

    def take(self) -> TaskDelta:
        """Return the changes that looks, whoever made them, have found since this was last asked.

        This makes no look itself. Use it after `Listing.look_in_slices` or `Listing.slices`.
        """
        touched, self._touched = self._touched, set()
        records = self._listing.records
        changed = {number: records[number] for number in sorted(touched) if number in records}
        return TaskDelta(changed, frozenset(touched.difference(changed)))

    def take_ended(self) -> dict[int, ref[asyncio.Task[Any]]]:
        """Return the tasks that looks have found ended since this was last asked, by number.

        Only tasks to which something still referred. The history has the others.
        """
        ended, self._ended = self._ended, {}
        return ended

    def add(self, touched: Iterable[int]) -> None:
        """Note the numbers of records that have changed, or are to be read again."""
        self._touched.update(touched)

    def note_ended(self, number: int, task: ref[asyncio.Task[Any]]) -> None:
        """Note that a task has ended to which something still refers."""
        self._ended[number] = task

    def close(self) -> None:
        """Follow no more."""
        self._listing.unfollow(self)


class Listing:
    """The records of the live tasks of one loop, the kernel's own tasks included.

    Call everything but `outdate` in the loop's thread. If a task of the user's own class raises an error, it
    is only logged. Such a task has no record, or keeps its last one.

    Args:
        loop: The loop.
        origins: Knows where its tasks came from.
        codes: Remembers texts about code.
        spawned: Notes spawns from now on, for this listing only. None where `refs_of_tasks` is fast.

    Attributes:
        records: The records as of the last look, by number. Read it, do not change it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        origins: Origins,
        codes: KnownCodes,
        spawned: Spawned | None = None,
    ) -> None:
        self.records: dict[int, TaskRecord] = {}
        self._loop = loop
        self._origins = origins
        self._codes = codes
        self._spawned = spawned
        self._blocked = origins.blocked.seconds
        self._followers: WeakSet[Follower] = WeakSet()
        # The tasks that are listed: by number, and as a set.
        self._tasks: dict[int, ref[asyncio.Task[Any]]] = {}
        self._known: set[ref[asyncio.Task[Any]]] = set()
        # References that are not of interest: to finished tasks, and to tasks of other loops.
        self._others: set[ref[asyncio.Task[Any]]] = set()
        # Tasks whose spawn was noted, and that no look has added yet.
        self._born: set[ref[asyncio.Task[Any]]] = set()
        #: When to look for tasks whose spawn nobody has noted.
        self._search_at = -math.inf
        # What tells whether a task has moved. Each task is in one of the first two, or in the third, which is
        # looked at each time, or in both.
        self._waits: dict[int, ref[asyncio.Future[Any]]] = {}
        self._parked: dict[int, ref[Wait]] = {}
        self._unsettled: set[int] = set()
        # The code in which it waits, if it waits for a plain future.
        self._paths: dict[int, Path] = {}
        # What else a record depends on.
        self._naming: set[int] = set()  # it holds the name of another task
        self._foreign: set[int] = set()  # the task is no `TrackedTask`, so nobody tells us of a new name
        self._runs: dict[ref[Run], set[int]] = {}  # the run that it belongs to goes on
        self._renamed = tracked.renamed
        # Tasks that may have been renamed. Kept here, since a look may be abandoned.
        self._unnamed: set[int] = set()
        self._reruns = origins.runs.reruns
        self._ordered: dict[bool, tuple[TaskRecord, ...]] = {}
        #: The present moment, asked for once in a slice.
        self._now = origins.clock()
        # Numbers from `outdate`. A thread may add one at any time.
        self._told: deque[int] = deque()
        # Tasks to look at even if they have not moved. Kept here, since a look may be abandoned.
        self._due: set[int] = set()

    # -- for readers --------------------------------------------------------------------------

    def look(self, *, exact: bool = True) -> None:
        """Bring `records` up to date, in one step.

        Args:
            exact: Find every task. If False, a task that was made without the loop's `create_task` may be
                missing from the list for `SEARCH_S` seconds. That saves 0.2 us for each task from Python
                3.14 on.
        """
        for _ in self.parts(SlicePace(is_unlimited=True), exact=exact):
            pass

    def slices(self, *, exact: bool = True) -> Iterator[None]:
        """Bring `records` up to date, and yield after each slice of about `slicing.SLICE_S` seconds.

        Let the loop turn, then go on. You may also stop in the middle. The records are as of the time at
        which each task was looked at; tasks that were spawned after the beginning may be missing.

        Args:
            exact: As for `look`.
        """
        for is_slice_over in self.parts(SlicePace(), exact=exact):
            if is_slice_over:
                yield

    def parts(self, pace: SlicePace, *, exact: bool = True) -> Iterator[bool]:
        """Do what `slices` does, and also yield as soon as some records have changed.

        For a follower that takes in what has changed, piece by piece. That frees the records that were
        replaced. If hundreds of them were alive beside the new ones, the garbage collector would begin to
        look at all objects.

        Args:
            pace: Tells when a slice is over. `parts` begins each slice itself.
            exact: As for `look`.

        Yields:
            True if the slice is over: let the loop turn, then go on.
        """
        touched: set[int] = set()
        self._now = self._origins.clock()
        try:
            for _ in self._steps(touched, exact, pace):
                is_over = pace.is_over()
                if is_over or touched:
                    self._tell(touched)
                    yield is_over
                if is_over:
                    self._now = self._origins.clock()
                    pace.begin()
        finally:
            self._tell(touched)

    async def look_in_slices(self) -> None:
        """Do what `slices` does, and let the loop turn between two slices."""
        for _ in self.slices():
            await asyncio.sleep(0)

    def ordered(self, *, kernels: bool = False) -> tuple[TaskRecord, ...]:
        """Return the records as of the last look, oldest first.

        Args:
            kernels: Include the kernel's own tasks.
        """
        ordered = self._ordered.get(kernels)
        if ordered is None:
            records = self.records
            found = [records[number] for number in sorted(records)]
            ordered = tuple(found if kernels else [record for record in found if not record.is_kernel])
            self._ordered[kernels] = ordered
        return ordered

    def follow(self) -> Follower:
        """Return a new follower. It is told of changes for as long as you keep it."""
        follower = Follower(self)
        self._followers.add(follower)
        return follower

    def unfollow(self, follower: Follower) -> None:
        """Tell *follower* nothing any more."""
        self._followers.discard(follower)

    def outdate(self, number: int) -> None:
        """Make the next look renew the record of that task: something in it has changed.

        Any thread. This is for facts about a task that only others know.
        """
        self._told.append(number)

    def task(self, number: int) -> asyncio.Task[Any] | None:
        """Return the live task with that number, if a look has found it and it still lives."""
        task_ref = self._tasks.get(number)
        task = None if task_ref is None else task_ref()
        return None if task is None or is_done(task) else task

    def path_of(self, number: int) -> Path | None:
        """Return what is known of the code in which that task waited at the last look, its `kind` included.

        None if it waited for anything but a plain future.
        """
        return self._paths.get(number)

    def waited_by(self, number: int) -> ref[asyncio.Future[Any]] | None:
        """Return a reference to the future that the task waited for at the last look; None if to none."""
        return self._waits.get(number)

    # -- a look -------------------------------------------------------------------------------

    def _tell(self, touched: set[int]) -> None:
        if touched:
            self._ordered.clear()
            for follower in self._followers:
                follower.add(touched)
            touched.clear()

    def _steps(self, touched: set[int], exact: bool, pace: SlicePace) -> Iterator[None]:
        """Make the look, and yield often. Add the numbers of the records that change to *touched*."""
        born = self._take_births()
        found: Refs = (yield from self._find(pace)) if born is None else born
        yield
        if born is None:
            self._forget_others(found)
        new = yield from self._new_among(found, pace)
        self._due |= self._outdated()
        yield
        yield from self._look_for_new_names()
        yield from self._look_again([*self._due], touched, new)
        numbers, futures = list(self._waits), list(self._waits.values())
        while numbers:
            moved = _moved(numbers[:_ASKED_AT_ONCE], futures[:_ASKED_AT_ONCE])
            # Keep no reference that is replaced now: the garbage collector would count it.
            del numbers[:_ASKED_AT_ONCE], futures[:_ASKED_AT_ONCE]
            yield
            yield from self._look_again(moved, touched, new)
        yield from self._add_all(new, touched)
        if born is not None:
            pace.expect_long_step()
            yield
            if not exact or self._has_every_task():
                return
            pace.expect_long_step()
            yield
            found = yield from self._find(pace)
            yield
            self._forget_others(found)
            new = yield from self._new_among(found, pace)
            yield from self._add_all(new, touched)
        self._search_at = self._origins.clock() + SEARCH_S
        if len(found) != len(self._known) + len(self._others) and (lost := self._known.difference(found)):
            # A task was lost before its future was done. (Or it was spawned since this look began.)
            for number in [number for number, task_ref in self._tasks.items() if task_ref in lost]:
                self._look_at_known(number, touched)

    def _find(self, pace: SlicePace) -> Generator[None, None, Refs]:
        """Return a reference to each task."""
        if pace.is_unlimited:
            return refs_of_tasks(self._loop)
        steps = refs_in_steps(self._loop)
        while True:
            try:
                if next(steps):
                    pace.expect_long_step()
            except StopIteration as stop:
                found: Refs = stop.value
                return found
            yield

    def _take_births(self) -> set[ref[asyncio.Task[Any]]] | None:
        """Return the tasks that were noted as spawned; None if it is time to look for others, too."""
        births = None if self._spawned is None else self._spawned.take_births()
        if births is None:
            self._search_at = -math.inf  # until a search has ended: this look may be abandoned
            return None
        for task_ref in births:
            task = task_ref()
            if task is not None:  # otherwise its reference may have no hash
                self._born.add(task_ref)
        return self._born.copy() if self._origins.clock() < self._search_at else None

    def _has_every_task(self) -> bool:
        others = sum(_is_live(task_ref) for task_ref in self._others)
        return count_live(self._loop) == len(self._tasks) + others

    def _forget_others(self, found: Refs) -> None:
        self._others = {task_ref for task_ref in self._others if task_ref in found}

    def _new_among(self, refs: Refs, pace: SlicePace) -> Generator[None, None, list[ref[asyncio.Task[Any]]]]:
        """Return those of the tasks that are not listed yet."""
        known, others = self._known, self._others
        unordered = refs.difference(known, others) if isinstance(refs, set) else None
        pace.expect_long_step()
        yield
        # By their addresses: memory is read fastest from one end to the other.
        if unordered is None:
            new = [task_ref for task_ref in refs if task_ref not in known and task_ref not in others]
        else:
            new = sorted(unordered, key=hash)  # which is an address
        yield
        return new

    def _add_all(self, new: list[ref[asyncio.Task[Any]]], touched: set[int]) -> Iterator[None]:
        while new:
            self._add_some(new, _AT_ONCE, touched)
            yield

    def _add_some(self, new: list[ref[asyncio.Task[Any]]], count: int, touched: set[int]) -> None:
        """Take *count* tasks from the end of *new*, and list those that can be listed."""
        part = new[-count:]
        del new[-count:]
        self._add(part, touched)
        if self._born:
            self._born.difference_update(part)

    def _add(self, refs: list[ref[asyncio.Task[Any]]], touched: set[int]) -> None:
        """List those of a few tasks that can be listed."""
        tasks, known, loop = self._tasks, self._known, self._loop
        born: dict[int, asyncio.Task[Any]] = {}
        for task_ref in refs:
            task = task_ref()
            if task is None or task_ref in known:  # another look was faster
                continue
            number: int | None
            try:
                # Inline for most tasks: calling a function for each would make a look 2 % slower.
                if type(task) is TrackedTask and task.get_loop() is loop and not task.done():
                    _run, number = task.run, task.number  # the last of its slots to be set, and the first
                else:
                    number = self._number_if_live(task)
            except AttributeError:  # its spawn was interrupted
                number = self._number_if_live(task)
            if number is None:
                self._others.add(task_ref)
            else:
                tasks[number] = task_ref
                born[number] = task
        self._look_at_each(born, born.values(), touched)
        # If an interrupt has ended this look before here, the next one finds them again. Those that have
        # ended meanwhile are not listed any more.
        known.update(filter(None, map(tasks.get, born)))

    def _number_if_live(self, task: asyncio.Task[Any]) -> int | None:
        """Return the number of *task*; None if it has ended, belongs to another loop or cannot be listed."""
        try:
            is_live = loop_of_task(task) is self._loop and not is_done(task)
            return self._origins.origin_of(task).number if is_live else None
        except Exception:  # noqa: BLE001  a class of the user's, which may do anything
            _log.debug("a task cannot be listed", exc_info=True)
            return None

    def _look_again(
        self, numbers: list[int], touched: set[int], new: list[ref[asyncio.Task[Any]]]
    ) -> Iterator[None]:
        """Look at these tasks again. For each that has ended, list one of *new*.

        Dropping all records first, and then making as many, would set off the garbage collector: it counts
        how many objects are made beyond those that go, and begins again at 0 when more have gone.
        """
        for first in range(0, len(numbers), _AT_ONCE):
            part = numbers[first : first + _AT_ONCE]
            self._due.difference_update(part)
            before = len(self._tasks)
            refs = [self._tasks.get(number, _no_ref) for number in part]
            self._look_at_each(part, [task_ref() for task_ref in refs], touched)
            if new and (ended := before - len(self._tasks)):
                self._add_some(new, ended, touched)
            yield

    def _outdated(self) -> set[int]:
        """Return the numbers of the tasks that have to be looked at even if they have not moved."""
        if self._reruns != self._origins.runs.reruns:
            # Tasks of the earlier run are left over now, and places in the cell may have other names.
            self._reruns = self._origins.runs.reruns
            self._codes.forget_places()
            return set(self._tasks)
        outdated = self._unsettled.copy()
        while self._told:
            outdated.add(self._told.popleft())
        for number, wait_ref in self._parked.items():
            wait = wait_ref()
            if wait is None or wait.has_ended or is_done(wait.future):
                outdated.add(number)
        outdated.update(self._origins.origin_of(task).number for task in tracked.woken)
        for run_ref in list(self._runs):
            run = run_ref()
            if run is None or run.main is None:
                outdated |= self._runs.pop(run_ref)
            elif len(self._runs[run_ref]) > 2 * len(self._tasks):  # most of them have ended
                self._runs[run_ref] &= self._tasks.keys()
        return outdated

    def _look_for_new_names(self) -> Iterator[None]:
        """Note as due the tasks that were renamed, and then also those that wait for tasks."""
        if self._renamed != tracked.renamed:
            self._renamed = tracked.renamed
            self._unnamed.update(self._tasks)
        self._unnamed |= self._foreign
        while self._unnamed:
            some = {self._unnamed.pop() for _ in range(min(_NAMED_AT_ONCE, len(self._unnamed)))}
            if renamed := set(filter(self._has_new_name, some)):
                self._due |= renamed | self._naming
            yield

    def _has_new_name(self, number: int) -> bool:
        task, record = self._tasks.get(number, _no_ref)(), self.records.get(number)
        try:
            return task is not None and record is not None and _name_of(task) != record.name
        except Exception:  # noqa: BLE001  a class of the user's, which may do anything
            return True

    def _look_at_known(self, number: int, touched: set[int]) -> None:
        self._look_at_each([number], [self._tasks.get(number, _no_ref)()], touched)

    def _look_at_each(self, numbers: Collection[int], tasks: Collection[Any], touched: set[int]) -> None:
        """Make the records of some tasks anew, and note what they depend on.

        A task that waits for a plain future, as most do, is looked at right here. It gets the record that
        `_look_at` would make, in a fourth of the time. The texts that many tasks share come from a `Shape`.
        Everything is inline: to call a function for each chain would make a look 1.5 % slower.

        Args:
            numbers: The numbers of the tasks.
            tasks: The tasks, in that order. None for one that is gone.
            touched: Gets the numbers of the records that change.
        """
        records, waits, paths, blocked, now = self.records, self._waits, self._paths, self._blocked, self._now
        find_path, look_closely = self._codes.find_path, self._look_closely
        path, codes = _NO_PATH
        latest_path, latest_instruction, latest_cell, latest_site, latest_site_at = None, -1, None, None, -1
        for number, task in zip(numbers, tasks, strict=True):
            future = waited_future(task) if type(task) is TrackedTask else None
            if type(future) is not Future:
                look_closely(number, task, touched)
                continue
            try:
                run = task.run  # the last of its slots to be set
                coro = link = task.coro
                # Most tasks wait in the same code as the one before, and are like it.
                for code in codes:
                    if type(link) is not CoroutineType or link.cr_code is not code:
                        path = None
                        break
                    link = link.cr_await
                if path is None or type(link) is not FutureIterator:
                    path, codes = find_path(coro)
                instruction = -1 if path.several is None else instruction_within(coro, path.several)
                cell, site, site_at = task.cell, task.code, task.instruction
                if (
                    path is not latest_path
                    or site is not latest_site
                    or cell is not latest_cell
                    or site_at != latest_site_at
                    or instruction != latest_instruction
                ):
                    shape = path.shapes[instruction, id(cell), id(site), site_at]
                    spawn_site, waits_at, waits_for, is_kernel, note, _cell = shape
                    latest_path, latest_instruction = path, instruction
                    latest_cell, latest_site, latest_site_at = cell, site, site_at
            except (AttributeError, KeyError):  # its spawn was interrupted; the first of its kind
                look_closely(number, task, touched)
                continue
            if run is not None and run.number != number and not self._note_run(number, run):
                look_closely(number, task, touched)
                continue
            future_ref, since, old = ref(future), now, records.get(number)
            if old is not None:
                since = self._settle(number, old, future_ref)
            waits[number], paths[number] = future_ref, path
            if (name := task.known_name) is None:
                name = task.known_name = _stock_name(task)
            record = _make_record(TaskRecord, (
                number, name, coro.__qualname__, "waiting", task.spawned_at, cell, spawn_site, waits_at,
                waits_for, task.parent, is_kernel, note, "", blocked.get(number, 0.0) if blocked else 0.0,
                since,
            ))  # fmt: skip
            if old is None or record != old:
                records[number] = record
                touched.add(number)

    def _look_closely(self, number: int, task: asyncio.Task[Any] | None, touched: set[int]) -> None:
        """Do what `_look_at_each` does, for one task of any kind."""
        if number not in self._tasks:
            return
        old = self.records.get(number)
        try:
            if task is None or is_done(task):
                self._drop(number)
                if old is not None:
                    touched.add(number)
                return
            look = self._look_at(task)
            self._note(number, task, look)
            self._learn(number, task, look)
        except Exception:  # noqa: BLE001  a class of the user's, which may do anything
            _log.debug("a task cannot be listed", exc_info=True)
            self._unsettled.add(number)
            self._paths.pop(number, None)
            return
        if look.record != old:
            self.records[number] = look.record
            touched.add(number)

    def _note_run(self, number: int, run: Run) -> bool:
        """Note that the record changes when *run* ends. Returns False if that run is not known to go on."""
        numbers = self._runs.get(ref(run))
        if numbers is None:
            return False
        numbers.add(number)
        return True

    def _settle(self, number: int, old: TaskRecord, future_ref: ref[asyncio.Future[Any]]) -> float:
        """Note that the task waits for nothing but that future. Returns since when it does."""
        is_same = self._waits.get(number) is future_ref
        self._parked.pop(number, None)
        self._unsettled.discard(number)
        self._naming.discard(number)
        return self._now if old.waiting_since is None or not is_same else old.waiting_since

    def _learn(self, number: int, task: asyncio.Task[Any], look: Look) -> None:
        """Remember what was found of a task for those like it, if it waits for a plain future."""
        links = look.chain.links
        if type(look.chain.waited) is not Future or not links:
            return
        if any(type(link) is not CoroutineType for link in links):
            return
        if type(links[-1].cr_await) is FutureIterator:
            path = self._paths[number] = self._codes.add_path(links)
            if path.kind is None:
                chains.learn_wait(path, links)
            if look.words.is_shared and type(task) is TrackedTask:  # `_look_at_each` can use that
                self._learn_shape(path, task, look)

    def _learn_shape(self, path: Path, task: TrackedTask, look: Look) -> None:
        links = look.chain.links
        instruction = -1 if path.several is None else instruction_of(links[path.several])
        site = task.code
        if site is not None:
            self._codes.of(site)
        key = (instruction, id(task.cell), id(site), task.instruction)
        self._codes.add_shape(path, key, self._shape_of(look))

    def _shape_of(self, look: Look) -> Shape:
        record = look.record
        note = self._note_on_cell(record.cell)
        return Shape(
            record.spawn_site, record.waits_at, record.waits_for, record.is_kernel, note, record.cell
        )

    def _note(self, number: int, task: asyncio.Task[Any], look: Look) -> None:
        chain, words = look.chain, look.words
        for known in (self._waits, self._paths, self._parked):
            known.pop(number, None)
        is_settled = not words.changes
        if chain.waited is not None:
            try:
                self._waits[number] = ref(chain.waited)
            except TypeError:  # a future of somebody else's that takes no weak references
                is_settled = False
        elif chain.wait is not None:
            self._parked[number] = ref(chain.wait)
        else:
            is_settled = False
        (self._unsettled.discard if is_settled else self._unsettled.add)(number)
        (self._naming.add if words.has_names else self._naming.discard)(number)
        if not isinstance(task, TrackedTask):
            self._foreign.add(number)
        run = look.origin.run
        if run is not None and run.number != number and run.main is not None:
            self._runs.setdefault(ref(run), set()).add(number)

    def _drop(self, number: int) -> None:
        task_ref = self._tasks.pop(number)
        self._known.discard(task_ref)
        if task_ref() is not None:
            self._others.add(task_ref)
            for follower in self._followers:
                follower.note_ended(number, task_ref)
        for known in (self.records, self._waits, self._paths, self._parked):
            known.pop(number, None)
        for numbers in (self._unsettled, self._naming, self._foreign):
            numbers.discard(number)

    # -- one task -----------------------------------------------------------------------------

    def look_at(self, task: asyncio.Task[Any]) -> Look:
        """Look at one live task, whatever the listing says of it. The listing stays as it is."""
        self._now = self._origins.clock()
        return self._look_at(task)

    def _look_at(self, task: asyncio.Task[Any]) -> Look:
        origin = self._origins.origin_of(task)
        number, spawned_at, cell, code, instruction, parent, run, coro = origin
        old = self.records.get(number)
        chain = chains.chain_of(task)
        words = chains.waits_for(chain, self._codes)
        waiting_since = None
        if chain.waited is not None or chain.wait is not None:
            waiting_since = self._now
            if old is not None and old.waiting_since is not None and self._waits_on(number, chain):
                waiting_since = old.waiting_since
        record = TaskRecord(
            number,
            _name_of(task),
            getattr(coro, "__qualname__", "?"),
            self._state_of(task, chain),
            spawned_at,
            cell,
            "" if code is None else self._codes.place(code, instruction, cell),
            chains.waits_at(chain, self._codes, cell),
            words.text,
            parent,
            self._codes.is_kernels_coro(coro),
            "" if run is None and cell is None else self._note_on(origin),
            "",
            self._origins.blocked.of(number),
            waiting_since,
        )
        return Look(record, origin, chain, words)

    def _waits_on(self, number: int, chain: chains.Chain) -> bool:
        """Return True if the task waits for what it waited for when it was last looked at."""
        if chain.wait is not None:
            wait_ref = self._parked.get(number)
            return wait_ref is not None and wait_ref() is chain.wait
        future_ref = self._waits.get(number)
        return future_ref is not None and future_ref() is chain.waited

    def _state_of(self, task: asyncio.Task[Any], chain: chains.Chain) -> TaskState:
        if chain.waited is not None:
            return "waiting"
        if chain.wait is not None:
            return "parked"
        if current_task(self._loop) is task:
            return "running"
        # Where WebAssembly switches stacks, a coroutine that is parked counts as running.
        return "parked" if getattr(coro_of(task), "cr_running", False) else "scheduled"

    def _note_on(self, origin: Origin) -> str:
        run, notes = origin.run, []
        if run is not None and self._origins.is_left_over(origin):
            place = self._codes.place(run.code, run.instruction, origin.cell)
            notes.append(f"left by asyncio.run() at {place}")
        if note := self._note_on_cell(origin.cell):
            notes.append(note)
        return "; ".join(notes)

    def _note_on_cell(self, cell: CellRef | None) -> str:
        is_outdated = self._origins.runs.is_outdated(cell)
        return "left over from an earlier run of its cell" if is_outdated else ""


def _moved(numbers: list[int], futures: list[ref[asyncio.Future[Any]]]) -> list[int]:
    """Return the numbers of the tasks whose future is done or gone. *futures* are theirs, in that order."""
    try:
        # In one expression: this is where the time goes if nothing has changed.
        return [
            number
            for number, future_ref in zip(numbers, futures, strict=True)
            if (future := future_ref()) is None or future.done()
        ]
    except Exception:  # noqa: BLE001  a class of the user's, which may do anything
        both = zip(numbers, futures, strict=True)
        return [number for number, future_ref in both if (waited := future_ref()) is None or is_done(waited)]


def _is_live(task_ref: ref[asyncio.Task[Any]]) -> bool:
    task = task_ref()
    return task is not None and not is_done(task)


def _no_ref() -> None:
    """Stand for the reference to a task that is gone."""


def _name_of(task: asyncio.Task[Any]) -> str:
    known = task.known_name if has_origin(task) else None
    return name_of(task) if known is None else known
