"""Know the tasks of one loop from creation on: their numbers, origins and records."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from weakref import ref

from loopnb._cpython import coro_of, held_finished_tasks, is_done, live_tasks, name_of
from loopnb.errors import TaskNotFoundError
from loopnb.frames import frame_outside
from loopnb.nesting.stack_switching import is_web_loop
from loopnb.records import TaskRecord
from loopnb.texts import error_text, repr_text
from loopnb.tracking import _cpython, cells, chains, tracked
from loopnb.tracking.history import BlockedTimes, EndedTask, History
from loopnb.tracking.listing import Listing
from loopnb.tracking.spawning import SpawnHook, site_of
from loopnb.tracking.suspended import KnownCodes
from loopnb.tracking.tracked import Origin, Run, has_origin, ledger_of
from loopnb.tracking.web_loop import WebSpawnHook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import CodeType

    from loopnb.records import CellRef, Describe
    from loopnb.tracking.tracked import TrackedTask


class Tracker:
    """Numbers every task of a loop and says what it is doing, or how it ended.

    A tracked task carries its origin itself, so nothing else needs to refer to it while it lives. Its
    finalizer leaves a tuple in the history. Spawning and ending a task may take a quarter longer than in
    stock asyncio, and two fifths longer on 3.14 (`tests/benchmarks`). Steps cost nothing. Records are made
    only on request.

    Every method runs in the loop's thread, unless it says otherwise, and does not block.

    Args:
        loop: The loop whose tasks are tracked.
        describe: Formats file and line for people.
        is_kernels: Given a code object, returns True if a coroutine that runs it is the kernel's own.
        clock: Seconds, monotonic.

    Attributes:
        describe: Formats file and line for people.
        clock: Seconds, monotonic.
        next_number: Returns the number of the user's next task.
        has_spawned: True, or a list. While the list is empty, each spawn has to call `note_spawn`.
        history: The ended tasks to which nothing refers.
        runs: The executions of cells.
        codes: Remembers texts about code.
        blocked: For how long each task has blocked the loop.
        listing: The records of the live tasks, kept up to date at little cost.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        describe: Describe,
        is_kernels: Callable[[CodeType], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.history = History(finished=500, failed=100)
        self._loop = loop
        self.describe = describe
        self.clock = clock
        self._ledger = ledger = ledger_of(loop)
        self.runs = ledger.runs
        self.next_number: Callable[[], int] = ledger.numbers.__next__
        self._spawned = ledger.spawned if _cpython.FINISHED_ARE_SCANNED_FOR else None
        self.has_spawned = True if self._spawned is None else self._spawned.is_noted
        self._untracked = ledger.untracked
        self._users_task: ref[asyncio.Task[Any]] | None = None  # one that lived when last asked
        self.blocked = BlockedTimes()
        self.codes = KnownCodes(describe, is_kernels)
        self.listing = Listing(loop, self, self.codes, self._spawned)
        self._hook: SpawnHook | WebSpawnHook = (WebSpawnHook if is_web_loop(loop) else SpawnHook)(loop, self)

    def install(self) -> None:
        """Track tasks from now on. We do not see how tasks of the user's own task factory end."""
        self.history.start()
        tracked.on_failed.append(self._note_end)
        self._hook.install()

    def notes(self) -> tuple[str, ...]:
        """Return a note for `%loopnb` if the user has set a task factory of their own. Any thread."""
        factory = self._hook.users_factory
        if factory is None:
            return ()
        name = getattr(factory, "__qualname__", repr_text(factory, 60))
        return (
            f"the loop's task factory is {name}: its tasks are not in the history, and asyncio reports "
            "their failures; loop.set_task_factory(None) removes it",
        )

    def remove(self) -> None:
        """Put the task factory back as it was. Tasks keep their origin."""
        self.history.stop()
        tracked.on_failed.remove(self._note_end)
        self._hook.restore()

    def relocate(self, task: asyncio.Task[Any], code: CodeType) -> None:
        """Make the first line of *code* the spawn site of *task*, instead of the line that called loopnb."""
        if has_origin(task):
            task.relocate(code)
        elif (origin := self._untracked.get(task)) is not None:
            self._untracked[task] = origin._replace(code=code, instruction=0)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Record the origin of a task that the user's task factory has just made."""
        if has_origin(task):
            return
        seen = self._untracked.get(task)  # eager, it has begun already
        number = self._first_number(task) if seen is None else seen.number
        frame = frame_outside()
        code, instruction, is_run, _depth = (None, 0, False, 0) if frame is None else site_of(frame)
        above = asyncio.current_task(self._loop)
        parent = None if above is None else self.origin_of(above)
        run = None if parent is None else parent.run
        if is_run and code is not None:
            run = Run(number, task, code, instruction)
        self._untracked[task] = Origin(
            number=number,
            spawned_at=self.clock() if seen is None else seen.spawned_at,
            cell=cells.current_cell.get(),
            code=code,
            instruction=instruction,
            parent=None if parent is None else parent.number,
            run=run,
            coro=None,
        )
        if self._spawned is not None:
            self._spawned.note(task, is_users=False)  # failures of such tasks are left to asyncio

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop whose tasks it tracks."""
        return self._loop

    def origin_of(self, task: asyncio.Task[Any]) -> Origin:
        """Return where *task* came from. If nothing noted that, it counts as spawned when first seen."""
        if has_origin(task):
            return task.origin
        origin = self._untracked.get(task)
        if origin is None:
            origin = Origin(self._first_number(task), self.clock(), None, None, 0, None, None, None)
            self._untracked[task] = origin
        # We don't store the coroutine: it would keep alive what it awaits, and so the task and its loop. We
        # don't ask an ended task for it: an eager task that ended at once has none, and Python 3.12.1
        # crashes.
        return origin if is_done(task) else origin._replace(coro=coro_of(task))

    def _first_number(self, task: asyncio.Task[Any]) -> int:
        # As above: an ended task is not asked for its coroutine.
        return self.new_number(None if is_done(task) else coro_of(task))

    def _note_end(self, task: TrackedTask) -> None:
        """Note that *task*, to which nothing refers, has failed or was lost while it waited. Any thread."""
        if task.get_loop() is self._loop:
            self.listing.outdate(task.number)

    def note_block(self, number: int, seconds: float) -> None:
        """Note that the task with that number has blocked the loop for so many seconds. Any thread."""
        self.blocked.add(number, seconds)
        self.listing.outdate(number)

    def known_origin(self, task: asyncio.Task[Any]) -> Origin | None:
        """Return where *task* came from; None if it is untracked and nobody has asked yet. Any thread."""
        return task.origin if has_origin(task) else self._untracked.get(task)

    def new_number(self, coro: object) -> int:
        """Return the number of the next task, given its coroutine. The kernel's own do not count as yours."""
        ledger = self._ledger
        return next(ledger.kernels_numbers if self.codes.is_kernels_coro(coro) else ledger.numbers)

    def number_of(self, task: asyncio.Task[Any]) -> int:
        """Return the number of *task*, which no other task of this loop has."""
        return task.number if has_origin(task) else self.origin_of(task).number

    def live(self, *, kernels: bool = False) -> list[asyncio.Task[Any]]:
        """Return the live tasks of the loop, oldest first.

        Args:
            kernels: Include the kernel's own tasks.
        """
        tasks = [task for task in live_tasks(self._loop) if kernels or not self.is_kernels_own(task)]
        return sorted(tasks, key=self.number_of)

    def has_users_task(self) -> bool:
        """Return True if a task lives that is not the kernel's own. Much cheaper than `live`."""
        task = None if self._users_task is None else self._users_task()
        if task is None or is_done(task):
            users = (task for task in live_tasks(self._loop) if not self.is_kernels_own(task))
            task = next(users, None)
            self._users_task = None if task is None else ref(task)
        return task is not None

    def ended(self) -> list[EndedTask]:
        """Return ended tasks, oldest first: from the history, and those to which something still refers.

        The kernel's own are left out.

        From Python 3.14 on this looks at every object of the process, which takes 15 ms and more.
        """
        held = [EndedTask.of(task) for task in held_finished_tasks(self._loop) if has_origin(task)]
        users = [task for task in [*held, *self.history] if not self.is_kernels_coro(task.origin.coro)]
        return sorted(users, key=lambda task: task.origin.number)

    def held(self) -> dict[int, ref[asyncio.Task[Any]]]:
        """Return the ended tasks to which something still refers, by number. Takes as long as `ended`."""
        return {task.number: ref(task) for task in held_finished_tasks(self._loop) if has_origin(task)}

    def note_spawn(self, task: TrackedTask) -> None:
        """Note that *task* has been spawned. Called from Python 3.14 on."""
        if self._spawned is not None:
            # The kernel spawns a task for each message. We do not look for failures of these.
            self._spawned.note(task, is_users=not self.is_kernels_coro(task.coro))

    def find(self, wanted: str | int) -> asyncio.Task[Any]:
        """Return the live task with that number or name; of several with one name, the newest.

        A name wins over a number, unless *wanted* is an int. Then one of the kernel's own tasks may be found,
        too. No records are made.

        Raises:
            TaskNotFoundError: No live task has that number or name, or only one of the kernel's own.
        """
        number = _number_in(wanted)
        if isinstance(wanted, int) and (known := self.listing.task(wanted)) is not None:
            return known
        found: asyncio.Task[Any] | None = None
        newest = -1
        for task in live_tasks(self._loop):
            own = self.number_of(task)
            is_named = isinstance(wanted, str) and _is_named(task, wanted)
            if (is_named and own > newest) or (found is None and own == number):
                found, newest = task, own if is_named else newest
        if found is None or self.is_kernels_own(found):
            raise TaskNotFoundError(str(wanted), [name_of(task) for task in self.live()])
        return found

    def named(self, name: str) -> list[asyncio.Task[Any]]:
        """Return the live tasks of that name, oldest first."""
        return [task for task in self.live() if name_of(task) == name]

    def find_ended(self, wanted: str | int) -> EndedTask | None:
        """Return the ended task with that number or name; of several with one name, the newest."""
        number, ended = _number_in(wanted), self.ended()
        named = [task for task in ended if task.name == wanted]
        numbered = [task for task in ended if task.origin.number == number]
        return next(reversed(numbered + named), None)

    def records_of(self, tasks: Iterable[asyncio.Task[Any]]) -> tuple[TaskRecord, ...]:
        """Return what each of *tasks* is doing."""
        return tuple(map(self.record, tasks))

    def record(self, task: asyncio.Task[Any]) -> TaskRecord:
        """Return what *task* is doing, or how it ended."""
        if is_done(task) and has_origin(task):
            return self.record_ended(EndedTask.of(task))
        return self.listing.look_at(task).record

    def awaiting(self, task: asyncio.Task[Any]) -> list[asyncio.Task[Any]]:
        """Return *task*, then the live task that awaits it, and so on outwards.

        Waits in nested runs do not count.
        """
        awaiter: dict[asyncio.Task[Any], asyncio.Task[Any]] = {}
        for awaiting in self.live(kernels=True):
            chain = chains.chain_of(awaiting)
            if chain.nested is None:
                for below in chains.awaited_by(awaiting, chain):
                    awaiter.setdefault(below, awaiting)
        found = {task: None}
        while (above := awaiter.get(next(reversed(found)))) is not None and above not in found:
            found[above] = None
        return list(found)

    def parents_of(self, record: TaskRecord) -> list[str]:
        """Describe the known ancestors of a task, beginning with the task that spawned it."""
        live = {
            self.number_of(task): task for task in live_tasks(self._loop) if not self.is_kernels_own(task)
        }
        ended: dict[int, EndedTask] | None = None
        found: list[str] = []
        seen = {record.number}
        while (parent := record.parent) is not None and parent not in seen:
            seen.add(parent)
            if parent in live:
                record = self.record(live[parent])
            else:
                if ended is None:  # this may take long, see `ended`
                    ended = {task.origin.number: task for task in self.ended()}
                if parent not in ended:
                    break
                record = self.record_ended(ended[parent])
            found.append(f"{record.label} ({record.state}) of {record.cell or 'other code'}")
        return found

    def record_ended(self, ended: EndedTask) -> TaskRecord:
        """Return the record of an ended task."""
        origin = ended.origin
        return TaskRecord(
            number=origin.number,
            name=ended.name,
            coro=getattr(origin.coro, "__qualname__", "?"),
            state=ended.state,
            spawned_at=origin.spawned_at,
            cell=origin.cell,
            spawn_site=self.place(origin.code, origin.instruction, origin.cell),
            waits_at="" if ended.waited_at is None else self.describe(*ended.waited_at, origin.cell),
            waits_for="",
            parent=origin.parent,
            error=error_text(ended.error),
            blocked_s=self.blocked.of(origin.number),
        )

    def place(self, code: CodeType | None, instruction: int, cell: CellRef | None) -> str:
        """Format file and line of an instruction of *code* for people. Returns "" if *code* is None."""
        if code is None:
            return ""
        return self.describe(code.co_filename, cells.line_of(code, instruction), cell)

    def is_left_over(self, origin: Origin) -> bool:
        """Return True if an `asyncio.run()` that is over has left this task behind."""
        return origin.run is not None and origin.run.has_left(origin, self.clock())

    def is_kernels_own(self, task: asyncio.Task[Any]) -> bool:
        """Return True if *task* lives and belongs to the kernel itself."""
        return not is_done(task) and self.is_kernels_coro(coro_of(task))

    def is_kernels_coro(self, coro: object) -> bool:
        """Return True if a task with that coroutine belongs to the kernel itself."""
        return self.codes.is_kernels_coro(coro)


def _is_named(task: asyncio.Task[Any], wanted: str) -> bool:
    if has_origin(task) and task.known_name is None and not wanted.startswith("Task-"):
        return False  # it has a default name, which asyncio makes when somebody first reads it
    return name_of(task) == wanted


def _number_in(wanted: str | int) -> int | None:
    """Return the number that *wanted* stands for, such as `#5`; None if it stands for none."""
    text = str(wanted).strip().lstrip("#")
    return int(text) if text.isdecimal() else None
