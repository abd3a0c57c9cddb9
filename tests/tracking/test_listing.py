"""The listing of live tasks: it says what a fresh one would say, and costs what has changed."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import tracemalloc
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopnb import _cpython, nesting
from loopnb.nesting import scope
from loopnb.records import CellRef
from loopnb.tracking import cells, listing, slicing
from loopnb.tracking.leaving import end_with
from loopnb.tracking.listing import Listing
from loopnb.tracking.suspended import frames_of
from loopnb.tracking.tracked import FIRST_OF_KERNELS
from loopnb.tracking.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
    from contextvars import Context

    from loopnb.records import TaskDelta, TaskRecord

#: None is the tracker's own factory.
FACTORIES: dict[str, Any] = {
    "own": None,
    "user's": lambda loop, coro, **opts: asyncio.Task(coro, loop=loop, **opts),
}
if sys.version_info >= (3, 12):
    FACTORIES["eager"] = asyncio.eager_task_factory


@contextmanager
def tracked_loop(factory: Any = None) -> Iterator[tuple[asyncio.Runner, Tracker]]:
    """Give a loop that is tracked and on which blocking calls nest."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        loop.set_task_factory(factory)
        nesting.apply(loop)
        tracker = Tracker(
            loop,
            describe=lambda file, line, cell=None: f"{file.rpartition('/')[2]}:{line} of {cell}",
            is_kernels=lambda code: code.co_name == "kernels_own",
        )
        tracker.install()
        try:
            yield runner, tracker
        finally:
            tracker.remove()
            nesting.remove(loop)
            loop.set_task_factory(None)
    assert not scope.is_wanted()


class Odd:
    """A future of somebody else's, which takes no weak references."""

    __slots__ = ("_asyncio_future_blocking", "_future")

    def __init__(self) -> None:
        self._future = asyncio.get_running_loop().create_future()
        self._asyncio_future_blocking = False

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True
        yield self
        self._future.result()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._future, name)


class World:
    """What a random program does, and what it is shown of it.

    Args:
        tracker: The tracker of the loop.
        exact: Each look finds every task. If False, those made directly may be missing.
    """

    def __init__(self, tracker: Tracker, *, exact: bool) -> None:
        self.tracker = tracker
        self.exact = exact
        self.made: set[int] = set()  # the numbers of tasks made directly
        self.follower = tracker.listing.follow()
        self.shown: dict[int, TaskRecord] = {}
        self.tasks: list[asyncio.Task[Any]] = []
        self.events = [asyncio.Event() for _ in range(3)]
        self.odd = Odd()
        self.lock = asyncio.Lock()
        self.contexts: dict[str, Context] = {}
        self.runs = 0
        self.look: Iterator[None] | None = None

    # -- what tasks do ------------------------------------------------------------------------

    async def waits(self, number: int) -> None:
        await self.events[number].wait()

    async def waits_twice(self, number: int) -> None:
        await self.events[number].wait()
        await self.events[(number + 1) % 3].wait()
        async with self.lock:
            await self.events[(number + 2) % 3].wait()

    async def steps(self, number: int) -> None:
        for _ in range(number + 1):
            await asyncio.sleep(0)
        await self.waits(number)

    async def awaits(self, number: int) -> None:
        older = self.older()
        if older:
            await older[number % len(older)]

    async def gathers(self, number: int) -> None:
        await asyncio.gather(*self.older()[-number - 1 :], self.events[number].wait(), return_exceptions=True)

    async def spawns(self, number: int) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.waits(number))
            group.create_task(self.waits_twice(number))

    async def is_odd(self, _number: int) -> None:
        await self.odd

    async def generates(self, number: int) -> None:
        async for _ in self.generated(number):
            await self.events[number].wait()

    async def generated(self, number: int) -> AsyncIterator[None]:
        yield
        await self.waits(number)

    async def nests(self, number: int) -> None:
        await asyncio.sleep(0)  # an eager task's first step is its creator's
        asyncio.run(self.leaves(number))

    async def leaves(self, number: int) -> None:
        self.tasks.append(asyncio.create_task(self.waits((number + 1) % 3)))
        await self.events[number].wait()

    async def resists(self, number: int) -> None:
        while True:
            try:
                await self.events[number].wait()
            except asyncio.CancelledError:
                continue
            return

    async def kernels_own(self, number: int) -> None:
        await self.events[number].wait()

    def older(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that are older than the running one, so that none waits for itself."""
        current: Any = asyncio.current_task()
        return self.tasks[: self.tasks.index(current)] if current in self.tasks else []

    # -- what happens -------------------------------------------------------------------------

    def begin_cell(self, number: int) -> None:
        self.runs += 1
        cell = CellRef(f"cell {number}", self.runs)
        context = self.contexts[f"cell {number}"] = copy_context()
        context.run(cells.current_cell.set, cell)
        self.tracker.runs.begin(cell, context)

    def spawn(self, kind: str, number: int) -> None:
        context = self.contexts.get(f"cell {number}") or copy_context()
        coro = getattr(self, kind)(number)
        self.tasks.append(context.run(asyncio.create_task, coro))

    def make(self, number: int) -> None:
        task = asyncio.Task(self.waits(number))
        self.tasks.append(task)
        self.made.add(self.tracker.number_of(task))

    def cancel(self, number: int) -> None:
        if self.tasks:
            self.tasks[number % len(self.tasks)].cancel()

    def forget(self, number: int) -> None:
        ended = [task for task in self.tasks if task.done()]
        for task in ended[: number + 1]:
            self.tasks.remove(task)

    def rename(self, number: int) -> None:
        if self.tasks:
            self.tasks[number % len(self.tasks)].set_name(f"name {self.runs} {number}")

    def block(self, number: int) -> None:
        if self.tasks:
            self.tracker.note_block(self.tracker.number_of(self.tasks[number % len(self.tasks)]), 1.0)

    def set(self, number: int) -> None:
        self.events[number].set()
        self.events[number].clear()

    def end_odd(self, _number: int) -> None:
        if not self.odd._future.done():
            self.odd._future.set_result(None)
        self.odd = Odd()

    def look_a_little(self, number: int) -> None:
        if self.look is None:
            self.look = self.tracker.listing.slices()
        for _ in range(4**number):
            if next(self.look, self) is self:
                self.look = None
                return

    def abandon(self, _number: int) -> None:
        self.look = None

    def see(self) -> None:
        """Apply what has changed, and compare it with what a fresh listing says."""
        if self.exact:
            self.tracker.listing.look()
        delta = self.follower.look()
        self.apply(delta)
        fresh = Listing(self.tracker._loop, self.tracker, self.tracker.codes)
        fresh.look()
        missing = set() if self.exact else self.made.difference(self.shown)
        expected = {number: record for number, record in fresh.records.items() if number not in missing}
        assert comparable(self.shown) == comparable(expected)
        assert self.shown == self.tracker.listing.records
        for number, record in self.shown.items():
            task = fresh.task(number)
            assert task is not None
            assert comparable({number: self.tracker.record(task)}) == comparable({number: record})

    def apply(self, delta: TaskDelta) -> None:
        self.shown |= delta.changed
        for number in delta.gone:
            self.shown.pop(number, None)


def comparable(records: dict[int, TaskRecord]) -> dict[int, tuple[Any, ...]]:
    """Return the records without the instants of their waits, which depend on when one first looked."""
    return {
        number: (*record._replace(waiting_since=None), record.waiting_since is None)
        for number, record in records.items()
    }


KINDS = (
    "waits", "waits_twice", "steps", "awaits", "gathers", "spawns", "is_odd", "generates", "nests", "resists",
    "kernels_own",
)  # fmt: skip
NUMBERS = st.integers(0, 2)
#: Each step, and whether somebody sees the listing after it.
STEPS = st.tuples(
    st.one_of(
        st.tuples(st.just("spawn"), st.sampled_from(KINDS), NUMBERS),
        st.tuples(
            st.sampled_from(["set", "cancel", "rename", "begin_cell", "block", "forget", "end_odd", "make"]),
            NUMBERS,
        ),
        st.tuples(st.sampled_from(["look_a_little", "abandon"]), NUMBERS),
        st.tuples(st.just("turn"), NUMBERS),
    ),
    st.booleans(),
)


async def carry_out(tracker: Tracker, program: list[tuple[Any, ...]], *, exact: bool = True) -> None:
    world = World(tracker, exact=exact)
    try:
        for (name, *arguments), is_seen in program:
            if name == "turn":
                for _ in range(arguments[0] + 1):
                    await asyncio.sleep(0)
            else:
                getattr(world, name)(*arguments)
            if is_seen:
                world.see()
        await asyncio.sleep(0)
        world.see()
    finally:
        while left := [task for task in tracker.live(kernels=True) if task is not asyncio.current_task()]:
            for task in left:
                task.cancel()
            for event in world.events:
                event.set()
            world.end_odd(0)
            await asyncio.sleep(0)
        await asyncio.gather(*world.tasks, return_exceptions=True)


@pytest.fixture
def tiny_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """End a slice after each task."""
    monkeypatch.setattr(slicing, "SLICE_S", -1.0)
    for name in ("_AT_ONCE", "_ASKED_AT_ONCE", "_NAMED_AT_ONCE"):
        monkeypatch.setattr(listing, name, 1)
    monkeypatch.setattr(_cpython, "_SOME", 1)


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "inexact"])
@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.usefixtures("tiny_slices")
@given(program=st.lists(STEPS, min_size=5, max_size=50))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_the_deltas_applied_give_what_a_fresh_listing_gives(
    factory: str, exact: bool, program: list[tuple[Any, ...]]
) -> None:
    with tracked_loop(FACTORIES[factory]) as (runner, tracker):
        runner.run(carry_out(tracker, program, exact=exact))


def unseen(*steps: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Return steps after which nobody sees the listing."""
    return [(step, False) for step in steps]


#: What changes a record though its task has not moved, and what moves a task in unusual ways.
PROGRAMS = {
    "a new name": [*unseen(("spawn", "waits", 0)), (("turn", 0), True), (("rename", 0), True)],
    "a new name of what is awaited": [
        *unseen(("spawn", "waits", 0), ("spawn", "awaits", 0)),
        (("turn", 1), True),
        (("rename", 0), True),
    ],
    "a block of the loop": [*unseen(("spawn", "waits", 0)), (("turn", 0), True), (("block", 0), True)],
    "a cell that is run again": [
        *unseen(("begin_cell", 0), ("spawn", "waits", 0)),
        (("turn", 0), True),
        (("begin_cell", 0), True),
    ],
    "a run that ends": [
        *unseen(("spawn", "nests", 0), ("turn", 2)),
        (("turn", 2), True),
        (("set", 0), True),
        (("turn", 2), True),
    ],
    "a gather that waits for one less": [
        *unseen(("spawn", "waits", 1), ("spawn", "waits", 2), ("spawn", "gathers", 0)),
        (("turn", 2), True),
        (("set", 2), False),
        (("turn", 2), True),
    ],
    "a future that takes no weak references": [
        *unseen(("spawn", "is_odd", 0)),
        (("turn", 0), True),
        *unseen(("end_odd", 0)),
        (("turn", 1), True),
    ],
    "a look that is abandoned": [
        *unseen(("begin_cell", 0), ("spawn", "waits", 0), ("spawn", "waits", 1)),
        (("turn", 0), True),
        *unseen(("begin_cell", 0), ("look_a_little", 0), ("abandon", 0)),
        (("rename", 0), True),
    ],
    "births in a look that is abandoned": [
        *unseen(*[("spawn", "waits", 0)] * 9, ("turn", 0), ("look_a_little", 2), ("abandon", 0)),
        (("turn", 0), True),
    ],
    "a look in the middle of another": [
        *unseen(*[("spawn", "waits", 0)] * 9, ("turn", 0), ("look_a_little", 2)),
        (("spawn", "waits", 1), True),
        *unseen(("cancel", 1), ("turn", 1), ("look_a_little", 2)),
        (("look_a_little", 2), True),
    ],
}


@pytest.mark.usefixtures("tiny_slices")
@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("change", PROGRAMS)
def test_a_record_follows(change: str, factory: str) -> None:
    with tracked_loop(FACTORIES[factory]) as (runner, tracker):
        runner.run(carry_out(tracker, PROGRAMS[change]))


async def waits_on_one_line(event: asyncio.Event) -> None:
    await event.wait()


async def waits_on_two_lines(event: asyncio.Event) -> None:
    await asyncio.sleep(0)
    await event.wait()


def turn(loop: asyncio.AbstractEventLoop) -> None:
    """Make some passes of the loop."""
    for _ in range(5):
        loop.call_soon(loop.stop)
        loop.run_forever()


@pytest.mark.parametrize(("fn", "most"), [(waits_on_one_line, 50), (waits_on_two_lines, 700)])
def test_a_look_leaves_no_frame_where_the_line_is_known(
    fn: Callable[[asyncio.Event], Coroutine[Any, Any, None]], most: int
) -> None:
    """A frame object takes 450 to 550 bytes."""
    with tracked_loop() as (runner, tracker):
        loop, event = runner.get_loop(), asyncio.Event()
        tasks: list[asyncio.Task[None]] = []

        def spawn(count: int) -> None:
            tasks.extend(loop.create_task(fn(event)) for _ in range(count))
            turn(loop)
            for task in tasks:
                task.get_name()

        def look() -> None:
            fresh = Listing(loop, tracker, tracker.codes)
            fresh.look()
            assert len(fresh.records) == len(tasks)

        spawn(10)
        look()  # pay what is paid only once
        spawn(500)
        gc.collect()
        tracemalloc.start()
        before, _peak = tracemalloc.get_traced_memory()
        look()
        gc.collect()
        after, _peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        event.set()
        turn(loop)

    assert (after - before) / 500 < most


def test_nothing_of_the_users_is_kept_alive() -> None:
    namespace: dict[str, Any] = {}
    exec("async def waits(event): await event.wait()", namespace)
    with tracked_loop() as (runner, tracker):
        loop, event = runner.get_loop(), asyncio.Event()
        task = loop.create_task(namespace["waits"](event))
        turn(loop)
        tracker.listing.look()
        follower = tracker.listing.follow()
        assert len(follower.take().changed) == 1
        kept = [ref(task), ref(namespace["waits"].__code__), ref(task.get_coro())]
        task.cancel()
        turn(loop)
        del task
        namespace.clear()
        tracker.history.resize(finished=0, failed=0)  # it keeps coroutines
        gc.collect()

        assert [known() for known in kept] == [None, None, None]
        assert follower.look().gone == frozenset({1})
        assert not tracker.listing.records


def test_a_record_that_says_the_same_is_the_same_object() -> None:
    with tracked_loop() as (runner, tracker):
        loop, event = runner.get_loop(), asyncio.Event()
        tasks = [loop.create_task(waits_on_two_lines(event)) for _ in range(3)]
        turn(loop)
        follower = tracker.listing.follow()
        first = follower.look()
        for count in range(2):
            tracker.runs.begin(CellRef("a", count), copy_context())

        assert first
        assert not follower.look()
        assert all(tracker.listing.records[number] is record for number, record in first.changed.items())
        event.set()
        turn(loop)
        assert all(task.done() for task in tasks)


def test_a_task_that_was_woken_by_hand_is_looked_at_again() -> None:
    """Interrupts wake a task though the future that it waits for is not done."""
    with tracked_loop() as (runner, tracker):
        loop, event = runner.get_loop(), asyncio.Event()
        task = loop.create_task(waits_on_one_line(event))
        turn(loop)
        follower = tracker.listing.follow()
        assert len(follower.look().changed) == 1

        assert end_with(task, LookupError())
        turn(loop)
        assert isinstance(task.exception(), LookupError)
        assert follower.look().gone == frozenset({1})


def test_a_task_that_is_lost_is_gone() -> None:
    with tracked_loop() as (runner, tracker):
        loop = runner.get_loop()
        future = loop.create_future()
        loop.set_exception_handler(lambda _loop, _context: None)

        async def waits() -> None:
            await future

        loop.create_task(waits())
        turn(loop)
        follower = tracker.listing.follow()
        assert len(follower.look().changed) == 1
        callback: Any
        for callback, _context in list(future._callbacks):
            future.remove_done_callback(callback)
            if sys.version_info >= (3, 14):
                asyncio.future_discard_from_awaited_by(future, callback.__self__)
        del callback
        gc.collect()

        assert follower.look().gone == frozenset({1})


def test_any_thread_may_outdate_a_record() -> None:
    with tracked_loop() as (runner, tracker):
        loop, event = runner.get_loop(), asyncio.Event()
        task = loop.create_task(waits_on_one_line(event))
        turn(loop)
        tracker.listing.look()
        asyncio.Task.set_name(task, "set behind the back")
        task.known_name = "set behind the back"  # type: ignore[attr-defined]  # it is a tracked one
        tracker.listing.look()
        assert tracker.listing.records[1].name != "set behind the back"

        thread = threading.Thread(target=tracker.listing.outdate, args=[1])
        thread.start()
        thread.join()
        tracker.listing.look()

        assert tracker.listing.records[1].name == "set behind the back"
        event.set()
        turn(loop)


def test_a_wait_is_dated_from_when_it_was_first_seen() -> None:
    with tracked_loop() as (runner, tracker):
        loop, event = runner.get_loop(), asyncio.Event()
        other = loop.create_task(waits_on_one_line(event))
        turn(loop)
        tracker.listing.look()
        number = tracker.number_of(other)
        since = tracker.listing.records[number].waiting_since
        tracker.listing.outdate(number)
        other.set_name("another record")
        tracker.listing.look()

        assert tracker.listing.records[number].waiting_since == since
        assert tracker.record(other).waiting_since == since
        event.set()
        turn(loop)


def test_a_task_is_found_by_its_number_at_once() -> None:
    with tracked_loop() as (runner, tracker):
        loop, event = runner.get_loop(), asyncio.Event()
        tasks = [loop.create_task(waits_on_one_line(event)) for _ in range(3)]
        turn(loop)

        assert tracker.find(2) is tasks[1]
        tracker.listing.look()
        assert tracker.listing.task(2) is tasks[1]
        assert tracker.find(2) is tracker.find("2") is tracker.find("#2") is tasks[1]
        event.set()
        turn(loop)
        assert tracker.listing.task(2) is None


LINES = """
import asyncio, types

@types.coroutine
def generator(event):
    yield from event.wait()

async def calls_over_lines(event):
    await asyncio.wait_for(
        event.wait(),
        60,
    )

async def one_line(event): await event.wait(); await event.wait()

async def in_blocks(event):
    async with asyncio.timeout(60) as cm, asyncio.Lock():
        async for _ in generated(event):
            pass

async def generated(event):
    yield 1
    await event.wait()
    yield 2

async def in_a_comprehension(event):
    return [await event.wait() for _ in range(2)]

async def through_a_generator(event):
    await generator(event)

async def at_the_end_of_a_group(event):
    async with asyncio.TaskGroup() as group:
        group.create_task(event.wait())
"""
_NAMESPACE: dict[str, Any] = {}
exec(compile(LINES, "lines.py", "exec"), _NAMESPACE)


@pytest.mark.parametrize(
    "name",
    [
        "calls_over_lines", "one_line", "in_blocks", "in_a_comprehension", "through_a_generator",
        "at_the_end_of_a_group",
    ],
)  # fmt: skip
def test_the_line_is_the_one_that_the_frame_tells(name: str) -> None:
    with tracked_loop() as (runner, tracker):
        loop, event = runner.get_loop(), asyncio.Event()
        task = loop.create_task(_NAMESPACE[name](event))
        begins = tracker.record(task).waits_at
        turn(loop)
        said = tracker.record(task).waits_at
        frames = [frame for frame in frames_of(task.get_coro()) if frame.f_code.co_filename == "lines.py"]

        assert begins.endswith(f"lines.py:{_NAMESPACE[name].__code__.co_firstlineno} of None")
        assert said.endswith(f"lines.py:{frames[-1].f_lineno} of None")
        event.set()
        turn(loop)


def test_a_follower_is_told_of_ended_tasks_that_something_still_refers_to() -> None:
    with tracked_loop() as (runner, tracker):
        loop = runner.get_loop()
        held, dropped = (loop.create_task(asyncio.sleep(0)) for _ in range(2))
        number = tracker.number_of(held)
        follower = tracker.listing.follow()
        follower.look()
        del dropped
        for _ in range(3):
            turn(loop)
        gc.collect()
        follower.look()
        found = {key: task_ref() for key, task_ref in follower.take_ended().items()}

        assert held.done()
        assert found.pop(number) is held
        assert follower.take_ended() == {}
        assert tracker.held()[number]() is held


def test_a_follower_finds_the_tasks_that_the_loop_was_asked_to_make() -> None:
    with tracked_loop() as (runner, tracker):
        loop, event = runner.get_loop(), asyncio.Event()
        follower = tracker.listing.follow()
        follower.look()
        tasks = [loop.create_task(waits_on_one_line(event)) for _ in range(3)]
        del tasks[0]  # its loop keeps it
        ended = loop.create_task(asyncio.sleep(0))
        ended.cancel()
        turn(loop)
        del ended

        assert len(follower.look().changed) == 3
        event.set()
        turn(loop)
        assert len(follower.look().gone) == 3


def test_a_task_that_was_made_directly_is_found_at_once_by_an_exact_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tracked_loop() as (runner, tracker):
        loop, event = runner.get_loop(), asyncio.Event()
        follower = tracker.listing.follow()
        follower.look()
        tasks = [asyncio.Task(waits_on_one_line(event), loop=loop)]
        turn(loop)
        tracker.listing.look()
        assert len(follower.take().changed) == 1

        # By a follower, it is found when that looks for such tasks the next time.
        tasks.append(asyncio.Task(waits_on_one_line(event), loop=loop))
        turn(loop)
        monkeypatch.setattr(listing, "SEARCH_S", -1.0)
        tracker.listing.look()
        tasks.append(asyncio.Task(waits_on_one_line(event), loop=loop))
        turn(loop)
        assert len(follower.look().changed) == 2
        event.set()
        turn(loop)


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_kernels_own_tasks_do_not_count_among_the_users(factory: str) -> None:
    async def kernels_own() -> None:
        await asyncio.sleep(0)

    async def users() -> None:
        await asyncio.sleep(0)

    async def main() -> tuple[list[int], list[int]]:
        own: list[asyncio.Task[None]] = []
        yours: list[asyncio.Task[None]] = []
        for _ in range(3):  # the later ones are spawned at known places
            own.append(asyncio.create_task(kernels_own()))
            yours.append(asyncio.create_task(users()))
        numbers = list(map(tracker.number_of, own)), list(map(tracker.number_of, yours))
        await asyncio.gather(*own, *yours)
        return numbers

    with tracked_loop(FACTORIES[factory]) as (runner, tracker):
        own, yours = runner.run(main())

    assert yours == [2, 3, 4]  # the first is that of `main`
    assert own == [FIRST_OF_KERNELS, FIRST_OF_KERNELS + 1, FIRST_OF_KERNELS + 2]


def test_more_spawns_than_are_noted_are_all_found() -> None:
    with tracked_loop() as (runner, tracker):
        loop, event = runner.get_loop(), asyncio.Event()
        follower = tracker.listing.follow()
        follower.look()
        tasks = [loop.create_task(waits_on_one_line(event)) for _ in range(1_200)]
        turn(loop)

        assert len(follower.look().changed) == len(tasks)
        event.set()
        turn(loop)


@pytest.mark.usefixtures("tiny_slices")
def test_a_look_in_slices_finds_every_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cpython, "_SOME", 7)
    with tracked_loop() as (runner, tracker):
        loop, event = runner.get_loop(), asyncio.Event()
        tasks = [loop.create_task(waits_on_one_line(event)) for _ in range(50)]
        turn(loop)
        for _ in tracker.listing.slices():
            pass

        assert set(map(tracker.number_of, tasks)) <= tracker.listing.records.keys()
        event.set()
        turn(loop)


@pytest.mark.usefixtures("tiny_slices")
@pytest.mark.parametrize("slices", [1, 2, 5, 10])
def test_tasks_may_end_between_the_slices_that_find_them(
    slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cpython, "_SOME", 7)
    with tracked_loop() as (runner, tracker):
        loop, event, ended = runner.get_loop(), asyncio.Event(), asyncio.Event()
        tasks = [loop.create_task(waits_on_one_line((event, ended)[index % 2])) for index in range(50)]
        turn(loop)
        look = tracker.listing.slices()
        for _ in range(slices):
            next(look)
        ended.set()
        turn(loop)
        del tasks[1::2]
        for _ in look:
            pass

        living = set(map(tracker.number_of, tasks))
        assert living <= tracker.listing.records.keys()
        tracker.listing.look()
        assert living == tracker.listing.records.keys()
        event.set()
        turn(loop)


def test_a_look_that_is_abandoned_loses_no_task(tiny_slices: None) -> None:
    with tracked_loop() as (runner, tracker):
        loop, event = runner.get_loop(), asyncio.Event()
        follower = tracker.listing.follow()
        follower.look()
        tasks = [loop.create_task(waits_on_one_line(event)) for _ in range(10)]
        turn(loop)
        look = tracker.listing.slices()
        next(look)
        next(look)
        del look

        assert len(follower.look().changed) == len(tasks)
        event.set()
        turn(loop)


def test_a_look_that_is_abandoned_loses_no_new_name(tiny_slices: None) -> None:
    with tracked_loop() as (runner, tracker):
        loop, event = runner.get_loop(), asyncio.Event()
        tasks = [loop.create_task(waits_on_one_line(event), name="old") for _ in range(10)]
        turn(loop)
        tracker.listing.look()
        for task in tasks:
            task.set_name("new")
        look = tracker.listing.slices()
        while "new" not in {record.name for record in tracker.listing.ordered()}:
            next(look)
        del look
        tracker.listing.look()

        assert {record.name for record in tracker.listing.ordered()} == {"new"}
        event.set()
        turn(loop)
