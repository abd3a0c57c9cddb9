"""The tasks of one loop, from creation on: the task factory, numbers, records."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from loopnb.errors import TaskNotFoundError
from loopnb.internals.task_state import waited_future
from loopnb.internals.tasks import LoopTask, make_task
from loopnb.records import TaskRecord
from loopnb.tracking import chains, provenance

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    from loopnb.internals.tasks import Origin
    from loopnb.records import TaskState

provenance.passes_over(globals())


class _Ledger:
    """The numbers given out on one loop. It outlives trackers: a reload must not use one twice."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        # Tasks that no factory of ours has made get their number when they are first seen.
        self.untracked: WeakKeyDictionary[asyncio.Task[Any], Origin] = WeakKeyDictionary()


_ledgers: WeakKeyDictionary[asyncio.AbstractEventLoop, _Ledger] = WeakKeyDictionary()


class Tracker:
    """Numbers every task of a loop and says what it is doing.

    A tracked task carries its origin itself, so nothing else needs to hold it and nothing has to
    be done when it ends. Records are made in the loop's thread, from `asyncio.all_tasks()`.

    Args:
        loop: The loop whose tasks are tracked.
        parked_frame: Returns the frame of the nested run in which a task is parked, and what is
            awaited there; None if it is not parked.
        describe: Formats file and line for people.
        is_kernels: Says of the file a coroutine was written in whether it is the kernel's own.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        parked_frame: Callable[[asyncio.Task[Any]], tuple[FrameType, asyncio.Future[Any]] | None],
        describe: Callable[[str, int], str],
        is_kernels: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._parked_frame = parked_frame
        self._describe = describe
        self._is_kernels = is_kernels
        self._clock = clock
        ledger = _ledgers.setdefault(loop, _Ledger())
        self._numbers = ledger.numbers
        self._untracked = ledger.untracked
        self._previous_factory: Any = None

    def install(self) -> None:
        """Track tasks from now on, unless the loop has a task factory of somebody else's."""
        factory = self._loop.get_task_factory()
        if factory is None or factory is make_task:
            self._previous_factory = factory
            self._loop.set_task_factory(self.make_task)

    def remove(self) -> None:
        """Put the task factory back as it was. Tasks keep their origin."""
        if self._loop.get_task_factory() == self.make_task:
            self._loop.set_task_factory(self._previous_factory)

    def make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """Make a task that knows its origin. A task factory; the loop's thread."""
        task: asyncio.Task[Any] = make_task(loop, coro, **options)
        code, instruction = provenance.spawn_site(1)
        parent = asyncio.current_task(loop)
        if isinstance(task, LoopTask):
            task.origin = (
                next(self._numbers),
                self._clock(),
                provenance.current_cell.get(),
                code,
                instruction,
                self.number_of(parent) if parent is not None else None,
            )
        return task

    def relocate(self, task: asyncio.Task[Any], code: CodeType) -> None:
        """Say that *task* was spawned by the first line of *code*, not by whoever called us for it."""
        if isinstance(task, LoopTask):
            number, spawned_at, cell, _code, _instruction, parent = task.origin
            task.origin = (number, spawned_at, cell, code, 0, parent)

    def origin_of(self, task: asyncio.Task[Any]) -> Origin:
        """Return where *task* came from; of an untracked one, no more than when it was first seen."""
        origin: Origin | None = getattr(task, "origin", None)
        if origin is None:
            origin = self._untracked.get(task)
        if origin is None:
            origin = self._untracked[task] = (next(self._numbers), self._clock(), None, None, 0, None)
        return origin

    def number_of(self, task: asyncio.Task[Any]) -> int:
        """Return the number of *task*, its own on this loop."""
        return self.origin_of(task)[0]

    def live(self) -> list[asyncio.Task[Any]]:
        """Return the live tasks of the loop, oldest first, the kernel's own left out."""
        tasks = [task for task in asyncio.all_tasks(self._loop) if not self.is_kernels_own(task)]
        return sorted(tasks, key=self.number_of)

    def find(self, wanted: str | int) -> asyncio.Task[Any]:
        """Return the live task with that number or name; of several of a name, the newest.

        A name wins over a number, unless *wanted* is an int.

        Raises:
            TaskNotFoundError: There is none.
        """
        tasks = self.live()
        named = [task for task in tasks if task.get_name() == wanted]
        text = str(wanted).strip().lstrip("#")
        number = int(text) if text.isdecimal() else None
        numbered = [task for task in tasks if self.number_of(task) == number]
        if not named and not numbered:
            raise TaskNotFoundError(str(wanted), [task.get_name() for task in tasks])
        return (numbered + named)[-1]

    def records(self) -> tuple[TaskRecord, ...]:
        """Return a record of each live task, oldest first, the kernel's own left out."""
        now = self._clock()
        return tuple(self.record(task, now) for task in self.live())

    def record(self, task: asyncio.Task[Any], now: float | None = None) -> TaskRecord:
        """Return what *task* is doing."""
        number, spawned_at, cell, code, instruction, parent = self.origin_of(task)
        parked = self._parked_frame(task)
        if parked is not None:
            frames = chains.stack_of(parked[0])
            waiting_for = _name_of(parked[1])
        else:
            frames = list(chains.frames_of(task.get_coro()))
            waiting_for = chains.waits_for(task, frames)
        return TaskRecord(
            number=number,
            name=task.get_name(),
            coro=getattr(task.get_coro(), "__qualname__", "?"),
            state="parked" if parked is not None else self._state_of(task),
            age_s=(self._clock() if now is None else now) - spawned_at,
            cell=cell,
            spawn_site=self._describe(code.co_filename, provenance.line_of(code, instruction))
            if code is not None
            else "",
            waits_at=chains.waits_at(frames, self._describe),
            waits_for=waiting_for,
            parent=parent,
        )

    def _state_of(self, task: asyncio.Task[Any]) -> TaskState:
        if asyncio.current_task(self._loop) is task:
            return "running"
        return "scheduled" if waited_future(task) is None else "waiting"

    def is_kernels_own(self, task: asyncio.Task[Any]) -> bool:
        """Say whether *task* belongs to the kernel itself."""
        coro = task.get_coro()
        code = getattr(coro, "cr_code", None) or getattr(coro, "gi_code", None)
        return code is not None and self._is_kernels(code.co_filename)


def _name_of(future: asyncio.Future[Any]) -> str:
    return f"nested {future.get_name()}" if isinstance(future, asyncio.Task) else "a nested run"
