"""Random programs that are healthy: some of their members are slow, and each ends in the end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import functools
import os
import random
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from loopnb.shell import hung_cells
from loopnb.tracking.cells import current_cell
from loopnb.watch import deadlocks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import pytest

    from loopnb.records import Deadlock
    from loopnb.tracking.tracker import Tracker

#: Whatever a waker finds by a global variable, as code of a notebook does.
box: dict[int, Any] = {}
carried: contextvars.ContextVar[Any] = contextvars.ContextVar("carried")


Tasks = list[asyncio.Task[Any]]


class Keeper:
    """Holds an object in an attribute.

    Args:
        thing: The object.
        wake_it: Wakes those who wait for it.
    """

    def __init__(self, thing: Any, wake_it: Callable[[Any], object] | None = None) -> None:
        self.thing = thing
        self._wake_it = wake_it

    def wake(self) -> None:
        """Wake those who wait for the object, at once."""
        assert self._wake_it is not None
        self._wake_it(self.thing)

    async def wake_later(self, wake: Callable[[Any], object], delay: float) -> None:
        """Wake those who wait for the object."""
        await asyncio.sleep(delay)
        wake(self.thing)


def _wake_in(space: dict[str, Any], wake: Callable[[Any], object]) -> None:
    wake(space["thing"])


def _call_by_address(address: int) -> None:
    """Call the object at *address*, and drop the reference to it that code in C had."""
    callback = ctypes.cast(address, ctypes.py_object)
    callback.value()
    ctypes.pythonapi.Py_DecRef(callback)


class Program:
    """One random program.

    Args:
        loop: The loop.
        seed: Decides what it does.
        has_native_wakers: Code in C wakes some of its members. Nobody can see what that will call.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seed: int, *, has_native_wakers: bool = False
    ) -> None:
        self.loop = loop
        self.has_native_wakers = has_native_wakers
        self.random = random.Random(seed)
        self.locks = [asyncio.Lock() for _ in range(3)]
        self.slots = asyncio.Semaphore(2)
        self.tasks: list[asyncio.Task[Any]] = []
        self.threads: list[threading.Timer] = []

    def start(self) -> None:
        """Start its tasks. Each may await only those that were started before it."""
        for _ in range(self.random.randint(2, 7)):
            count = min(len(self.tasks), self.random.randint(1, 3))
            coro = self.random.choice(PARTS)(self, self.random.sample(self.tasks, count))
            self.tasks.append(self.loop.create_task(coro))

    def delay(self) -> float:
        """Return how slow a member is, in seconds."""
        return self.random.choice([0.0, 0.0, 0.0005, 0.002])

    def woken_by(self, thing: Any, wake: Callable[[Any], object]) -> None:
        """Have somebody wake those who wait for *thing*, in one of many ways."""
        delay, loop = self.delay(), self.loop
        ways: list[Callable[[], object]] = [
            lambda: self.tasks.append(loop.create_task(Keeper(thing).wake_later(wake, delay))),
            lambda: loop.call_later(delay, wake, thing),
            lambda: loop.call_later(delay, functools.partial(wake, thing)),
            lambda: self._by_thread(thing, wake, delay),
            lambda: self._by_file(thing, wake),
            lambda: self._by_global(thing, wake, delay),
            lambda: self._by_context(thing, wake, delay),
            lambda: self._by_end_of_task(thing, wake, delay),
            lambda: self._by_generator(thing, wake, delay),
        ]
        if self.has_native_wakers:
            ways += [lambda: self._by_native_code(thing, wake)] * len(ways)
        self.random.choice(ways)()

    def _by_thread(self, thing: Any, wake: Callable[[Any], object], delay: float) -> None:
        timer = threading.Timer(delay, self.loop.call_soon_threadsafe, (wake, thing))
        timer.start()
        self.threads.append(timer)

    def _by_file(self, thing: Any, wake: Callable[[Any], object]) -> None:
        reading, writing = os.pipe()

        def wake_and_close() -> None:
            self.loop.remove_reader(reading)
            os.close(reading)
            os.close(writing)
            wake(thing)

        self.loop.add_reader(reading, wake_and_close)
        os.write(writing, b"x")

    def _by_global(self, thing: Any, wake: Callable[[Any], object], delay: float) -> None:
        box[id(thing)] = thing
        key = id(thing)

        async def find_and_wake() -> None:
            await asyncio.sleep(delay)
            wake(box.pop(key))

        self.tasks.append(self.loop.create_task(find_and_wake()))

    def _by_context(self, thing: Any, wake: Callable[[Any], object], delay: float) -> None:
        async def wake_what_it_carries() -> None:
            await asyncio.sleep(delay)
            wake(carried.get())

        def spawn() -> None:
            carried.set(thing)
            self.tasks.append(self.loop.create_task(wake_what_it_carries()))

        contextvars.copy_context().run(spawn)

    def _by_end_of_task(self, thing: Any, wake: Callable[[Any], object], delay: float) -> None:
        task = self.loop.create_task(asyncio.sleep(delay))
        task.add_done_callback(lambda _task: wake(thing))
        self.tasks.append(task)

    def _by_native_code(self, thing: Any, wake: Callable[[Any], object]) -> None:
        callbacks: list[Callable[[], object]] = [
            functools.partial(wake, thing),
            lambda: wake(thing),
            Keeper(thing, wake).wake,
            functools.partial(_wake_in, {"thing": thing}, wake),
        ]
        callback = ctypes.py_object(self.random.choice(callbacks))
        ctypes.pythonapi.Py_IncRef(callback)
        self.loop.call_later(0.01, _call_by_address, id(callback.value))

    def _by_generator(self, thing: Any, wake: Callable[[Any], object], delay: float) -> None:
        async def values() -> Any:
            await asyncio.sleep(delay)
            yield thing

        async def wake_each() -> None:
            async for value in values():
                wake(value)

        self.tasks.append(self.loop.create_task(wake_each()))

    def end(self) -> None:
        """Wait for its threads."""
        for thread in self.threads:
            thread.join()


async def _sleep(program: Program, _earlier: Tasks) -> None:
    await asyncio.sleep(program.delay())


async def _await_earlier(program: Program, earlier: Tasks) -> None:
    for task in earlier:
        await task


async def _gather_earlier(program: Program, earlier: Tasks) -> None:
    await asyncio.gather(*earlier)


async def _wait_for_earlier(program: Program, earlier: Tasks) -> None:
    if earlier:
        when = program.random.choice([asyncio.ALL_COMPLETED, asyncio.FIRST_COMPLETED])
        await asyncio.wait(earlier, return_when=when)


async def _complete_earlier(program: Program, earlier: Tasks) -> None:
    for done in asyncio.as_completed(earlier):
        await done


async def _shield_earlier(program: Program, earlier: Tasks) -> None:
    if earlier:
        await asyncio.shield(earlier[0])


async def _take_locks(program: Program, _earlier: Tasks) -> None:
    first, second = sorted(program.random.sample(range(3), 2))
    async with program.locks[first]:
        await asyncio.sleep(program.delay())
        async with program.locks[second]:
            await asyncio.sleep(program.delay())


async def _take_lock_by_hand(program: Program, _earlier: Tasks) -> None:
    lock = program.random.choice(program.locks)
    await lock.acquire()
    await asyncio.sleep(program.delay())
    lock.release()


async def _take_slot(program: Program, _earlier: Tasks) -> None:
    async with program.slots:
        await asyncio.sleep(program.delay())


async def _wait_for_event(program: Program, _earlier: Tasks) -> None:
    event = asyncio.Event()
    program.woken_by(event, asyncio.Event.set)
    await event.wait()


async def _get_from_queue(program: Program, _earlier: Tasks) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(1)
    program.woken_by(queue, lambda queue: queue.put_nowait(1))
    await queue.get()


async def _put_into_full_queue(program: Program, _earlier: Tasks) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(1)
    queue.put_nowait(1)
    program.woken_by(queue, asyncio.Queue.get_nowait)
    await queue.put(2)


async def _be_notified(program: Program, _earlier: Tasks) -> None:
    changed = asyncio.Condition()

    async def notify(condition: asyncio.Condition) -> None:
        async with condition:
            condition.notify_all()

    program.woken_by(changed, lambda it: program.tasks.append(program.loop.create_task(notify(it))))
    async with changed:
        await changed.wait()


async def _meet(program: Program, _earlier: Tasks) -> None:
    barrier = asyncio.Barrier(2)

    async def come() -> None:
        await asyncio.sleep(program.delay())
        await barrier.wait()

    program.tasks.append(program.loop.create_task(come()))
    await barrier.wait()


async def _group(program: Program, _earlier: Tasks) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(_wait_for_event(program, []))


async def _give_up(program: Program, _earlier: Tasks) -> None:
    never = asyncio.Event()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(never.wait(), 0.002)


async def _be_cancelled(program: Program, _earlier: Tasks) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    worker = program.loop.create_task(queue.get())
    await asyncio.sleep(program.delay())
    worker.cancel()
    await asyncio.wait([worker])


async def _work_in_thread(program: Program, _earlier: Tasks) -> None:
    await asyncio.to_thread(threading.Event().wait, program.delay())


PARTS: list[Callable[[Program, Tasks], Coroutine[Any, Any, Any]]] = [
    _sleep, _await_earlier, _gather_earlier, _wait_for_earlier, _complete_earlier, _shield_earlier,
    _take_locks, _take_locks, _take_lock_by_hand, _take_slot, _wait_for_event, _get_from_queue,
    _put_into_full_queue, _be_notified, _meet, _group, _give_up, _be_cancelled, _work_in_thread,
]  # fmt: skip


def alarms_in(tracker: Tracker, loop: asyncio.AbstractEventLoop, seed: int) -> list[Deadlock]:
    """Run one program to its end, look at every moment, and return the deadlocks that were reported."""
    found: list[Deadlock] = []
    _run(Program(loop, seed), lambda: found.extend(deadlocks.find(tracker)))
    return found


def _run(program: Program, look: Callable[[], object]) -> None:
    async def begin() -> None:
        program.start()

    program.loop.run_until_complete(begin())
    for _ in range(20_000):
        pending = [task for task in program.tasks if not task.done()]
        if not pending:
            break
        look()
        program.loop.run_until_complete(_one_pass())
    assert not pending, "the program is not healthy"
    program.end()


class WatchOfCells(deadlocks.DeadlockWatch):
    """A watch for which a cell waits for every task.

    Args:
        tracker: Knows the tasks.

    Attributes:
        suspected: How many deadlocks it has found. Most were none: code in C ends them.
    """

    def __init__(self, tracker: Tracker) -> None:
        super().__init__(tracker)
        self.suspected = 0

    def stuck_cell(self) -> Deadlock | None:
        """Return the first deadlock of this moment."""
        self._tracker.listing.look()
        found = next(iter(self.look()), None)
        self.suspected += found is not None
        return found


class LookAtCells:
    """Looks as `HungCells` does, at every moment that it is told to.

    Args:
        tracker: Knows the tasks.
        monkeypatch: Collects what would be said in a cell.
    """

    def __init__(self, tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.watch = WatchOfCells(tracker)
        self.said: list[str] = []
        monkeypatch.setattr(hung_cells, "say", self.said.append)
        begin: list[Callable[[object], object]] = []
        self._timers: list[Callable[[], object]] = []
        session: Any = SimpleNamespace(
            deadlocks=self.watch,
            loop=SimpleNamespace(is_closed=bool, call_later=self._call_later),
            owner=SimpleNamespace(is_home=lambda: True),
            settings=SimpleNamespace(on_deadlock="tell"),
            tracker=SimpleNamespace(runs=SimpleNamespace(context_of=lambda _cell: None)),
        )
        shell = SimpleNamespace(
            events=SimpleNamespace(register=lambda _name, function: begin.append(function))
        )
        cells: Any = SimpleNamespace(executing=object(), call_after=lambda _function: list)
        hung_cells.HungCells(shell, session, cells).start()
        token = current_cell.set(cells.executing)
        begin[0](None)
        current_cell.reset(token)

    def _call_later(self, _delay: float, callback: Callable[[], object], *, context: object) -> object:
        del context
        self._timers.append(callback)
        return SimpleNamespace(cancel=list)

    def look(self) -> None:
        """Make the look that is due."""
        if not self.said:
            self._timers.pop()()

    def run(self, loop: asyncio.AbstractEventLoop, seed: int) -> None:
        """Run one program to its end, and look at every moment."""
        _run(Program(loop, seed, has_native_wakers=True), self.look)


async def _one_pass() -> None:
    await asyncio.sleep(0.0005)
