"""The orderly end of a loop, without a kernel around it."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.loop.shutdown import OrderlyEnd

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
    from types import FrameType

    Owners = dict[asyncio.Task[Any], set[asyncio.Task[Any]]]


class Client:
    """What complains in its finalizer if it has not been closed, as aiohttp's session does."""

    def __init__(self, loop: asyncio.AbstractEventLoop, close: Callable[[], Any] | None = None) -> None:
        self.loop = loop
        self.is_closed = False
        self.ending = close

    async def close(self) -> None:
        if self.ending is not None:
            await self.ending()
        self.is_closed = True

    def __repr__(self) -> str:
        return "<Client>"

    def __del__(self) -> None:
        pass


class Shy(Client):
    """A client that cannot be shown."""

    def __repr__(self) -> str:
        raise ValueError("no")


class Calm:
    """A client that does not mind being dropped."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.is_closed = False

    async def close(self) -> None:
        self.is_closed = True


async def fails() -> None:
    raise ValueError("no")


class FakeEnding:
    """What a shell says of its end."""

    def __init__(
        self, tasks: Iterable[asyncio.Task[Any]], owners: Owners, grace: float, log: list[str]
    ) -> None:
        self._tasks = tasks
        self._owners = owners
        self._grace = grace
        self._log = log

    def live(self) -> list[asyncio.Task[Any]]:
        return [task for task in self._tasks if not task.done()]

    def owners(self, tasks: set[asyncio.Task[Any]]) -> Owners:
        return {task: self._owners[task] for task in tasks if task in self._owners}

    def is_ending(self, _task: asyncio.Task[Any]) -> bool:
        return False

    def is_of_other_task(self, error: BaseException) -> bool:
        return type(error) is RuntimeError and "different task" in str(error)

    def grace(self) -> float:
        return self._grace

    def describe(self, task: asyncio.Task[Any]) -> str:
        return f"task {task.get_name()!r}"

    def describe_thread(self, thread: threading.Thread, _frame: FrameType) -> str:
        return f"thread {thread.name!r} is busy"

    def place(self, frame: FrameType) -> str:
        return f"line {frame.f_lineno}"

    def release(self) -> None:
        """Nobody waits for this loop."""

    def log(self, line: str) -> None:
        self._log.append(line)


async def wind_down(
    *tasks: asyncio.Task[Any], owners: Owners | None = None, grace: float = 0.05
) -> list[str]:
    """End what there is on the running loop, look once more as at Python's end, and return the log."""
    log: list[str] = []
    end = OrderlyEnd(FakeEnding(tasks, owners or {}, grace, log))
    try:
        await end.wind_down()
        end.check()
    finally:
        end.lower_shield()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    return log


def run(main: Callable[[], Any]) -> None:
    """Run *main* on a loop of its own, and leave what it left pending."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_what_only_await_can_close_is_closed_on_its_own_loop_only() -> None:
    other = asyncio.new_event_loop()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        clients: list[Any] = [{"held": Client(loop)}, Client(other), Calm(loop)]
        log = await wind_down(grace=20)
        assert [clients[0]["held"].is_closed, clients[1].is_closed, clients[2].is_closed, log] == [
            True,
            False,
            False,
            [],
        ]

    run(main)
    other.close()


def test_what_a_client_refers_to_is_left_to_it() -> None:
    async def main() -> None:
        session, connector, resolver, friend, other = (Client(asyncio.get_running_loop()) for _ in range(5))
        vars(session)["connector"], vars(connector)["resolvers"] = connector, {"first": [resolver]}
        vars(friend)["other"], vars(other)["other"] = other, friend  # neither is the other's
        log = await wind_down(grace=20)
        clients = (session, connector, resolver, friend, other)
        assert [client.is_closed for client in clients] == [True, False, False, True, True]
        assert log == []

    run(main)


class OnThread(Client):
    """A client that works in a thread, and knows of no loop unless it is given one."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None, *, daemon: bool = False) -> None:
        self.is_closed = False
        if loop is not None:
            self.loop = loop
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._end.wait, daemon=daemon)
        self._thread.start()

    async def close(self) -> None:
        self.is_closed = True
        self.end()

    def end(self) -> None:
        self._end.set()
        self._thread.join()


def test_a_client_that_keeps_a_thread_is_closed() -> None:
    other = asyncio.new_event_loop()

    async def main() -> None:
        clients = [OnThread(None), OnThread(None, daemon=True), OnThread(other)]
        try:
            await wind_down(grace=0.5)
        finally:
            for client in clients:
                client.end()
        assert [client.is_closed for client in clients] == [True, False, False]

    run(main)
    other.close()


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (lambda: asyncio.sleep(60), "open <Client> did not end within 0.05 s"),
        (fails, "open <Client> did not end in order: ValueError: no"),
    ],
    ids=["hangs", "fails"],
)
def test_a_client_that_does_not_close_is_named(ending: Callable[[], Any], said: str) -> None:
    async def main() -> None:
        client = Client(asyncio.get_running_loop(), ending)
        log = await wind_down()
        assert log == [said]
        assert not client.is_closed

    run(main)


def test_an_async_generator_that_does_not_end_is_named() -> None:
    async def generates() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(60)

    async def main() -> None:
        half_read = generates()
        await anext(half_read)
        log = await wind_down()
        line = generates.__code__.co_firstlineno + 2
        assert [said.partition("() ")[2] for said in log] == [f"at line {line} did not end within 0.05 s"]

    run(main)


@asynccontextmanager
async def noted(said: list[str], name: str, *, sets: asyncio.Event | None = None) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        said.append(name)
        if sets is not None:
            sets.set()


def test_an_async_generator_that_no_task_uses_is_closed_while_the_tasks_end() -> None:
    async def main() -> None:
        said: list[str] = []
        is_closed = asyncio.Event()
        entered = noted(said, "generator", sets=is_closed)
        await entered.__aenter__()
        task = asyncio.create_task(notes_its_end(said, "task", is_closed))
        await asyncio.sleep(0)
        log = await wind_down(task, grace=5)
        assert said == ["generator", "task"]
        assert log == []

    run(main)


def test_an_async_generator_that_only_its_own_task_could_leave_is_not_named() -> None:
    async def generates() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise RuntimeError("Attempted to exit cancel scope in a different task than it was entered in")

    async def main() -> list[str]:
        await anext(generating := generates())
        assert generating is not None
        return await wind_down(grace=20)

    assert asyncio.run(main()) == []


def test_async_generators_that_another_has_entered_are_left_to_it() -> None:
    said: list[str] = []

    async def outer() -> AsyncIterator[int]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(noted(said, "inner"))
            async with noted(said, "innermost"):
                yield 1
            said.append("outer")

    async def main() -> None:
        generators = [outer()]
        await anext(generators[0])
        log = await wind_down(grace=20)
        assert said == ["innermost", "inner"]
        assert log == []

    run(main)


@pytest.mark.parametrize("is_stepping", [False, True])
def test_what_a_task_has_entered_it_leaves_itself(is_stepping: bool) -> None:
    said: list[str] = []

    async def generates() -> AsyncGenerator[int]:
        async with noted(said, "inside the generator"):
            if is_stepping:
                await asyncio.Event().wait()
            yield 1

    async def uses() -> None:
        async with AsyncExitStack() as stack, noted(said, "outside"):
            await stack.enter_async_context(noted(said, "in a stack"))
            async with aclosing(generates()) as values:
                async for _ in values:
                    await notes_its_end(said, "task")

    async def main() -> None:
        task = asyncio.create_task(uses())
        for _ in range(5):
            await asyncio.sleep(0)
        log = await wind_down(task, grace=5)
        assert said == [*["task"] * (not is_stepping), "inside the generator", "outside", "in a stack"]
        assert log == []

    run(main)


def test_a_thread_that_is_busy_is_waited_for_and_then_named() -> None:
    go_on = threading.Event()

    async def main() -> None:
        loop, began = asyncio.get_running_loop(), asyncio.Event()

        def is_busy() -> None:
            loop.call_soon_threadsafe(began.set)
            go_on.wait(20)

        waiting = loop.run_in_executor(None, is_busy)
        await began.wait()
        try:
            log = await wind_down()
        finally:
            go_on.set()
            await waiting
            await loop.shutdown_default_executor()
        assert [said.partition(" is busy")[2] for said in log] == [", and Python waits for it before it ends"]

    run(main)


@pytest.mark.parametrize("grace", [0.0, 0.05])
def test_a_task_that_swallows_its_cancellation_is_named_once(grace: float) -> None:
    async def main() -> None:
        gives_up = asyncio.Event()

        async def swallows() -> None:
            while not gives_up.is_set():
                try:
                    await gives_up.wait()
                except asyncio.CancelledError:
                    continue

        task = asyncio.create_task(swallows(), name="swallower")
        await asyncio.sleep(0)
        log = await wind_down(task, grace=grace)
        assert log == [f"task 'swallower', did not end within {grace:g} s of being cancelled"]
        gives_up.set()
        await task

    run(main)


def test_a_task_may_use_its_helpers_until_it_has_ended() -> None:
    async def works(queue: asyncio.Queue[int | None], done: list[int]) -> None:
        while (item := await queue.get()) is not None:
            await asyncio.sleep(0)
            done.append(item)

    async def owns(queue: asyncio.Queue[int | None], worker: asyncio.Task[None]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            queue.put_nowait(1)
            queue.put_nowait(None)
            await worker

    async def main() -> None:
        queue: asyncio.Queue[int | None] = asyncio.Queue()
        done: list[int] = []
        worker = asyncio.create_task(works(queue, done))
        owner = asyncio.create_task(owns(queue, worker))
        await asyncio.sleep(0)
        log = await wind_down(owner, worker, owners={worker: {owner}}, grace=20)
        assert done == [1]
        assert not worker.cancelled()
        assert log == []

    run(main)


async def notes_its_end(ended: list[str], name: str, *until: asyncio.Event) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        for event in until:
            await event.wait()
        ended.append(name)


def test_helpers_are_cancelled_when_their_owners_have_ended_outermost_first() -> None:
    async def main() -> None:
        ended: list[str] = []
        names = ("helper's helper", "helper", "owner")
        low, middle, top = tasks = [asyncio.create_task(notes_its_end(ended, name)) for name in names]
        await asyncio.sleep(0)
        log = await wind_down(*tasks, owners={low: {middle}, middle: {top}}, grace=20)
        assert ended == ["owner", "helper", "helper's helper"]
        assert log == []

    run(main)


def test_a_child_that_its_group_has_cancelled_is_not_cancelled_again_halfway() -> None:
    async def helps(halfway: asyncio.Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            halfway.set()

    async def groups(ended: list[str], until: asyncio.Event, children: list[asyncio.Task[None]]) -> None:
        async with asyncio.TaskGroup() as group:
            children.append(group.create_task(notes_its_end(ended, "child", until)))

    async def main() -> None:
        ended: list[str] = []
        never, halfway = asyncio.Event(), asyncio.Event()
        children: list[asyncio.Task[None]] = []
        group = asyncio.create_task(groups(ended, halfway, children))
        stuck = asyncio.create_task(notes_its_end(ended, "stuck", never), name="stuck")
        helper = asyncio.create_task(helps(halfway))
        for _ in range(3):  # the group begins, then its child, which waits
            await asyncio.sleep(0)
        [child] = children
        await wind_down(group, child, stuck, helper, owners={child: {group}, helper: {stuck}}, grace=0.2)
        assert ended == ["child"]
        never.set()
        with pytest.raises(asyncio.CancelledError):
            await stuck

    run(main)


def test_an_owner_that_does_not_end_leaves_its_helpers_half_of_the_grace() -> None:
    async def main() -> None:
        ended: list[str] = []
        never = asyncio.Event()
        owner = asyncio.create_task(notes_its_end(ended, "owner", never), name="owner")
        helper = asyncio.create_task(notes_its_end(ended, "helper"), name="helper")
        await asyncio.sleep(0)
        log = await wind_down(owner, helper, owners={helper: {owner}})
        assert ended == ["helper"]
        assert log == ["task 'owner', did not end within 0.05 s of being cancelled"]
        never.set()
        await asyncio.wait([owner])

    run(main)


def test_tasks_that_own_one_another_are_cancelled_at_once() -> None:
    async def main() -> None:
        ended: list[str] = []
        first, other = (asyncio.create_task(notes_its_end(ended, name)) for name in ("one", "other"))
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await wind_down(first, other, owners={first: {other}, other: {first}}, grace=20)
        assert sorted(ended) == ["one", "other"]
        assert loop.time() - began < 5  # half of the grace is 10 s

    run(main)


def test_what_cannot_be_shown_keeps_nothing_from_its_end() -> None:
    class BadError(Exception):
        __str__ = __repr__ = Shy.__repr__

    async def bad() -> None:
        raise BadError

    async def main() -> None:
        loop = asyncio.get_running_loop()
        clients = [Shy(loop), Shy(loop, bad), Client(loop)]
        log = await wind_down(grace=20)
        assert log == [
            "open <Shy, whose repr fails> did not end in order: BadError: (its text cannot be made)"
        ]
        assert [client.is_closed for client in clients] == [True, False, True]

    run(main)
