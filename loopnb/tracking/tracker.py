"""The tasks of one loop, from creation on: the task factory, numbers, records."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from loopnb import frames
from loopnb.errors import TaskNotFoundError
from loopnb.frames import frame_outside
from loopnb.nesting.known_tasks import known_tasks, refer_to
from loopnb.nesting.loop_task import make_task
from loopnb.nesting.scope import engine_of
from loopnb.patching import Patch, TaskFactoryPatch
from loopnb.records import TaskRecord
from loopnb.texts import error_text, repr_text
from loopnb.tracking import cells, chains
from loopnb.tracking._cpython import frames_of, waited_future
from loopnb.tracking.cells import CellRuns
from loopnb.tracking.history import History, ended
from loopnb.tracking.spawning import UsersFactory, can_stand_in, site_of, tracking_factory
from loopnb.tracking.tracked import Origin, Run, has_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import CodeType, FrameType

    from loopnb.records import CellRef, Describe, TaskState
    from loopnb.tracking.history import Ended

T = TypeVar("T")


class _Ledger:
    """The numbers given out on one loop, and its cells: a reload must not use one twice, nor forget one."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.runs = CellRuns()
        # Tasks that no factory of ours has made get their number when they are first seen.
        self.untracked: WeakKeyDictionary[asyncio.Task[Any], Origin] = WeakKeyDictionary()


_ledgers: WeakKeyDictionary[asyncio.AbstractEventLoop, _Ledger] = WeakKeyDictionary()


class Tracker:
    """Numbers every task of a loop and says what it is doing, or how it ended.

    A tracked task carries its origin itself, so nothing else needs to hold it while it lives. Its
    finalizer leaves a tuple in the history. A tracked task takes 160 bytes more than a stock one
    while it lives (CPython 3.11; 290 with weak references of our own, as on 3.14). It may make a
    spawn and an end a quarter longer, on 3.14 two fifths (`tests/benchmarks`); its steps cost nothing.
    Records are made in the loop's thread, when they are asked for.

    Args:
        loop: The loop whose tasks are tracked.
        describe: Formats file and line for people.
        is_kernels: Says of the file a coroutine was written in whether it is the kernel's own.
        clock: Seconds, monotonic.

    Attributes:
        describe: Formats file and line for people.
        is_kernels_file: Says of a file whether its code is the kernel's own.
        history: The tasks that have ended and that nobody holds.
        runs: The executions of cells.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        describe: Describe,
        is_kernels: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.history = History(finished=500, failed=100)
        self._loop = loop
        self.describe = describe
        self.is_kernels_file = is_kernels
        self._clock = clock
        ledger = _ledgers.setdefault(loop, _Ledger())
        self.runs = ledger.runs
        self._numbers = ledger.numbers
        self._untracked = ledger.untracked
        make_factory = partial(
            tracking_factory,
            next_number=self._numbers.__next__,
            clock=clock,
            cell=cells.current_cell,
            origin_of=self.origin_of,
        )
        factory = make_factory()
        self._factory = TaskFactoryPatch(loop, factory, over=make_task)
        self._users_factory = UsersFactory(loop, factory, self.adopt)
        self._create_task: Patch | None = None
        if can_stand_in(loop):
            self._create_task = Patch(loop, "create_task", MethodType(make_factory(factory=factory), loop))

    def _parked_frame(self, task: asyncio.Task[Any]) -> tuple[FrameType, asyncio.Future[Any]] | None:
        wait: Any = getattr(task, "parked", None)
        engine = engine_of(self._loop)
        if wait is None and engine is not None:
            wait = next((wait for wait in engine.waits if wait.task is task), None)
        if wait is None or wait.stack is None or wait.stack.gr_frame is None:
            return None
        return wait.stack.gr_frame, wait.future

    def install(self) -> None:
        """Track tasks from now on; those of a factory of the user's as far as that goes."""
        self.history.start()
        self._factory.install()
        if self._factory.installed and self._create_task is not None:
            self._create_task.install()
        self._users_factory.install()

    def notes(self) -> tuple[str, ...]:
        """Return what `%loopnb` should say: that the user has a task factory of his own. Any thread."""
        factory = self._users_factory.users
        if factory is None:
            return ()
        name = getattr(factory, "__qualname__", repr_text(factory, 60))
        return (
            f"the loop's task factory is {name}: how its tasks end is not seen, and asyncio tells of "
            "failures; loop.set_task_factory(None) takes it off",
        )

    def remove(self) -> None:
        """Put the task factory back as it was. Tasks keep their origin."""
        self.history.stop()
        self._users_factory.restore()
        if self._create_task is not None:
            self._create_task.restore()
        self._factory.restore()

    def relocate(self, task: asyncio.Task[Any], code: CodeType) -> None:
        """Say that *task* was spawned by the first line of *code*, not by whoever called us for it."""
        if has_origin(task):
            task.code, task.instruction = code, 0
        elif (origin := self._untracked.get(task)) is not None:
            self._untracked[task] = origin._replace(code=code, instruction=0)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Note where *task* comes from, which the user's task factory has just made."""
        if has_origin(task):
            return
        seen = self._untracked.get(task)  # eager, it has begun already
        number = next(self._numbers) if seen is None else seen.number
        frame = frame_outside()
        code, instruction, is_run, _depth = (None, 0, False, 0) if frame is None else site_of(frame)
        above = asyncio.current_task(self._loop)
        parent = None if above is None else self.origin_of(above)
        run = None if parent is None else parent.run
        if is_run and code is not None:
            run = Run(number, task, code, instruction)
        self._untracked[task] = Origin(
            number=number,
            spawned_at=self._clock() if seen is None else seen.spawned_at,
            cell=cells.current_cell.get(),
            code=code,
            instruction=instruction,
            parent=None if parent is None else parent.number,
            run=run,
            coro=None,
        )
        refer_to(task)

    def origin_of(self, task: asyncio.Task[Any]) -> Origin:
        """Return where *task* came from; of an untracked one, no more than when it was first seen."""
        origin: Origin | None = getattr(task, "origin", None)
        if origin is not None:
            return origin
        origin = self._untracked.get(task)
        if origin is None:
            origin = Origin(next(self._numbers), self._clock(), None, None, 0, None, None, None)
            self._untracked[task] = origin
        # Kept there, the coroutine would keep what it awaits alive, and so the task and its loop.
        return origin._replace(coro=task.get_coro())

    def number_of(self, task: asyncio.Task[Any]) -> int:
        """Return the number of *task*, its own on this loop."""
        return self.origin_of(task).number

    def live(self, *, kernels: bool = False) -> list[asyncio.Task[Any]]:
        """Return the live tasks of the loop, oldest first.

        Args:
            kernels: The kernel's own as well.
        """
        if kernels:  # `all_tasks` may hide them
            tasks = [task for task in known_tasks(self._loop) if not task.done()]
        else:
            tasks = [task for task in asyncio.all_tasks(self._loop) if not self.is_kernels_own(task)]
        return sorted(tasks, key=self.number_of)

    def ended(self) -> list[Ended]:
        """Return the tasks that have ended, as far as they are kept or held, oldest first."""
        held = [ended(task) for task in known_tasks(self._loop) if task.done() and has_origin(task)]
        every = [one for one in (*held, *self.history) if not self._is_kernel_coro(one.origin.coro)]
        return sorted(every, key=lambda one: one.origin.number)

    def find(self, wanted: str | int) -> asyncio.Task[Any]:
        """Return the live task with that number or name; of several of a name, the newest.

        A name wins over a number, unless *wanted* is an int.

        Raises:
            TaskNotFoundError: There is none.
        """
        tasks = self.live()
        found = _choose(wanted, [(self.number_of(task), task.get_name(), task) for task in tasks])
        if found is None:
            raise TaskNotFoundError(str(wanted), [task.get_name() for task in tasks])
        return found

    def find_ended(self, wanted: str | int) -> Ended | None:
        """Return the ended task with that number or name; of several of a name, the newest."""
        return _choose(wanted, [(one.origin.number, one.name, one) for one in self.ended()])

    def records_of(self, tasks: Iterable[asyncio.Task[Any]]) -> tuple[TaskRecord, ...]:
        """Return what each of *tasks* is doing."""
        now = self._clock()
        return tuple(self.record(task, now) for task in tasks)

    def record(self, task: asyncio.Task[Any], now: float | None = None) -> TaskRecord:
        """Return what *task* is doing, or how it ended."""
        if task.done() and has_origin(task):
            return self.record_ended(ended(task), now)
        parked = self._parked_frame(task)
        if parked is not None:
            frames = chains.stack_of(parked[0])
            waiting_for = _name_of(parked[1])
        else:
            frames = list(frames_of(task.get_coro()))
            waiting_for = chains.waits_for(task, frames)
        return replace(
            self._record(self.origin_of(task), task.get_name(), now),
            state="parked" if parked is not None else self._state_of(task),
            waits_at=chains.waits_at(frames, partial(self.describe, cell=self.origin_of(task).cell)),
            waits_for=waiting_for,
            is_kernel=self.is_kernels_own(task),
            note=self._note(self.origin_of(task)),
        )

    def frames_of(self, task: asyncio.Task[Any]) -> tuple[list[FrameType], list[asyncio.Task[Any]]]:
        """Return the frames of a live task that people know, and the task it awaits in a nested run."""
        parked = self._parked_frame(task)
        if parked is None:
            return list(frames_of(task.get_coro())), []
        inner = [frame for frame in chains.stack_of(parked[0]) if frames.is_users(frame.f_code)]
        return inner, [parked[1]] if isinstance(parked[1], asyncio.Task) else []

    def awaited_by(self, task: asyncio.Task[Any]) -> list[asyncio.Task[Any]]:
        """Return the live tasks that *task* waits for, in a nested run or not."""
        frames, below = self.frames_of(task)
        return [*below, *chains.awaited_by(task, frames)]

    def awaiting(self, task: asyncio.Task[Any]) -> list[asyncio.Task[Any]]:
        """Return *task*, the live task that awaits it, what awaits that, and so on; in no nested run."""
        awaiter: dict[asyncio.Task[Any], asyncio.Task[Any]] = {}
        for one in self.live(kernels=True):
            if self._parked_frame(one) is None:
                for below in chains.awaited_by(one, list(frames_of(one.get_coro()))):
                    awaiter.setdefault(below, one)
        chain = {task: None}
        while (above := awaiter.get(next(reversed(chain)))) is not None and above not in chain:
            chain[above] = None
        return list(chain)

    def parents_of(self, record: TaskRecord) -> list[str]:
        """Name the task that spawned it, and the one that spawned that, as far as they are known."""
        known = {self.number_of(task): self.record(task) for task in self.live()}
        known |= {one.origin.number: self.record_ended(one) for one in self.ended()}
        found = []
        while record.parent in known:
            record = known.pop(record.parent)
            found.append(f"{record.label} ({record.state}) of {record.cell or 'other code'}")
        return found

    def record_ended(self, one: Ended, now: float | None = None) -> TaskRecord:
        """Return how a task ended."""
        record = self._record(one.origin, one.name, now)
        return replace(record, state=one.state, error=error_text(one.error))

    def _record(self, origin: Origin, name: str, now: float | None) -> TaskRecord:
        number, spawned_at, cell, code, instruction, parent, _run, coro = origin
        return TaskRecord(
            number=number,
            name=name,
            coro=getattr(coro, "__qualname__", "?"),
            state="scheduled",
            age_s=(self._clock() if now is None else now) - spawned_at,
            cell=cell,
            spawn_site=self.place(code, instruction, cell),
            waits_at="",
            waits_for="",
            parent=parent,
        )

    def place(self, code: CodeType | None, instruction: int, cell: CellRef | None) -> str:
        """Return how a person would call that instruction's line, *cell*'s doing ("" if unknown)."""
        if code is None:
            return ""
        return self.describe(code.co_filename, cells.line_of(code, instruction), cell)

    def is_left_over(self, origin: Origin) -> bool:
        """Say whether an `asyncio.run()` that is over has left this task behind.

        What the tasks that it has left spawn in turn is theirs.
        """
        run = origin.run
        if run is None or run.number == origin.number or not run.is_over():
            return False
        if run.over_since is None:
            run.over_since = self._clock()
        return origin.spawned_at <= run.over_since

    def is_kernels_own(self, task: asyncio.Task[Any]) -> bool:
        """Say whether *task* belongs to the kernel itself."""
        return self._is_kernel_coro(task.get_coro())

    def _note(self, origin: Origin) -> str:
        run = origin.run
        notes = []
        if run is not None and self.is_left_over(origin):
            notes.append(f"left by asyncio.run() at {self.place(run.code, run.instruction, origin.cell)}")
        if self.runs.is_outdated(origin.cell):
            notes.append("left over from an earlier run of its cell")
        return "; ".join(notes)

    def _state_of(self, task: asyncio.Task[Any]) -> TaskState:
        if asyncio.current_task(self._loop) is task:
            return "running"
        return "scheduled" if waited_future(task) is None else "waiting"

    def _is_kernel_coro(self, coro: object) -> bool:
        code = getattr(coro, "cr_code", None) or getattr(coro, "gi_code", None)
        return code is not None and self.is_kernels_file(code.co_filename)


def _choose(wanted: str | int, candidates: list[tuple[int, str, T]]) -> T | None:
    named = [one for _number, name, one in candidates if name == wanted]
    text = str(wanted).strip().lstrip("#")
    number = int(text) if text.isdecimal() else None
    numbered = [one for own, _name, one in candidates if own == number]
    found = numbered + named
    return found[-1] if found else None


def _name_of(future: asyncio.Future[Any]) -> str:
    return f"nested {future.get_name()}" if isinstance(future, asyncio.Task) else "a nested run"
