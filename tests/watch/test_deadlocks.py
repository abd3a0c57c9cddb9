"""Tasks that can never go on are named, and nobody else is."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import threading
import types
from typing import TYPE_CHECKING, Any

import pytest

from loopnb import nesting
from loopnb.tracking import _cpython
from loopnb.tracking.tracker import Tracker
from loopnb.watch import deadlocks, reach
from loopnb.watch.reach import may_be_called_back
from tests.loops import FastLoop
from tests.watch.healthy import LookAtCells, alarms_in

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from loopnb.records import Deadlock


class Lab:
    """A tracked loop that is looked at from outside, between its passes.

    Args:
        loop: The loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.tracker = Tracker(
            loop,
            describe=lambda file, line, cell=None: f"{file.rpartition('/')[2]}:{line}",
            is_kernels=lambda _code: False,
        )
        self.tracker.install()
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a task, and let it run until it waits."""
        task = self.loop.create_task(coro, name=name)
        self._tasks.append(task)
        self.turn()
        return task

    def turn(self) -> None:
        """Let the loop make some passes."""
        self.loop.run_until_complete(_passes())

    def find(self) -> list[Deadlock]:
        """Return the deadlocks of this moment."""
        return deadlocks.find(self.tracker)

    def close(self) -> None:
        """Cancel all tasks."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            self.loop.run_until_complete(asyncio.wait(self._tasks))
        self.tracker.remove()


async def _passes() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A tracked loop. Threads of other fixtures, such as the one that talks to a kernel, do not count.

    Its time does not depend on how fast the machine is, so nor does what there is to see at each moment.
    """
    before, threads = {thread.ident for thread in threading.enumerate()}, _cpython.frames_of_threads
    monkeypatch.setattr(
        deadlocks,
        "frames_of_threads",
        lambda: {ident: frame for ident, frame in threads().items() if ident not in before},
    )
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        lab = Lab(runner.get_loop())
        yield lab
        lab.close()


# -- circles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 7])
def test_tasks_that_await_each_other_are_a_circle(lab: Lab, count: int) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def wait_for(index: int) -> None:
        await asyncio.wait([tasks[index]])

    async def begin() -> None:
        tasks.extend(
            lab.loop.create_task(wait_for((index + 1) % count), name=f"t{index}") for index in range(count)
        )

    lab.loop.run_until_complete(begin())
    lab.turn()
    (found,) = lab.find()
    for task in tasks:
        task.cancel()
    lab.turn()

    assert found.kind == "circle"
    assert len(found.numbers) == count
    assert "'t0' waits for task" in found.text
    assert lab.find() == []


def test_two_locks_taken_in_two_orders_are_a_circle(lab: Lab) -> None:
    first, second = asyncio.Lock(), asyncio.Lock()

    async def take(mine: asyncio.Lock, other: asyncio.Lock, go_on: asyncio.Event) -> None:
        async with mine:
            await go_on.wait()
            async with other:
                pass

    go_on = asyncio.Event()
    lab.start(take(first, second, go_on), "a")
    lab.start(take(second, first, go_on), "b")
    go_on.set()
    lab.turn()

    (found,) = lab.find()
    assert found.kind == "circle"
    assert found.text.count("needs the Lock other that task") == 2
    assert "'a'" in found.text
    assert "'b'" in found.text


def test_a_lock_that_its_holder_needs_again_is_a_circle(lab: Lab) -> None:
    lock = asyncio.Lock()

    async def take_twice() -> None:
        async with lock, lock:
            pass

    lab.start(take_twice(), "twice")

    (found,) = lab.find()
    assert found.kind == "circle"
    assert "'twice' needs the Lock lock that itself holds" in found.text


def test_a_circle_with_a_time_limit_is_none(lab: Lab) -> None:
    lock = asyncio.Lock()

    async def take_twice() -> None:
        async with lock, asyncio.timeout(600), lock:
            pass

    lab.start(take_twice(), "twice")

    assert lab.find() == []


def test_those_that_wait_for_a_slow_holder_are_no_circle(lab: Lab) -> None:
    lock = asyncio.Lock()

    async def hold() -> None:
        async with lock:
            await asyncio.sleep(600)

    async def need() -> None:
        async with lock:
            pass

    lab.start(hold(), "holder")
    for index in range(5):
        lab.start(need(), f"waiter {index}")

    assert lab.find() == []


def test_a_nested_run_that_needs_its_callers_lock_is_a_circle(lab: Lab) -> None:
    lock = asyncio.Lock()

    async def need() -> None:
        async with lock:
            pass

    async def hold() -> None:
        await asyncio.sleep(0)
        async with lock:
            asyncio.run(need())

    nesting.apply(lab.loop)
    try:
        holder = lab.start(hold(), "holder")
        (found,) = lab.find()
        holder.cancel()
        lab.turn()
    finally:
        nesting.remove()

    assert found.kind == "circle"
    assert "'holder' waits in a nested run for task" in found.text
    assert "needs the Lock lock that task" in found.text


# -- nobody can wake them -------------------------------------------------------------------------


class Jobs:
    """What tasks share. Only the tasks refer to it."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[int] = asyncio.Queue()
        self.lock = asyncio.Lock()
        self.ready = asyncio.Event()

    async def get(self) -> None:
        await self.queue.get()

    async def wait(self) -> None:
        await self.ready.wait()

    async def take_and_go(self) -> None:
        await self.lock.acquire()

    async def need(self) -> None:
        async with self.lock:
            pass

    async def fill(self) -> None:
        await asyncio.sleep(600)
        self.queue.put_nowait(1)


async def tick() -> None:
    while True:  # noqa: ASYNC110  a ticker
        await asyncio.sleep(0.01)


def test_workers_of_a_queue_that_nobody_fills_are_named(lab: Lab) -> None:
    jobs = Jobs()
    for index in range(3):
        lab.start(jobs.get(), f"worker {index}")
    lab.start(tick(), "ticker")

    (found,) = lab.find()
    assert found.kind == "starved"
    assert len(found.numbers) == 3
    assert found.text.startswith("nothing on this loop can wake these 3 tasks: task ")
    assert "wait for Queue.get of self.queue" in found.text


def test_a_lock_whose_holder_is_gone_is_named(lab: Lab) -> None:
    jobs = Jobs()
    lab.start(jobs.take_and_go(), "gone")
    lab.start(jobs.need(), "needy")
    lab.start(tick(), "ticker")

    (found,) = lab.find()
    assert found.kind == "lock"
    assert "'needy' waits for Lock self.lock, whose holder is gone" in found.text


def by_task(lab: Lab, jobs: Jobs) -> Callable[[], object]:
    """Have a task fill the queue."""
    return lab.start(jobs.fill(), "filler").cancel


def by_timer(lab: Lab, jobs: Jobs) -> Callable[[], object]:
    """Have a timer fill the queue."""
    return lab.loop.call_later(600, jobs.queue.put_nowait, 1).cancel


def by_global(lab: Lab, jobs: Jobs) -> Callable[[], object]:
    """Have a task fill the queue, that finds it by a global variable."""
    globals()["shared_jobs"] = jobs
    return lab.start(fill_by_global(), "filler").cancel


async def fill_by_global() -> None:
    await asyncio.sleep(600)
    shared_jobs.queue.put_nowait(1)  # type: ignore[name-defined]  # noqa: F821  set by the test


def by_thread(lab: Lab, jobs: Jobs) -> Callable[[], object]:
    """Have a thread fill the queue."""
    timer = threading.Timer(600, lab.loop.call_soon_threadsafe, (jobs.queue.put_nowait, 1))
    timer.start()

    def stop() -> None:
        timer.cancel()
        timer.join()

    return stop


def by_canceller(lab: Lab, _jobs: Jobs) -> Callable[[], object]:
    """Have a task that knows the worker, and may cancel it."""
    (worker,) = lab.tracker.live()

    async def cancel_later(task: asyncio.Task[Any]) -> None:
        await asyncio.sleep(600)
        task.cancel()

    return lab.start(cancel_later(worker), "canceller").cancel


def by_string(lab: Lab, jobs: Jobs) -> Callable[[], object]:
    """Have a task that may find anything."""
    globals()["shared_jobs"] = jobs

    async def find_and_fill() -> None:
        await asyncio.sleep(600)
        eval("shared_jobs").queue.put_nowait(1)  # the point of this test

    return lab.start(find_and_fill(), "finder").cancel


@pytest.mark.parametrize("way", [by_task, by_timer, by_global, by_thread, by_canceller, by_string])
def test_workers_whom_somebody_may_wake_are_left_in_peace(
    lab: Lab, way: Callable[[Lab, Jobs], Callable[[], object]]
) -> None:
    jobs = Jobs()
    lab.start(jobs.get(), "worker")
    assert [found.kind for found in lab.find()] == ["starved"]

    stop = way(lab, jobs)
    assert lab.find() == []

    stop()
    lab.turn()
    assert [found.kind for found in lab.find()] == ["starved"]


def test_looking_keeps_nothing_alive_and_changes_nothing(lab: Lab) -> None:
    jobs = Jobs()
    worker = lab.start(jobs.get(), "worker")
    lab.find()
    jobs.queue.put_nowait(1)
    lab.turn()

    assert worker.done()
    assert lab.find() == []


def test_healthy_programs_cause_no_alarm(lab: Lab) -> None:
    for seed in range(60):
        assert alarms_in(lab.tracker, lab.loop, seed) == [], seed


def test_without_following_references_most_of_them_would(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach.Search, "found_from", lambda _search, _roots: set())
    alarmed = [seed for seed in range(60) if alarms_in(lab.tracker, lab.loop, seed)]

    assert len(alarmed) > 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_thousand_healthy_programs_cause_no_alarm(lab: Lab) -> None:
    for seed in range(60, 2_060):
        assert alarms_in(lab.tracker, lab.loop, seed) == [], seed


def test_cells_that_code_in_c_will_wake_are_not_called_hung(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = LookAtCells(lab.tracker, monkeypatch)
    seed = 0
    # How many look hung depends on what else there is in this process.
    while seed < 30 or (looks.watch.suspected <= 5 and seed < 600):
        looks.run(lab.loop, seed)
        seed += 1

    assert looks.said == []
    assert looks.watch.suspected > 5


def test_a_hung_cell_is_seen_by_such_looks(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(queue: asyncio.Queue[int]) -> None:
        await queue.get()

    looks = LookAtCells(lab.tracker, monkeypatch)
    lab.start(work(asyncio.Queue()), "worker")
    looks.look()
    assert looks.said == []

    looks.look()
    (text,) = looks.said
    assert text.startswith("nothing on this loop can wake this task: task 1 'worker' waits for")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_thousand_healthy_cells_are_not_called_hung(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = LookAtCells(lab.tracker, monkeypatch)
    for seed in range(60, 2_060):
        looks.run(lab.loop, seed)
        assert looks.said == [], seed


def test_what_code_in_c_may_call_back_is_told_apart() -> None:
    def callbacks_of(queue: asyncio.Queue[int]) -> list[Callable[..., object]]:
        return [lambda: queue.put_nowait(1), queue.put_nowait, functools.partial(print, queue)]

    for index in range(3):
        queue: asyncio.Queue[int] = asyncio.Queue()
        coro = queue.get()
        assert not may_be_called_back(queue)

        callback = callbacks_of(queue)[index]
        assert may_be_called_back(queue)
        coro.close()
        del callback


def test_a_coroutine_whose_variables_were_looked_at_is_no_callback(lab: Lab) -> None:
    async def work(queue: asyncio.Queue[int]) -> None:
        await queue.get()

    queue: asyncio.Queue[int] = asyncio.Queue()
    coro = work(queue)
    lab.start(coro, "worker")
    (found,) = lab.find()  # it names the variable
    assert inspect.getcoroutinelocals(coro)["queue"] is queue

    assert found.kind == "starved"
    assert not may_be_called_back(queue)


def test_a_dictionary_that_a_callback_knows_may_be_called_back() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    shared = {"queue": queue}
    callback = functools.partial(print, shared)

    assert may_be_called_back(queue)
    del callback


class Crew:
    """Workers and what they are to do."""

    def __init__(self) -> None:
        self.errands_of_crew: asyncio.Queue[int] = asyncio.Queue()

    async def work(self) -> None:
        """Wait for something to do."""
        await self.errands_of_crew.get()


def test_an_attribute_that_only_coroutine_functions_name_is_not_called_back(lab: Lab) -> None:
    crew = Crew()
    lab.start(crew.work(), "worker")
    (found,) = lab.find()

    assert found.kind == "starved"
    assert not may_be_called_back(crew.errands_of_crew)
    assert vars(crew).keys() == {"errands_of_crew"}  # this makes a dictionary that nobody had before
    assert not may_be_called_back(crew.errands_of_crew)


def test_an_attribute_that_another_function_names_may_be_called_back() -> None:
    class BusyCrew(Crew):
        """Has a method that a callback may call."""

        def __init__(self) -> None:
            super().__init__()
            self.errands_of_busy_crew = self.errands_of_crew

        def add(self, errand: int) -> None:
            """Give the workers something to do."""
            self.errands_of_busy_crew.put_nowait(errand)

    crew = BusyCrew()

    assert may_be_called_back(crew.errands_of_crew)


def test_attributes_that_a_callback_knows_as_a_dictionary_may_be_called_back() -> None:
    crew = Crew()
    callback = functools.partial(print, vars(crew))

    assert may_be_called_back(crew.errands_of_crew)
    del callback


def test_an_attribute_of_an_object_of_the_librarys_may_be_called_back() -> None:
    holder = types.SimpleNamespace(errands_of_crew=asyncio.Queue())

    assert may_be_called_back(holder.errands_of_crew)


def test_a_function_that_names_a_variable_of_its_module_may_be_called_back() -> None:
    space = types.ModuleType("space_of_a_test")
    sys.modules[space.__name__] = space
    try:
        source = "import asyncio\njobs = asyncio.Queue()\nasync def work():\n    await jobs.get()\n"
        exec(source, vars(space))
        assert not may_be_called_back(space.jobs)

        exec("def on_key(key):\n    jobs.put_nowait(key)\n", vars(space))
        assert may_be_called_back(space.jobs)
    finally:
        del sys.modules[space.__name__]
