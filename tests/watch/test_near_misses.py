"""Healthy programs that look like what the doctor looks for: it gathers nothing of them that it would accuse.

`test_checks.py` has the near misses that facts can say.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.watch.checks import examine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from tests.watch.wards import Ward

    Program = Callable[[Ward], Awaitable[object]]


async def fail() -> None:
    """Fail."""
    raise ValueError("no")


async def wait(event: asyncio.Event) -> None:
    """Wait."""
    await event.wait()


async def turn() -> None:
    """Let the loop make some passes."""
    for _ in range(5):
        await asyncio.sleep(0)


def codes(ward: Ward, **options: Any) -> list[str]:
    """Return what the doctor finds."""
    gc.collect()
    return [finding.code for finding in examine(ward.facts(**options))]


def by_name(*programs: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """Return the programs by what they do."""
    return {program.__name__: program for program in programs}


# -- failures that somebody has looked at ----------------------------------------------------------


async def awaits_it(ward: Ward) -> object:
    with suppress(ValueError):
        await asyncio.create_task(fail())
    return None


async def gathers_exceptions(ward: Ward) -> object:
    return await asyncio.gather(fail(), fail(), return_exceptions=True)


async def gathers_and_gets_the_first(ward: Ward) -> object:
    tasks = [asyncio.create_task(fail()) for _ in range(2)]
    with suppress(ValueError):
        await asyncio.gather(*tasks)
    return tasks


async def asks_for_the_exception(ward: Ward) -> object:
    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    return task, task.exception()


async def asks_for_the_result(ward: Ward) -> object:
    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    with suppress(ValueError):
        task.result()
    return task


async def is_in_a_group(ward: Ward) -> object:
    with suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
    return None


async def has_a_callback_that_looks(ward: Ward) -> object:
    task = asyncio.create_task(fail())
    task.add_done_callback(asyncio.Task.exception)
    await turn()
    return task


async def is_shielded(ward: Ward) -> object:
    with suppress(ValueError):
        await asyncio.shield(fail())
    return None


async def has_a_time_limit(ward: Ward) -> object:
    with suppress(ValueError):
        await asyncio.wait_for(fail(), 60)
    return None


async def is_the_next_completed(ward: Ward) -> object:
    for done in asyncio.as_completed([fail()]):
        with suppress(ValueError):
            await done
    return None


async def was_cancelled(ward: Ward) -> object:
    task = asyncio.create_task(asyncio.sleep(60))
    await turn()
    task.cancel()
    await turn()
    return task


SEEN_FAILURES = by_name(
    awaits_it, gathers_exceptions, gathers_and_gets_the_first, asks_for_the_exception, asks_for_the_result,
    is_in_a_group, has_a_callback_that_looks, is_shielded, has_a_time_limit, is_the_next_completed,
    was_cancelled,
)  # fmt: skip


@pytest.mark.parametrize("program", SEEN_FAILURES.values(), ids=SEEN_FAILURES)
def test_a_failure_that_was_looked_at_is_none(ward: Ward, program: Program) -> None:
    kept = ward.loop.run_until_complete(program(ward))

    assert codes(ward) == []
    del kept


# -- tasks that something keeps --------------------------------------------------------------------


async def a_variable(ward: Ward) -> object:
    return asyncio.create_task(wait(asyncio.Event()))


async def a_set(ward: Ward) -> object:
    tasks = {asyncio.create_task(wait(asyncio.Event())) for _ in range(3)}
    for task in tasks:
        task.add_done_callback(tasks.discard)
    return tasks


async def the_event_that_it_waits_for(ward: Ward) -> object:
    event = asyncio.Event()
    asyncio.create_task(wait(event))  # noqa: RUF006  the event keeps it
    return event


async def the_queue_that_it_waits_for(ward: Ward) -> object:
    jobs: asyncio.Queue[int] = asyncio.Queue()
    asyncio.create_task(jobs.get())  # noqa: RUF006  the queue keeps it
    return jobs


async def a_timer(ward: Ward) -> object:
    asyncio.create_task(asyncio.sleep(60))  # noqa: RUF006  the timer keeps it
    return None


async def a_task_that_awaits_it(ward: Ward) -> object:
    inner = asyncio.create_task(wait(asyncio.Event()))

    async def outer() -> None:
        await inner

    return asyncio.create_task(outer())


async def a_gather(ward: Ward) -> object:
    return asyncio.gather(wait(asyncio.Event()), wait(asyncio.Event()))


async def a_socket(ward: Ward) -> object:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    asyncio.create_task(asyncio.get_running_loop().sock_recv(ours, 1))  # noqa: RUF006  the loop keeps it
    return Closing(ours, theirs, before=lambda: asyncio.get_running_loop().remove_reader(ours))


async def nothing_as_it_has_ended(ward: Ward) -> object:
    asyncio.create_task(asyncio.sleep(0))  # noqa: RUF006  it ends
    return None


async def nothing_as_it_was_cancelled(ward: Ward) -> object:
    asyncio.create_task(wait(asyncio.Event())).cancel()
    return None


class Closing:
    """Closes sockets at the end of a test.

    Args:
        sockets: The sockets.
        before: Called first, on the loop.
    """

    def __init__(self, *sockets: socket.socket, before: Callable[[], object]) -> None:
        self._sockets = sockets
        self._before = before

    async def close(self) -> None:
        """Close them."""
        self._before()
        for each in self._sockets:
            each.close()


KEPT = by_name(
    a_variable, a_set, the_event_that_it_waits_for, the_queue_that_it_waits_for, a_timer,
    a_task_that_awaits_it, a_gather, a_socket, nothing_as_it_has_ended, nothing_as_it_was_cancelled,
)  # fmt: skip


@pytest.mark.parametrize("program", KEPT.values(), ids=KEPT)
def test_a_task_that_something_keeps_is_not_lost(ward: Ward, program: Program) -> None:
    kept = ward.loop.run_until_complete(program(ward))
    ward.loop.run_until_complete(turn())
    found = codes(ward)
    if isinstance(kept, Closing):
        ward.loop.run_until_complete(kept.close())

    assert found == []
    del kept


# -- waits that may last ---------------------------------------------------------------------------


async def for_a_group_whose_tasks_go_on() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(600))


async def for_a_gather_whose_tasks_go_on() -> None:
    await asyncio.gather(asyncio.sleep(600), asyncio.sleep(600))


async def for_a_task_that_goes_on() -> None:
    await asyncio.create_task(asyncio.sleep(600))


async def for_a_shielded_task_that_goes_on() -> None:
    await asyncio.shield(asyncio.create_task(asyncio.sleep(600)))


async def for_the_first_of_some_that_go_on() -> None:
    await asyncio.wait([asyncio.create_task(asyncio.sleep(600))], return_when=asyncio.FIRST_COMPLETED)


async def for_the_next_of_some_that_go_on() -> None:
    for done in asyncio.as_completed([asyncio.sleep(600)]):
        await done


async def for_clients() -> None:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    async with server:
        await server.serve_forever()


async def for_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        await asyncio.get_running_loop().sock_accept(listening)


async def with_a_time_limit() -> None:
    async with asyncio.timeout(600):
        await asyncio.Event().wait()


async def asleep() -> None:
    await asyncio.sleep(600)


LASTING = by_name(
    for_a_group_whose_tasks_go_on, for_a_gather_whose_tasks_go_on, for_a_task_that_goes_on,
    for_a_shielded_task_that_goes_on, for_the_first_of_some_that_go_on, for_the_next_of_some_that_go_on,
    for_clients, for_a_connection, with_a_time_limit, asleep,
)  # fmt: skip


@pytest.mark.parametrize("waits", LASTING.values(), ids=LASTING)
def test_a_wait_that_may_last_is_no_long_one(
    ward: Ward, waits: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    task = ward.start(waits(), "waits")
    ward.loop.run_until_complete(turn())
    ward.facts()  # sees it waiting

    assert codes(ward, long_wait_s=0.0) == []
    assert not task.done()


def test_the_task_in_a_group_that_waits_for_long_is_named_and_not_the_group(ward: Ward) -> None:
    async def parent() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait(asyncio.Event()), name="child")

    task = ward.start(parent(), "parent")
    ward.loop.run_until_complete(turn())
    ward.facts()
    (found,) = ward.facts(long_wait_s=0.0).waits

    assert found.task.name == "child"
    assert not task.done()


# -- objects of another loop that need it no more ---------------------------------------------------


async def group() -> object:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.sleep(0))
    return tasks


async def time_limit() -> object:
    async with asyncio.timeout(60) as limit:
        await turn()
    return limit


async def timer() -> object:
    return asyncio.get_running_loop().call_later(0, int)


async def event_that_is_set() -> object:
    event = asyncio.Event()
    waiting = asyncio.create_task(event.wait())
    await turn()
    event.set()
    await waiting
    return event


async def closed_server() -> object:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    server.close()
    await server.wait_closed()
    return server


async def closed_stream() -> object:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.close()
    await writer.wait_closed()
    server.close()
    return [reader, writer]


async def future_that_is_done() -> object:
    future = asyncio.get_running_loop().create_future()
    future.set_result(1)
    return future


async def task_that_has_ended() -> object:
    task = asyncio.create_task(asyncio.sleep(0))
    await task
    return task


async def queue_that_nobody_waited_for() -> object:
    jobs: asyncio.Queue[int] = asyncio.Queue()
    jobs.put_nowait(1)
    return jobs


async def lock_that_nobody_waited_for() -> object:
    lock = asyncio.Lock()
    async with lock:
        return lock


async def the_loop_itself() -> object:
    return asyncio.get_running_loop()


OVER = by_name(
    group, time_limit, timer, event_that_is_set, closed_server, closed_stream, future_that_is_done,
    task_that_has_ended, queue_that_nobody_waited_for, lock_that_nobody_waited_for, the_loop_itself,
)  # fmt: skip


def of_other_loop(make: Callable[[], Coroutine[Any, Any, object]]) -> object:
    """Return what *make* returns on a loop of another thread, which is closed by now."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(make())).result()


@pytest.mark.parametrize("make", OVER.values(), ids=OVER)
def test_an_object_that_needs_its_loop_no_more_is_none(
    ward: Ward, make: Callable[[], Coroutine[Any, Any, object]]
) -> None:
    ward.variables["found"] = of_other_loop(make)

    assert codes(ward) == []


async def event_that_is_not_set() -> object:
    event = asyncio.Event()
    waiting = asyncio.create_task(event.wait())
    await turn()
    waiting.cancel()
    return event


def test_an_object_that_needs_its_loop_is_found(ward: Ward) -> None:
    ward.variables["found"] = of_other_loop(event_that_is_not_set)

    assert codes(ward) == ["object-of-other-loop"]


# -- what is not foreign ---------------------------------------------------------------------------


def an_exception_handler(ward: Ward) -> None:
    ward.loop.set_exception_handler(lambda _loop, _context: None)


def another_slow_callback_duration(ward: Ward) -> None:
    ward.loop.slow_callback_duration = 1.0


def a_pool_of_the_users(ward: Ward) -> None:
    ward.variables["pool"] = pool = ThreadPoolExecutor(2)
    ward.loop.set_default_executor(pool)


def a_timer_of_the_users(ward: Ward) -> None:
    ward.variables["timer"] = ward.loop.call_later(600, print)


def a_factory_that_was_taken_back(ward: Ward) -> None:
    ward.loop.set_task_factory(lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options))
    ward.loop.set_task_factory(None)


def debug_mode_that_was_taken_back(ward: Ward) -> None:
    ward.loop.set_debug(True)
    ward.loop.set_debug(False)


def a_loop_in_another_thread(ward: Ward) -> None:
    of_other_loop(lambda: asyncio.sleep(0, 1))


def another_loop_in_debug_mode(ward: Ward) -> None:
    other = asyncio.new_event_loop()
    other.set_debug(True)
    ward.variables["other"] = other
    other.close()


def a_task_of_a_class_of_the_users(ward: Ward) -> None:
    class Mine(asyncio.Task[None]):
        """A task."""

    async def main() -> None:
        ward.variables["mine"] = Mine(asyncio.sleep(600), loop=ward.loop)
        await turn()

    ward.loop.run_until_complete(main())


def a_thread(ward: Ward) -> None:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


ALLOWED = by_name(
    an_exception_handler, another_slow_callback_duration, a_pool_of_the_users, a_timer_of_the_users,
    a_factory_that_was_taken_back, debug_mode_that_was_taken_back, a_loop_in_another_thread,
    another_loop_in_debug_mode, a_task_of_a_class_of_the_users, a_thread,
)  # fmt: skip


@pytest.mark.parametrize("change", ALLOWED.values(), ids=ALLOWED)
def test_what_anybody_may_do_is_not_foreign(ward: Ward, change: Callable[[Ward], None]) -> None:
    change(ward)

    assert codes(ward) == []
