"""What a task waits for: the kind of wait, the object, its name, and the tasks that can end it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from loopnb import trees, views
from loopnb.tracking import chains, graph, holders
from loopnb.tracking.details import detail_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from loopnb.records import AwaitGraph, WaitDetail
    from loopnb.tracking.tracker import Tracker


async def until_it_waits(task: asyncio.Task[Any], is_there: Callable[[], bool] = lambda: True) -> None:
    """Let the loop turn until *task* waits for a future for some passes."""
    async with asyncio.timeout(20):
        for _ in range(6):
            await asyncio.sleep(0)
        while chains.chain_of(task).waited is None or not is_there():  # noqa: ASYNC110  no event tells
            await asyncio.sleep(0.001)


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel *tasks* and what they have left."""
    current = asyncio.current_task()
    others = [task for task in asyncio.all_tasks() if task is not current]
    for task in {*tasks, *others}:
        task.cancel()
    await asyncio.gather(*tasks, *others, return_exceptions=True)


async def leaf() -> None:
    await asyncio.sleep(600)


class Owner:
    """Holds objects in attributes, as users' classes do."""

    def __init__(self) -> None:
        self.jobs: asyncio.Queue[int] = asyncio.Queue(1)
        self.lock = asyncio.Lock()
        self.ready = asyncio.Event()
        self.changed = asyncio.Condition()
        self.slots = asyncio.Semaphore(0)
        self.barrier = asyncio.Barrier(3)

    async def get(self) -> None:
        await self.jobs.get()

    async def put(self) -> None:
        self.jobs.put_nowait(1)
        await self.jobs.put(2)

    async def join(self) -> None:
        self.jobs.put_nowait(1)
        await self.jobs.join()

    async def wait(self) -> None:
        await self.ready.wait()

    async def notice(self) -> None:
        async with self.changed:
            await self.changed.wait()

    async def notice_that(self) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: False)

    async def take(self) -> None:
        async with self.slots:
            pass

    async def meet(self) -> None:
        await self.barrier.wait()

    async def values(self) -> AsyncIterator[int]:
        yield 1
        await self.ready.wait()

    async def iterate(self) -> None:
        async for _value in self.values():
            pass

    async def next_value(self) -> None:
        values = self.values()
        await anext(values)
        await anext(values, None)


async def pause() -> None:
    await asyncio.sleep(600)


async def bare() -> None:
    await asyncio.get_running_loop().create_future()


async def patient() -> None:
    never = asyncio.Event()
    async with asyncio.timeout(600):
        await never.wait()


async def impatient() -> None:
    never = asyncio.Event()
    await asyncio.wait_for(never.wait(), 600)


SHARED = [
    (pause, r"sleep, (59\d s|9 min \d\d s|10 min 00 s) left"),
    (patient, r"Event.wait of never \(not set\), gives up in (9 min 59 s|10 min 00 s)"),
    (bare, r"a future"),
    (Owner.get, r"Queue.get of self.jobs \(empty\)"),
    (Owner.put, r"Queue.put of self.jobs \(full with 1\)"),
    (Owner.join, r"Queue.join of self.jobs \(1 items? not done\)"),
    (Owner.wait, r"Event.wait of self.ready \(not set\)"),
    (Owner.notice, r"Condition.wait of self.changed"),
    (Owner.notice_that, r"Condition.wait of self.changed"),
    (Owner.take, r"Semaphore self.slots \(nobody is seen to hold it\)"),
    (Owner.meet, r"Barrier.wait of self.barrier \(1 of 3 are here\)"),
    (Owner.iterate, r"Event.wait of self.ready \(not set\)"),
    (Owner.next_value, r"Event.wait of self.ready \(not set\)"),
]


@pytest.mark.parametrize(("make", "words"), SHARED, ids=lambda value: getattr(value, "__qualname__", ""))
def test_what_tasks_share_is_named_as_the_waiting_code_knows_it(
    track: Callable[..., Any], make: Callable[..., Coroutine[Any, Any, None]], words: str
) -> None:
    shown, _detail = track(
        lambda tracker: look_at(tracker, make(Owner()) if "." in make.__qualname__ else make())
    )
    assert re.fullmatch(words, shown)


async def look_at(
    tracker: Tracker, coro: Coroutine[Any, Any, Any], is_there: Callable[[], bool] = lambda: True
) -> tuple[str, WaitDetail]:
    """Return what a task that runs *coro* waits for, as text and as a record."""
    task = asyncio.create_task(coro)
    await until_it_waits(task, is_there)
    detail = detail_of(tracker, task)
    await end(task)
    return views.wait_text(detail, tracker.clock()), detail


def test_a_wait_with_a_time_limit_says_when_it_gives_up(track: Callable[..., Any]) -> None:
    shown, detail = track(lambda tracker: look_at(tracker, impatient()))
    assert "gives up in" in shown
    assert detail.due_at is not None


def test_the_users_own_line_comes_with_its_text(track: Callable[..., Any]) -> None:
    _shown, detail = track(lambda tracker: look_at(tracker, Owner().get()))
    assert re.fullmatch(r"test_waits\.py:\d+: await self\.jobs\.get\(\)", detail.line)


def test_a_queue_says_how_many_others_wait(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> str:
        owner = Owner()
        tasks = [asyncio.create_task(owner.get()) for _ in range(4)]
        await until_it_waits(tasks[-1])
        detail = detail_of(tracker, tasks[0])
        await end(*tasks)
        return detail.state

    assert track(main) == "empty, 3 others wait"


# -- locks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lock", "condition"])
def test_a_lock_names_its_holder_and_where_that_stands(track: Callable[..., Any], how: str) -> None:
    async def main(tracker: Tracker) -> tuple[str, set[str]]:
        owner = Owner()
        lock: Any = owner.lock if how == "lock" else owner.changed

        async def hold() -> None:
            async with lock:
                await asyncio.sleep(600)

        async def need() -> None:
            async with lock:
                pass

        holder = asyncio.create_task(hold(), name="worker")
        await until_it_waits(holder)
        waiter = asyncio.create_task(need(), name="waiter")
        await until_it_waits(waiter)
        shown = detail_of(tracker, waiter).text
        edges = graph.finish(graph.slices(tracker))
        below = {edges.records[number].name for number in edges.awaits[tracker.number_of(waiter)]}
        await end(holder, waiter)
        return shown, below

    shown, below = track(main)
    assert re.fullmatch(r"Lock( lock)? held by worker \(test_waits\.py:\d+\)", shown)
    assert below == {"worker"}


async def enter(first: asyncio.Lock) -> None:
    """Wait for *first*, holding nothing."""
    async with first:
        pass


async def enter_two(first: asyncio.Lock, second: asyncio.Lock) -> None:
    """Wait for *second*, holding *first*."""
    async with first, second:
        pass


async def call_inside(first: asyncio.Lock, second: asyncio.Lock) -> None:
    """Wait for *second* in another coroutine, holding *first*."""
    async with first:
        await enter(second)


async def loop_over(first: asyncio.Lock, second: asyncio.Lock) -> None:
    """Wait for *second* in an async generator, holding *first* in it."""

    async def items() -> AsyncIterator[None]:
        async with first, second:
            yield

    async for _ in items():
        pass


@pytest.mark.parametrize("way", [enter_two, call_inside, loop_over])
def test_who_waits_to_enter_a_block_holds_the_lock_of_the_block_around_it(
    track: Callable[..., Any], way: Callable[[asyncio.Lock, asyncio.Lock], Coroutine[Any, Any, None]]
) -> None:
    async def main(tracker: Tracker) -> list[set[str]]:
        first, second = asyncio.Lock(), asyncio.Lock()
        await second.acquire()  # by hand, so nobody is seen to hold it
        both = asyncio.create_task(way(first, second), name="both")
        await until_it_waits(both)
        waiters = [asyncio.create_task(enter(first), name=f"waiter {index}") for index in range(3)]
        for waiter in waiters:
            await until_it_waits(waiter)
        edges = graph.finish(graph.slices(tracker))
        below = [
            {edges.records[number].name for number in edges.awaits[tracker.number_of(waiter)]}
            for waiter in waiters
        ]
        await end(both, *waiters)
        return below

    assert track(main) == [{"both"}] * 3


def test_those_that_only_wait_to_enter_a_block_are_not_looked_at_closer(
    track: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    holders_of = holders.holders_of

    def count(wanted: Any, chains: Any) -> Any:
        looked_at.extend(task.get_name() for task, _chain in chains)
        return holders_of(wanted, chains)

    async def main(tracker: Tracker) -> None:
        lock = asyncio.Lock()
        await lock.acquire()
        waiters = [asyncio.create_task(enter(lock), name=f"waiter {index}") for index in range(20)]
        await until_it_waits(waiters[-1])
        graph.finish(graph.slices(tracker))
        await end(*waiters)

    monkeypatch.setattr(graph, "holders_of", count)
    track(main)
    assert [name for name in looked_at if name.startswith("waiter")] == []


def test_each_of_many_waiters_is_told_the_holders_of_its_own_lock(
    track: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    subject_of = chains.subject_of

    def count(task: Any, path: Any) -> Any:
        asked.append(task.get_name())
        return subject_of(task, path)

    async def keep(lock: Any) -> None:
        async with lock:
            await asyncio.Event().wait()

    async def main(tracker: Tracker) -> tuple[set[tuple[str, ...]], list[set[str]]]:
        locks: list[Any] = [asyncio.Lock(), asyncio.Lock(), asyncio.Semaphore(3)]
        kinds = [0, 1, 2, 2, 2, *[0, 1, 2] * 10]
        tasks = [
            asyncio.create_task(keep(locks[kind]), name=f"{kind}{'holds' if index < 5 else 'waits'}")
            for index, kind in enumerate(kinds)
        ]
        await until_it_waits(tasks[-1])
        found = graph.finish(graph.slices(tracker))
        names = {number: record.name for number, record in found.records.items()}
        edges = {
            (names[number], *(names[held] for held in held_by)) for number, held_by in found.awaits.items()
        }
        shared = [{names[number] for number in group} for group in (found.any_of, found.cyclic)]
        await end(*tasks)
        return edges, shared

    monkeypatch.setattr(graph, "subject_of", count)
    edges, shared = track(main)

    assert edges == {
        ("0waits", "0holds"), ("1waits", "1holds"), ("2waits", "2holds", "2holds", "2holds")
    }  # fmt: skip
    assert shared == [{"2waits"}, set()]
    assert sorted(asked) == ["0waits", "1waits", "2waits"]  # the queues tell of the others


@pytest.mark.parametrize("step", range(10))
def test_tasks_may_end_while_the_graph_is_made(track: Callable[..., Any], step: int) -> None:
    async def main(tracker: Tracker) -> AwaitGraph:
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(leaf()) for _ in range(70)]
        tasks.append(asyncio.create_task(asyncio.wait(tasks[:40])))
        await until_it_waits(tasks[-1])
        steps = graph.slices(tracker)
        for count in itertools.count():
            if count == step:
                await end(*tasks)
                tracker.listing.look()
            try:
                next(steps)
            except StopIteration as stop:
                found: AwaitGraph = stop.value
                break
        await end(*tasks)
        return found

    found = track(main)
    roots = graph.finish(trees.roots_of(found.records, found.awaits, lambda _task: True))
    tree = graph.finish(trees.tree_of(found.records, found.awaits, roots))
    assert found.awaits.keys() <= found.records.keys()
    assert graph.finish(trees.tree_text(tree, found, 0.0, {}))


@pytest.mark.parametrize("has_earlier", [False, True], ids=["first graph", "later graph"])
def test_a_task_may_get_its_lock_while_the_graph_is_made(
    track: Callable[..., Any], *, has_earlier: bool
) -> None:
    async def inner(lock: asyncio.Lock) -> None:
        async with lock:
            pass

    async def outer(lock: asyncio.Lock) -> None:
        await inner(lock)
        await asyncio.Event().wait()

    async def main(tracker: Tracker) -> dict[int, tuple[int, ...]]:
        lock = asyncio.Lock()
        await lock.acquire()
        task = asyncio.create_task(outer(lock))
        await until_it_waits(task)
        if has_earlier:
            graph.finish(graph.slices(tracker))  # the reference to the future has a hash since
        tracker.listing.look()
        lock.release()
        for _ in range(3):
            await asyncio.sleep(0)  # its future is gone, and it waits for the event
        edges = graph.Edges(tracker)
        edges.look_at_each(sorted(tracker.listing.records))
        await end(task)
        return {number: tuple(below) for number, below in graph.finish(edges.awaits()).items()}

    assert track(main) == {}


def test_a_condition_that_waits_to_be_notified_holds_no_lock(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> str:
        owner = Owner()
        sleeper = asyncio.create_task(owner.notice(), name="sleeper")
        await until_it_waits(sleeper)
        await owner.changed.acquire()  # by hand, so nobody is seen to hold it
        waiter = asyncio.create_task(owner.notice(), name="waiter")
        await until_it_waits(waiter)
        shown = detail_of(tracker, waiter).state
        owner.changed.release()
        await end(sleeper, waiter)
        return shown

    assert "nobody is seen to hold it" in track(main)


# -- tasks ---------------------------------------------------------------------------------------


async def by_gather(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)


async def by_wait(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)


async def by_first(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def by_completion(tasks: list[asyncio.Task[None]]) -> None:
    for done in asyncio.as_completed(tasks):
        await done


async def by_one_or_a_future(tasks: list[asyncio.Task[None]]) -> None:
    future = asyncio.get_running_loop().create_future()
    await asyncio.wait([tasks[0], future], return_when=asyncio.FIRST_COMPLETED)


async def by_wait_for(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait_for(tasks[0], 600)


async def by_shield(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.shield(tasks[0])


async def by_await(tasks: list[asyncio.Task[None]]) -> None:
    await tasks[0]


async def by_group(tasks: list[asyncio.Task[None]]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(leaf(), name="leaf 0")
        group.create_task(leaf(), name="leaf 1")
        for task in tasks:
            task.cancel()


async def by_gather_in_time(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait_for(asyncio.gather(*tasks), 600)


BOTH, FIRST = ["leaf 0", "leaf 1"], ["leaf 0"]
AWAITING = [
    (by_gather, BOTH, False, r"gather\(\) \(2 of 2 pending\)"),
    (by_wait, BOTH, False, r"some tasks \(2 pending\)"),
    (by_first, BOTH, True, r"the first of some tasks \(2 pending\)"),
    (by_completion, BOTH, True, r"the next of as_completed\(\) \(2 pending\)"),
    (by_wait_for, FIRST, False, r"task leaf 0, gives up in .*"),
    (by_one_or_a_future, FIRST, True, r".*"),
    (by_shield, FIRST, False, r"task leaf 0, shielded"),
    (by_await, FIRST, False, r"task leaf 0"),
    (by_group, BOTH, False, r"the tasks of its group \(2 pending\)"),
    (by_gather_in_time, BOTH, False, r"(gather\(\) \(2 of 2 pending\)|a future), gives up in .*"),
]


@pytest.mark.parametrize(
    ("make", "names", "is_any", "words"), AWAITING, ids=lambda value: getattr(value, "__name__", "")
)
def test_the_graph_has_an_edge_to_each_task_that_is_awaited(
    track: Callable[..., Any], make: Callable[..., Any], names: list[str], is_any: bool, words: str
) -> None:
    async def main(tracker: Tracker) -> tuple[list[str], bool, str]:
        tasks = [asyncio.create_task(leaf(), name=f"leaf {index}") for index in range(2)]
        await asyncio.sleep(0)
        top = asyncio.create_task(make(tasks), name="top")
        await until_it_waits(top)
        edges = graph.finish(graph.slices(tracker))
        number = tracker.number_of(top)
        found = sorted(edges.records[below].name for below in edges.awaits[number])
        shown = views.wait_text(detail_of(tracker, top), tracker.clock())
        await end(top)
        return found, number in edges.any_of, shown

    found, is_any_of, shown = track(main)
    assert (found, is_any_of) == (names, is_any)
    assert re.fullmatch(words, shown)


# -- threads, processes, the network ---------------------------------------------------------------


def test_a_call_in_a_thread_says_how_busy_the_pool_is(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> list[str]:
        go_on, began = threading.Event(), threading.Semaphore(0)

        def work() -> None:
            began.release()
            go_on.wait(60)

        async def in_thread() -> None:
            await asyncio.to_thread(work)

        async def in_executor() -> None:
            await asyncio.get_running_loop().run_in_executor(None, work)

        from concurrent.futures import ThreadPoolExecutor

        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        tasks = [asyncio.create_task(in_thread()), asyncio.create_task(in_executor())]
        await until_it_waits(tasks[-1])
        for _ in tasks:
            assert began.acquire(timeout=60)
        tasks.append(asyncio.create_task(in_thread()))
        await until_it_waits(tasks[-1])
        shown = [views.wait_text(detail_of(tracker, task), 0) for task in tasks]
        go_on.set()
        await asyncio.gather(*tasks)
        return shown

    load = r"\(thread pool: 2 of 2 busy, 1 queued\)"
    first, second, third = track(main)
    assert re.fullmatch(rf".*work\(\) in a thread {load}", first)
    assert re.fullmatch(rf"a call in a thread {load}", second)
    assert re.fullmatch(rf".*work\(\) in a thread, queued for a thread {load}", third)


def test_a_stream_says_who_is_at_its_other_end(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> tuple[str, str, int]:
        async def serve(_reader: Any, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(600)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def read() -> None:
            await reader.readline()

        task = asyncio.create_task(read())
        await until_it_waits(task)
        shown = detail_of(tracker, task).text
        row = tracker.record(task).waits_for
        writer.close()
        server.close()
        await end(task)
        return shown, row, port

    shown, row, port = track(main)
    assert shown == f"bytes from 127.0.0.1:{port}"
    assert row == "bytes from a stream"


def test_a_socket_says_who_is_at_its_other_end(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> tuple[list[str], int]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            server.setblocking(False)
            loop = asyncio.get_running_loop()

            async def accept() -> None:
                with (await loop.sock_accept(server))[0]:
                    await loop.sock_accept(server)

            async def receive() -> None:
                await loop.sock_recv(client, 1)

            with socket.create_connection(("127.0.0.1", port)) as client:
                client.setblocking(False)
                tasks = [asyncio.create_task(accept()), asyncio.create_task(receive())]
                await until_it_waits(tasks[1])
                shown = [detail_of(tracker, task).text for task in tasks]
                await end(*tasks)
        return shown, port

    shown, port = track(main)
    assert shown == [f"a connection to 127.0.0.1:{port}", f"bytes from 127.0.0.1:{port}"]


@pytest.mark.skipif(sys.platform == "win32", reason="the selector loop of Windows starts no processes")
def test_a_process_is_named_by_its_number(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> tuple[str, int]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE
        )
        task = asyncio.create_task(process.wait())
        await until_it_waits(task)
        shown = detail_of(tracker, task).text
        process.kill()
        await task
        return shown, process.pid

    shown, pid = track(main)
    assert shown == f"process {pid} to end"


def test_asking_leaves_no_frame_behind(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> list[str]:
        import gc
        from types import FrameType

        owner = Owner()
        tasks = [asyncio.create_task(make()) for make in (owner.get, owner.wait, owner.notice, pause)]
        await until_it_waits(tasks[-1])
        gc.collect()
        before = {id(frame) for frame in gc.get_objects() if type(frame) is FrameType}
        graph.finish(graph.slices(tracker))
        made = [
            frame.f_code.co_qualname
            for frame in gc.get_objects()
            if type(frame) is FrameType and id(frame) not in before
        ]
        await end(*tasks)
        return [
            name
            for name in made
            if name.startswith(("Owner", "Queue", "Event", "Condition", "pause", "sleep"))
        ]

    assert track(main) == []
