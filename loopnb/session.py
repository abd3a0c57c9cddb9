"""The session of one shell: it starts and stops loopnb's parts in order, and answers for them."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
import uuid
from contextlib import ExitStack
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from loopnb.errors import NestingError, NotLoadedError
from loopnb.frames import users_frames
from loopnb.loop._cpython import before_threads_are_joined
from loopnb.loop.deadline import Deadline, OwnDeadline
from loopnb.loop.forever import place_of
from loopnb.nesting._cpython import running_loop
from loopnb.nesting.entry_points import cancel_unwaited, run_nested, submitting
from loopnb.nesting.fatal import CapturedFatal, capture_fatal
from loopnb.nesting.other_loops import set_aside_by
from loopnb.nesting.refusals import beside_other_loop
from loopnb.nesting.scope import engine_for, engine_of, is_off
from loopnb.records import LoopState, Snapshot
from loopnb.tracking import graph
from loopnb.tracking.chains import awaited_by
from loopnb.tracking.details import detail_of
from loopnb.tracking.failures import Failures
from loopnb.tracking.holding import Holds, end_task
from loopnb.tracking.slicing import SlicePace
from loopnb.views import TaskList
from loopnb.watch.checks import LONG_WAIT_S, examine
from loopnb.watch.deadlocks import DeadlockWatch
from loopnb.watch.doctor import Doctor, count_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable

    from loopnb.loop.healing import Healer
    from loopnb.loop.owner import LoopOwner
    from loopnb.nesting.engine import Handoff
    from loopnb.nesting.second_engine import EngineName, NestingChoice
    from loopnb.records import AwaitGraph, CellRef, Finding, LoopCondition, TaskRecord, WaitDetail
    from loopnb.settings import LoopNB
    from loopnb.tracking.tracker import Tracker
    from loopnb.watch.checks import Facts, Spin
    from loopnb.watch.doctor import Notebook
    from loopnb.watch.watch import Watch

T = TypeVar("T")

#: With more live tasks than this, the await graph is made in slices.
_MANY = 500

#: The sessions that are loaded, the newest last. `loopnb.run()` and its kin take no shell as an argument, so
#: they use the newest session.
_current: list[Session] = []


def current(what: str = "status") -> Session:
    """Return the newest loaded session. Any thread.

    Args:
        what: The public function that needs the session, for the error.

    Raises:
        NotLoadedError: No session is loaded.
    """
    if not _current:
        raise NotLoadedError(what)
    return _current[-1]


def _every(_cell: CellRef | None) -> bool:
    return True


class ExecutingCells(Protocol):
    """Knows which cells execute now. Any thread may ask."""

    @property
    def ended(self) -> int:
        """How many cells have ended."""

    @property
    def executing(self) -> CellRef | None:
        """The outermost cell that executes in the main thread."""

    @property
    def executing_since(self) -> float | None:
        """When that cell began, in monotonic seconds."""

    def is_executing(self, cell: CellRef | None) -> bool:
        """Return True if *cell* executes, in any thread; for None, if any cell does."""


class Widget(Protocol):
    """What a session needs from its widget."""

    fault: str | None

    def end(self, why: str) -> None:
        """Show nothing more, and say why: `unloaded`, `restarted` or `shut down`. Any thread."""

    def show(self) -> None:
        """Display it in the current cell. The loop's thread."""

    def show_table(self) -> None:
        """Display in the current cell a table alone, which needs no kernel. The loop's thread."""


class Session:
    """The loop, its nesting and its tasks, for one shell.

    Args:
        owner: Owns the persistent loop. Make the session in the thread of that loop.
        tracker: Tracks the tasks of that loop.
        nesting: Chooses the engine of that loop.
        healer: Repairs what cells break around the loop.
        watch: Watches the loop.
        cells: Knows which cells execute.
        settings: The user's settings.
        notebook: What the doctor asks of the notebook.
        is_service_thread: Returns True if the calling thread is one of the kernel's own.
        make_widget: Makes a widget of this session, given its height and whether it groups tasks.

    Attributes:
        epoch: Unique name of this session. After a reload it is another.
        failures: Finds the failures that nobody has seen.
        holds: Holds context managers across cells.
        deadlocks: Looks for deadlocks.
        doctor: Says what is wrong.
        describe: Formats file and line for people.
    """

    def __init__(
        self,
        owner: LoopOwner,
        *,
        tracker: Tracker,
        nesting: NestingChoice,
        healer: Healer,
        watch: Watch,
        cells: ExecutingCells,
        settings: LoopNB,
        notebook: Notebook,
        is_service_thread: Callable[[], bool],
        make_widget: Callable[[Session, int | None, bool], Widget],
    ) -> None:
        self.epoch = uuid.uuid4().hex
        self.owner = owner
        self.tracker = tracker
        self.nesting = nesting
        self.healer = healer
        self.watch = watch
        self.settings = settings
        self.describe = tracker.describe
        self.failures = Failures(
            owner.loop,
            is_ignored=tracker.is_kernels_own,
            is_executing=cells.is_executing,
            delay=self._report_delay,
        )
        self.holds = Holds(owner.loop, self.failures, tracker.runs)
        self.deadlocks = DeadlockWatch(tracker)
        self.doctor = Doctor(owner.loop, tracker, watch, self.failures, self.deadlocks, notebook)
        self._cells = cells
        self._is_service_thread = is_service_thread
        self._make_widget = make_widget
        self._widgets: dict[tuple[int | None, bool], Widget] = {}
        self._parts = ExitStack()
        self._kept: set[asyncio.Task[Any]] = set()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The persistent loop."""
        return self.owner.loop

    @property
    def engine(self) -> Handoff | None:
        """The nesting engine of the persistent loop; None if there is none."""
        return engine_of(self.loop)

    @property
    def cell(self) -> CellRef | None:
        """The cell that executes in the main thread; None between cells. Any thread."""
        return self._cells.executing

    @property
    def cell_since(self) -> float | None:
        """When the cell that executes began, in monotonic seconds; None between cells. Any thread."""
        return self._cells.executing_since

    @property
    def cells_ended(self) -> int:
        """How many cells have ended. Any thread."""
        return self._cells.ended

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes to show with the status, each a sentence. Any thread."""
        return (*self.healer.notes(), *self.tracker.notes(), *self.watch.notes())

    def start(self) -> None:
        """Start nesting, tracking and watching, or none of them if one raises. The loop's thread."""
        with ExitStack() as parts:
            self._start(parts)
            self._parts = parts.pop_all()

    def _start(self, parts: ExitStack) -> None:
        self._set_order()
        self.settings.observe(self._set_order, ["nesting_order"])
        parts.callback(self.settings.unobserve, self._set_order, ["nesting_order"])
        # Each `stop` is registered before its `start`: it also undoes a `start` that has failed halfway.
        parts.callback(self.nesting.stop)
        self.nesting.start()
        parts.enter_context(submitting(self._is_service_thread, self._submit))
        parts.callback(self.tracker.remove)
        self.tracker.install()
        self._resize()
        self.settings.observe(self._resize, ["finished_kept", "failed_kept"])
        parts.callback(self.settings.unobserve, self._resize, ["finished_kept", "failed_kept"])
        parts.enter_context(before_threads_are_joined(self.owner.end))
        parts.callback(self.watch.stop)
        self._set_blocked_after()
        self.settings.observe(self._set_blocked_after, ["blocked_after"])
        parts.callback(self.settings.unobserve, self._set_blocked_after, ["blocked_after"])
        _current.append(self)
        parts.callback(_current.remove, self)

    def stop(self) -> None:
        """Take back all that `start` did, and end the widgets. The user's tasks go on. The loop's thread."""
        self.end_widgets("unloaded")
        self._parts.close()

    def end_widgets(self, why: str) -> None:
        """Have the widgets say why they show nothing more. Any thread. See `Widget.end`."""
        widgets, self._widgets = self._widgets, {}
        for widget in widgets.values():
            widget.end(why)

    def widget(self, *, height: int | None = None, group: bool = True) -> Widget:
        """Return the widget of this session, made when it is first asked for. The loop's thread.

        Args:
            height: Its height in CSS pixels; None lets it grow with its rows.
            group: Tasks that wait at one place are one row.
        """
        widget = self._widgets.get((height, group))
        if widget is None or widget.fault is not None:
            widget = self._widgets[height, group] = self._make_widget(self, height, group)
        return widget

    @property
    def widget_fault(self) -> str | None:
        """Why a widget has stopped; None if all work, or none was ever shown."""
        return next((widget.fault for widget in self._widgets.values() if widget.fault is not None), None)

    def switch_nesting(self, name: EngineName) -> list[str]:
        """Use another nesting engine; see `NestingChoice.switch`. Any thread: a subshell may ask for it."""
        return self.owner.call(self._switch_nesting, name)

    def _switch_nesting(self, name: EngineName) -> list[str]:
        # Engine and tracker each install a task factory. The tracker's is on top, so it comes off first.
        self.tracker.remove()
        try:
            return self.nesting.switch(name)
        finally:
            self.tracker.install()

    def _report_delay(self) -> float:
        return float(self.settings.report_after)

    def _set_order(self, _change: object = None) -> None:
        self.nesting.set_order(lifo=self.settings.nesting_order == "lifo")

    def _resize(self, _change: object = None) -> None:
        self.tracker.history.resize(finished=self.settings.finished_kept, failed=self.settings.failed_kept)

    def _set_blocked_after(self, _change: object = None) -> None:
        self.watch.set_blocked_after(float(self.settings.blocked_after))

    # -- running ------------------------------------------------------------------------------

    def run(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        timeout: float | None = None,
        name: str | None = None,
        context: Context | None = None,
    ) -> T:
        """Run *coro* on the persistent loop and return its result; see `loopnb.run`.

        Args:
            coro: The coroutine.
            timeout: As for `loopnb.run`.
            name: The name of its task.
            context: The Context that it runs in if the caller is inside the loop; None for a copy of the
                caller's. With the nest-asyncio engine it cannot be the caller's own.
        """
        _check_coroutine(coro, "run")
        try:
            _check_timeout(timeout)
        except (TypeError, ValueError):
            coro.close()
            raise
        if self.owner.is_inside():
            task = None
            try:
                task = self.spawn(coro, name=name, context=context)
                return self._wait_inside(task, timeout)
            except BaseException:
                cancel_unwaited(self.loop, coro, task)
                raise
        if running_loop() is not None and not self._is_service_thread():
            coro.close()
            raise beside_other_loop(is_home=self.owner.is_home())
        if self.owner.is_home() and not self.loop.is_running():
            return self._wait_outside(self.spawn(coro, name=name), timeout)
        return self._run_from_thread(coro, timeout, name)

    def spawn(
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        """Start *coro* as a task of the persistent loop; see `loopnb.spawn`.

        Args:
            coro: The coroutine.
            name: The name of the task.
            context: The Context that it runs in; None for a copy of the caller's.
        """
        _check_coroutine(coro, "spawn")
        task: asyncio.Task[T] = self.owner.call(self._create_kept_task, coro, name, context)
        return task

    def _create_kept_task(
        self, coro: Coroutine[Any, Any, T], name: str | None, context: Context | None
    ) -> asyncio.Task[T]:
        """Create a task that is not lost if nothing else refers to it: asyncio itself keeps none."""
        task = self._create_task(coro, name, context)
        if not task.done():  # an eager one may be
            self._kept.add(task)
            task.add_done_callback(self._kept.discard, context=Context())
        return task

    def _create_task(
        self, coro: Coroutine[Any, Any, T], name: str | None, context: Context | None = None
    ) -> asyncio.Task[T]:
        options: dict[str, Any] = {} if name is None else {"name": name}
        if context is not None:
            options["context"] = context
        return self.loop.create_task(coro, **options)

    def is_kept(self, task: asyncio.Task[Any]) -> bool:
        """Return True if *task* lives and was started by `spawn`. The loop's thread."""
        return task in self._kept

    async def hold(self, manager: Any, name: str | None) -> Any:
        """Enter *manager* in a task of its own, and return the value of entering it; see `loopnb.hold`."""
        self._check_holding()
        return await self.holds.hold(manager, name)

    async def release(self, wanted: object) -> None:
        """Leave what is held under that name or value; see `loopnb.release`."""
        self._check_holding()
        await self.holds.release(wanted)

    def _check_holding(self) -> None:
        if not self.owner.is_inside():
            raise NestingError(
                "loopnb.hold() works on the notebook's loop, and this code runs on another",
                "Call loopnb.run(loopnb.hold(...)) in synchronous code, or use a plain cell.",
                doing="hold or release anything here",
            )

    def wait(self, task: asyncio.Task[T], timeout: float | None = None) -> T:
        """Wait for *task* and return its result. Inside the loop, that is a nested run. Any thread.

        A failed wait may cancel the task.
        """
        if self.owner.is_inside():
            return self._wait_inside(task, timeout)
        if not self.owner.is_home():
            return self._wait_from_thread(lambda: task, timeout)
        return self._wait_outside(task, timeout)

    def deadline(self, task: asyncio.Task[Any], timeout: float | None) -> Deadline:
        """Return a deadline that cancels *task*, on any loop, and says where the task was waiting."""
        return Deadline(task.get_loop(), task, timeout, self._where)

    def own_deadline(self, timeout: float | None) -> OwnDeadline:
        """Return a deadline for the running task, on any loop. The task itself ends in TimeoutError."""
        return OwnDeadline(timeout, self._where)

    def _wait_inside(self, task: asyncio.Task[T], timeout: float | None) -> T:
        if self.nesting.name == "off":
            task.cancel()
            switch = "" if self.nesting.cannot else "; '%loopnb nesting handoff' switches it on"
            remedy = f"Use `await`, or a plain %%aloop cell{switch}."
            raise NestingError(f"nesting is off: {self.nesting.reason}", remedy)
        with self.deadline(task, timeout):
            result: T = self.nesting.run(task)
        return result

    def _wait_outside(self, task: asyncio.Task[T], timeout: float | None) -> T:
        try:
            with self.deadline(task, timeout):
                return self.loop.run_until_complete(task)
        except KeyboardInterrupt:
            task.cancel()
            raise

    def _submit(self, coro: Coroutine[Any, Any, T]) -> T:
        return self._run_from_thread(coro, None, None)

    def _run_from_thread(self, coro: Coroutine[Any, Any, T], timeout: float | None, name: str | None) -> T:
        here = running_loop()
        if here is not None:
            # Before anything is sent to the notebook's loop, where the coroutine might begin at once.
            try:
                self._check_can_nest_on(here)
            except RuntimeError:
                coro.close()
                raise
        return self._wait_from_thread(lambda: self._create_task(capture_fatal(coro), name), timeout)

    def _check_can_nest_on(self, here: asyncio.AbstractEventLoop) -> None:
        """Raise NestingError if no nested run can begin on *here*, the running loop of a service thread."""
        if is_off(here):
            raise self.nesting.refusal_elsewhere()
        engine_for(here, "loopnb.run()")

    def _wait_from_thread(self, get_task: Callable[[], asyncio.Task[T]], timeout: float | None) -> T:
        """Wait, in another thread than the loop's, for the task that *get_task* returns on the loop.

        If the calling thread runs a loop itself, as the kernel's service threads do, that loop keeps turning.
        """

        async def awaited() -> T:
            task = get_task()
            try:
                with self.deadline(task, timeout):
                    return await task
            except BaseException as error:
                error.__traceback__ = users_frames(error.__traceback__)
                raise

        submitted = asyncio.run_coroutine_threadsafe(awaited(), self.loop)
        self.owner.owe(submitted)
        try:
            if (here := running_loop()) is None:
                value = submitted.result()
            else:
                value = run_nested(here, asyncio.wrap_future(submitted, loop=here))
        except BaseException:
            submitted.cancel()
            raise
        return CapturedFatal.unwrap(value)

    # -- looking ------------------------------------------------------------------------------

    def snapshot(self, most: int | None = None) -> Snapshot:
        """Return the loop's state and its live tasks. From another thread it waits for the loop to turn.

        Args:
            most: Include at most this many tasks, the oldest; None includes all.
        """
        return self.owner.call(self._snapshot, most)

    def _snapshot(self, most: int | None) -> Snapshot:
        self.tracker.listing.look()
        live = self.tracker.listing.ordered()
        shown = live[:most]
        clock_s = self.tracker.clock()
        return Snapshot(self.epoch, time.time(), clock_s, self.loop_state(), shown, len(live) - len(shown))

    def loop_state(self, *, looks_closely: bool = True) -> LoopState:
        """Return the loop's state. Any thread, but only in the loop's own thread does it name a deadlock.

        Args:
            looks_closely: Look for a deadlock, which may take 20 us for each task.
        """
        engine = self.engine
        condition, detail = self._condition()
        if not detail and looks_closely and self.owner.is_home():
            detail = self.deadlocks.text()
        return LoopState(
            kind=type(self.loop).__name__,
            condition=condition,
            detail=detail,
            generation=self.owner.generation,
            engine=self.nesting.name,
            parked=len(engine.waits) if engine is not None else 0,
            cell=self.cell,
            notes=self.notes,
            block=self.watch.latest(),
        )

    def await_graph(self) -> AwaitGraph:
        """Return who waits for whom. From another thread it waits for the loop to turn.

        Inside a running loop that nests, it lets the loop turn after every few milliseconds.
        """
        return self.in_slices(self.owner.call(graph.slices, self.tracker))

    def in_slices(self, steps: Generator[None, None, T]) -> T:
        """Go through *steps* in the loop's thread, and return what they return.

        Inside a running loop that nests, it lets the loop turn after every few milliseconds, if there are
        many tasks. From another thread it waits for the loop to turn.
        """
        many = len(self.tracker.listing.records) > _MANY
        if many and self.owner.is_home() and self.owner.is_inside() and self.nesting.name == "handoff":
            try:
                return self.run(_in_slices(steps))
            except NestingError:  # no stack can be parked here
                pass
        value: T = self.owner.call(graph.finish, steps)
        return value

    def wait_details(self, numbers: Iterable[int], found: AwaitGraph) -> dict[int, WaitDetail]:
        """Return what those live tasks wait for, by number. It lets the loop turn as `in_slices` does.

        Args:
            numbers: The numbers of the tasks.
            found: Who waits for whom.
        """
        return self.in_slices(self._wait_details(list(numbers), found))

    def _wait_details(
        self, numbers: list[int], found: AwaitGraph
    ) -> Generator[None, None, dict[int, WaitDetail]]:
        details: dict[int, WaitDetail] = {}
        live = self.tracker.listing.task
        for number in numbers:
            task = live(number)
            if task is not None:
                holders = [held for held in map(live, found.awaits.get(number, ())) if held is not None]
                details[number] = detail_of(self.tracker, task, holders)
            # The frame may stop here for long, and must keep no task alive.
            task = None
            holders = []
            yield
        return details

    def facts(self, long_wait_s: float = LONG_WAIT_S) -> Facts:
        """Gather what the doctor checks. From another thread it waits for the loop to turn.

        Inside a loop that nests, the loop turns three times meanwhile, or 300 times if a task seems to spin.

        Args:
            long_wait_s: A wait of more seconds counts as long.
        """
        spins: tuple[Spin, ...] | None = None
        can_wait = not self.loop.is_closed() and self.nesting.name != "off"
        if can_wait and (self.owner.is_inside() or running_loop() is None):
            with contextlib.suppress(NestingError):  # no stack can be parked here
                spins = self.run(count_steps(self.loop, self.tracker))
        return self.owner.call(self.doctor.facts, spins, long_wait_s)

    def diagnose(self, long_wait_s: float = LONG_WAIT_S) -> list[Finding]:
        """Return what is wrong, worst first; see `facts`."""
        return examine(self.facts(long_wait_s))

    def findings(self) -> list[Finding]:
        """Return findings that are known at once. From another thread it waits for the loop."""
        return self.owner.call(self.doctor.quick)

    def task_list(self, *, live: bool = True, finished: bool = False, kernels: bool = False) -> TaskList:
        """Return records of tasks, oldest first. From another thread it waits for the loop to turn."""
        return self.owner.call(self._task_list, live, finished, kernels)

    def _task_list(self, live: bool, finished: bool, kernels: bool) -> TaskList:
        records: list[TaskRecord] = []
        if live:
            self.tracker.listing.look()
            records += self.tracker.listing.ordered(kernels=kernels)
        if finished:
            records += [self.tracker.record_ended(ended) for ended in self.tracker.ended()]
            records.sort(key=lambda record: record.number)
        most = self.settings.rows_shown
        return TaskList(records, self.tracker.runs.every_run_of, self.tracker.clock(), most)

    def cancel(self, wanted: str | int) -> TaskRecord:
        """Cancel the live task with that name or number. Any thread.

        Returns:
            What the task was doing.

        Raises:
            TaskNotFoundError: No live task has that name or number.
        """
        return self.owner.call(self._cancel, wanted)

    def cancel_all(
        self, is_wanted: Callable[[CellRef | None], bool] = _every, *, name: str | None = None
    ) -> list[TaskRecord]:
        """Cancel the live tasks of some cells, but none that the caller is part of. Any thread.

        Args:
            is_wanted: Given the cell that spawned a task, returns True if that task is to be cancelled.
            name: Cancel only tasks of that name.

        Returns:
            What the tasks were doing.
        """
        return self.owner.call(self._cancel_all, is_wanted, name)

    def _cancel_all(self, is_wanted: Callable[[CellRef | None], bool], name: str | None) -> list[TaskRecord]:
        ours = self.waiting_for_caller()
        tasks = [
            task
            for task in (self.tracker.live() if name is None else self.tracker.named(name))
            if task not in ours and is_wanted(self.tracker.origin_of(task).cell)
        ]
        records = list(self.tracker.records_of(tasks))
        known: set[int] = set()
        for task in tasks:
            end_task(task, known)
        return records

    def waiting_for_caller(self) -> set[asyncio.Task[Any]]:
        """Return the running task and those that wait for it: cancelling any of them cancels the caller."""
        current = asyncio.current_task(self.loop)
        if current is None:
            return set()
        ours = {current}
        awaited = {task: awaited_by(task) for task in self.tracker.live()}
        while True:
            above = {
                task for task, below in awaited.items() if task not in ours and not ours.isdisjoint(below)
            }
            if not above:
                return ours
            ours |= above

    def cancel_number(self, number: int) -> TaskRecord:
        """Cancel the live task with that number, even if another has it as its name. Any thread."""
        return self.owner.call(self._cancel, number)

    def _cancel(self, wanted: str | int) -> TaskRecord:
        task = self.tracker.find(wanted)
        record = self.tracker.record(task)
        end_task(task)
        return record

    def _condition(self) -> tuple[LoopCondition, str]:
        if self.loop.is_closed():
            return "closed", ""
        aside = set_aside_by(self.loop)
        # Playwright's sync API leaves its loop to a later `%%noloop` cell, and this one runs meanwhile.
        if aside is not None and not self.owner.is_inside():
            return "set aside", f"set aside by {self.describe(*aside)}"
        engine = self.engine
        waits = [wait for wait in list(engine.waits) if wait.is_foreground] if engine is not None else []
        if waits:
            place = place_of(waits[-1].future)
            if place is None:
                return "nested", ""
            where = self.describe(*place, self.cell)
            return "nested", f"{where} waits in run_forever(); an interrupt ends it, and so does loop.stop()"
        if self.cell is not None:
            return "running", ""
        return "idle", ""

    def _where(self, task: asyncio.Task[Any]) -> str:
        return self.tracker.record(task).doing


async def _in_slices(steps: Generator[None, None, T]) -> T:
    pace = SlicePace()
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            value: T = stop.value
            return value
        if pace.is_over():
            await asyncio.sleep(0)
            pace.begin()


def _check_coroutine(coro: object, what: str) -> None:
    if inspect.iscoroutine(coro):
        return
    if inspect.iscoroutinefunction(coro):
        raise TypeError(
            f"loopnb.{what}() takes a coroutine, and {coro.__name__} is the function that makes "
            f"one. Call it: loopnb.{what}({coro.__name__}())."
        )
    raise TypeError(
        f"loopnb.{what}() takes a coroutine, such as main() of `async def main()`, not "
        f"{coro!r:.60} ({type(coro).__name__})."
    )


def _check_timeout(timeout: object) -> None:
    if timeout is not None and (not isinstance(timeout, int | float) or not timeout > 0):
        raise ValueError(f"timeout is {timeout!r}; it takes seconds above 0, or None to wait for ever.")
