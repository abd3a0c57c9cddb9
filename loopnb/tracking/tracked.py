"""The task class that serves nesting (a parked task can be cancelled) and tracking (it knows its origin)."""

from __future__ import annotations

import asyncio
import itertools
import logging
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard
from weakref import WeakKeyDictionary, WeakSet, ref

from loopnb.nesting.loop_task import LoopTask
from loopnb.tracking._cpython import finalize
from loopnb.tracking.cells import CellRuns

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from weakref import WeakMethod

    from loopnb.records import CellRef

_log = logging.getLogger("loopnb")

FIRST_OF_KERNELS = 1_000_000_000_000
"""The number of the kernel's first task. The user never has so many."""


class Run:
    """One nested `asyncio.run()`. The tasks that were spawned in it share this object.

    Args:
        number: The number of its main task.
        main: That task.
        code: The code of the frame that called `asyncio.run()`.
        instruction: The offset of that call in the bytecode.
    """

    __slots__ = ("__weakref__", "_main", "_over_since", "code", "instruction", "number")

    def __init__(self, number: int, main: asyncio.Task[Any], code: CodeType, instruction: int) -> None:
        self.number = number
        self.code = code
        self.instruction = instruction
        self._over_since: float | None = None
        self._main = ref(main)

    @property
    def main(self) -> asyncio.Task[Any] | None:
        """Its main task, until that has ended."""
        main = self._main()
        return None if main is None or main.done() else main

    def has_left(self, origin: Origin, now: float) -> bool:
        """Return True if the run is over and has left the task of *origin* behind.

        Tasks that were spawned after the run had ended do not count, even if a task of the run spawned them.

        Args:
            origin: The origin of a task that was spawned in this run.
            now: Monotonic seconds.
        """
        if self.number == origin.number or self.main is not None:
            return False
        if self._over_since is None:
            self._over_since = now
        return origin.spawned_at <= self._over_since


class Origin(NamedTuple):
    """Where a task came from: the facts of its birth.

    Attributes:
        number: Its number. Each loop counts its own tasks.
        spawned_at: Monotonic seconds.
        cell: The cell whose code spawned it.
        code: The code that spawned it; None if that is not known.
        instruction: The offset of the spawn in its bytecode.
        parent: The number of the task that spawned it.
        run: The nested `asyncio.run()` it was spawned in.
        coro: Its coroutine.
    """

    number: int
    spawned_at: float
    cell: CellRef | None
    code: CodeType | None
    instruction: int
    parent: int | None
    run: Run | None
    coro: Any


_origin_fields = attrgetter(*Origin._fields)


class TrackedTask(LoopTask):
    """A task of a tracked loop. It knows its origin, and its finalizer records how it ended.

    `_cpython.make_factory.make_tracked` constructs it: an `__init__` would make a spawn 5 % slower. Each
    field of its `Origin` has a slot. An `Origin` in a single slot would be one more object for the garbage
    collector, and make a spawn 3 to 6 % slower on 3.14.

    Attributes:
        known_name: Its name, if anybody has set or read it; None otherwise. From Python 3.12 on, asyncio
            makes the default name when it is first read. Reading it at the end of each task would cost a
            tenth of a spawn.
    """

    __slots__ = (*Origin._fields, "known_name")

    number: int
    spawned_at: float
    cell: CellRef | None
    code: CodeType | None
    instruction: int
    parent: int | None
    run: Run | None
    coro: Any  # what `get_coro()` returns, but set before the task is complete
    known_name: str | None

    @property
    def origin(self) -> Origin:
        """Where it came from."""
        return Origin._make(_origin_fields(self))

    def relocate(self, code: CodeType) -> None:
        """Make the first line of *code* the spawn site of this task."""
        self.code, self.instruction = code, 0

    def get_name(self) -> str:
        """Return its name, as `asyncio.Task.get_name` does."""
        self.known_name = name = super().get_name()
        return name

    def set_name(self, value: object) -> None:
        """Name it, as `asyncio.Task.set_name` does."""
        global renamed
        if value is not None:
            if getattr(self, "known_name", None) is not None:
                renamed += 1
            super().set_name(value)
            self.get_name()

    def cancel(self, msg: Any | None = None) -> bool:
        """Request cancellation, as `asyncio.Task.cancel` does, and tell the observers."""
        for observer in on_cancelled:
            try:
                observe = observer()
                if observe is not None and has_origin(self):
                    observe(self)
            except Exception:  # noqa: BLE001  an observer must not keep the user's code from cancelling
                _log.exception("an observer of cancelled tasks raised")
        return super().cancel(msg)

    def end_badly(self) -> None:
        """Report this failed task, to which nothing refers any more, to the observers.

        Called by the finalizer, in any thread.
        """
        for observe in on_failed:
            try:
                if has_origin(self):
                    observe(self)
            except Exception:  # noqa: BLE001  an observer in a finalizer must not raise
                _log.exception("an observer of failed tasks raised")

    __del__ = finalize


# Reprs begin with this name. The tests of asyncio and of others look for it.
TrackedTask.__name__ = asyncio.Task.__name__

#: Called with each failed task to which nothing refers any more, in the thread that has dropped it.
#: Process-wide, since a finalizer knows no session. Each observer removes itself when its session stops.
on_failed: list[Callable[[TrackedTask], object]] = []
#: Called with each task that is about to be cancelled, in the thread that cancels it. Process-wide, for the
#: same reason. Weak, since an observer may be dropped without notice. Empty while no widget is shown.
on_cancelled: list[WeakMethod[Callable[[TrackedTask], None]]] = []


#: How many times a task got another name after somebody had read or set its name. Process-wide, since a task
#: knows no session.
renamed = 0
#: Tasks that we have woken although the future that they waited for was not done. Process-wide, for the same
#: reason.
woken: WeakSet[asyncio.Task[Any]] = WeakSet()


def has_origin(task: asyncio.Task[Any]) -> TypeGuard[TrackedTask]:
    """Return True if *task* knows its origin. False for other classes, and if its spawn was interrupted."""
    return isinstance(task, TrackedTask) and hasattr(task, "run")  # the last of its slots to be set


#: The most births that are noted between two looks.
_MOST_BIRTHS = 1_000


class Spawned:
    """Notes of spawns, from Python 3.14 on. There, only a look at every task shows the new ones.

    Call everything in the loop's thread. Only `note` may be called from others.

    Attributes:
        is_noted: Not empty if further spawns tell nothing new. Always the same list.
        has_users: True if the user may have spawned a task since `forget_users`.
    """

    def __init__(self) -> None:
        self.is_noted: list[bool] = []
        self.has_users = False
        self._births: list[ref[asyncio.Task[Any]]] | None = None

    def note(self, task: asyncio.Task[Any], *, is_users: bool) -> None:
        """Note that *task* has been spawned, by the user or by the kernel."""
        self.has_users = self.has_users or is_users
        births = self._births
        if births is not None:
            births.append(ref(task))
            if len(births) > _MOST_BIRTHS:  # nobody looks, or a look at every task takes no longer
                self._births = None
        if self.has_users and self._births is None:
            self.is_noted[:] = [True]

    def forget_users(self) -> None:
        """Forget that the user has spawned a task, and note the next one."""
        self.has_users = False
        self.is_noted.clear()

    def take_births(self) -> list[ref[asyncio.Task[Any]]] | None:
        """Return the tasks spawned since this was last called; None if not all of them were noted."""
        births, self._births = self._births, []
        self.is_noted.clear()
        return births


class Ledger:
    """Notes about the tasks and cells of one loop.

    Attributes:
        numbers: Gives each task of the user's its number.
        kernels_numbers: The same for the kernel's own tasks: IPython's prompt spawns a dozen for each cell.
        runs: The executions of cells.
        untracked: Origins of tasks that our factories did not make. Such a task gets its number when it is
            first seen.
        shown: Numbers of tasks whose failure was reported while something still referred to them.
        spawned: Notes of spawns.
        places: By the numbers of live tasks: file and line at which they were waiting when their cell ended.
    """

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.kernels_numbers = itertools.count(FIRST_OF_KERNELS)
        self.runs = CellRuns()
        self.untracked: WeakKeyDictionary[asyncio.Task[Any], Origin] = WeakKeyDictionary()
        self.shown: set[int] = set()
        self.spawned = Spawned()
        self.places: dict[int, tuple[str, int]] = {}


# The ledgers outlive a session: a reload must not give a number twice, or report a failure twice.
_ledgers: WeakKeyDictionary[asyncio.AbstractEventLoop, Ledger] = WeakKeyDictionary()


def ledger_of(loop: asyncio.AbstractEventLoop) -> Ledger:
    """Return the ledger of *loop*; a new one at the first call. The loop's thread."""
    return _ledgers.setdefault(loop, Ledger())
