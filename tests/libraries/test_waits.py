"""What a task waits for in libraries: anyio's groups and streams, and HTTP responses, and databases."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from loopnb.tracking import chains, graph
from loopnb.tracking.details import detail_of
from loopnb.tracking.tracker import Tracker
from tests.kernel.servers import postgres, redis

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from loopnb.records import WaitDetail


def run(main: Callable[[Tracker], Coroutine[Any, Any, Any]]) -> Any:
    """Run an async function on a tracked loop."""
    with asyncio.Runner() as runner:
        tracker = Tracker(
            runner.get_loop(),
            describe=lambda file, line, cell=None: f"{file.rpartition('/')[2]}:{line}",
            is_kernels=lambda _code: False,
        )
        tracker.install()
        try:
            return runner.run(main(tracker))
        finally:
            tracker.remove()


async def looked_at(
    tracker: Tracker, coro: Coroutine[Any, Any, None], words: str
) -> tuple[str, str, list[str]]:
    """Wait until a task that runs *coro* waits for *words*. Return detail, row, and those it waits for."""
    task = asyncio.create_task(coro, name="top")
    async with asyncio.timeout(20):
        while not re.search(words, shown := detail_of(tracker, task).text):  # noqa: ASYNC110  no event tells
            await asyncio.sleep(0.005)
    edges = graph.finish(graph.slices(tracker))
    below = [edges.records[number].name for number in edges.awaits.get(tracker.number_of(task), ())]
    row = tracker.record(task)
    task.cancel()
    await asyncio.wait([task])
    return shown, f"{row.waits_for} at {row.waits_at}", below


def test_the_tasks_of_an_anyio_group_are_what_it_waits_for() -> None:
    async def group() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 600, name="child")

    shown, _row, below = run(lambda tracker: looked_at(tracker, group(), "group"))
    assert shown == "the tasks of its group"
    assert below == ["child"]


def test_a_memory_stream_says_what_it_is_called_and_that_it_is_empty() -> None:
    async def receive() -> None:
        sending, receiving = anyio.create_memory_object_stream[int](1)
        async with sending, receiving:
            await receiving.receive()

    shown, _row, _below = run(lambda tracker: looked_at(tracker, receive(), "receive"))
    assert shown == "receive of receiving"


def test_a_lock_of_anyios_names_its_holder() -> None:
    async def main(tracker: Tracker) -> str:
        lock = anyio.Lock()

        async def hold() -> None:
            async with lock:
                await anyio.sleep(600)

        async def need() -> None:
            async with lock:
                pass

        holder = asyncio.create_task(hold(), name="worker")
        await asyncio.sleep(0.01)
        shown, _row, _below = await looked_at(tracker, need(), "held by")
        holder.cancel()
        await asyncio.wait([holder])
        return shown

    assert re.fullmatch(r"Lock lock held by worker \(test_waits\.py:\d+\)", run(main))


async def ask_aiohttp(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        await response.read()


async def ask_httpx(url: str) -> None:
    async with httpx.AsyncClient() as client:
        await client.get(url)


@pytest.mark.parametrize("ask", [ask_aiohttp, ask_httpx])
def test_a_request_says_which_response_it_waits_for(ask: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    async def main(tracker: Tracker) -> tuple[str, str, list[str]]:
        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(Exception):
                await reader.read()
            writer.close()

        server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        found = await looked_at(tracker, ask(f"http://user:secret@127.0.0.1:{port}/items?page=2"), "HTTP")
        server.close()
        await asyncio.sleep(0.05)
        return found

    shown, row, _below = run(main)
    package = ask.__name__.removeprefix("ask_")
    assert shown == f"HTTP response of GET /items?page=2 ({package})"
    assert row.startswith(f"an HTTP response at {ask.__name__} test_waits.py:")


async def ask_postgres(server: str) -> None:
    connection = await asyncpg.connect(host=server, user="postgres")
    try:
        await connection.fetch("select pg_sleep(600)")
    finally:
        connection.terminate()


async def ask_postgres_without_arguments(server: str) -> None:
    connection = await asyncpg.connect(host=server, user="postgres")
    try:
        await connection.execute("select pg_sleep(600)")
    finally:
        connection.terminate()


async def ask_postgres_by_a_pool(server: str) -> None:
    pool = await asyncpg.create_pool(host=server, user="postgres", min_size=1)
    try:
        await pool.fetchval("select pg_sleep(600)")
    finally:
        pool.terminate()


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (ask_postgres, "Connection.fetch()"),
        (ask_postgres_without_arguments, "Connection.execute()"),
        (ask_postgres_by_a_pool, "Pool.fetchval()"),
    ],
)
def test_a_query_says_which_database_is_to_answer(
    ask: Callable[[str], Coroutine[Any, Any, None]], what: str
) -> None:
    with postgres() as server:
        detail, source = run(
            lambda tracker: detail_at(tracker, ask(server), rf"{re.escape(what)} of asyncpg")
        )

    assert detail.text == f"{what} of asyncpg"
    assert detail.state == f"{server}/.s.PGSQL.5432"
    assert source.startswith("await ")


async def ask_redis(server: str) -> None:
    async with Redis(unix_socket_path=server, socket_timeout=None) as client:
        await client.blpop(["jobs"], 0)


async def ask_redis_for_a_stream(server: str) -> None:
    async with Redis(unix_socket_path=server, socket_timeout=None) as client:
        await client.xread({"jobs": "$"}, block=0)


@pytest.mark.parametrize("ask", [ask_redis, ask_redis_for_a_stream])
def test_a_command_of_redis_says_which_server_is_to_answer(
    ask: Callable[[str], Coroutine[Any, Any, None]],
) -> None:
    with redis() as server:
        detail, source = run(lambda tracker: detail_at(tracker, ask(server), f"bytes from {server}"))

    assert detail.text == f"bytes from {server}"
    assert source.startswith("await client.")


async def detail_at(tracker: Tracker, coro: Coroutine[Any, Any, None], words: str) -> tuple[WaitDetail, str]:
    """Wait until a task that runs *coro* waits for *words*. Return the detail, and the text of its line."""
    task = asyncio.create_task(coro)
    async with asyncio.timeout(60):
        while not re.search(words, (detail := detail_of(tracker, task)).text):
            assert not task.done(), task
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.wait([task])
    place, _, source = detail.line.partition(": ")
    assert place.startswith("test_waits.py:")
    return detail, source


def test_chains_know_each_link_of_a_library() -> None:
    async def receive() -> None:
        sending, receiving = anyio.create_memory_object_stream[int](1)
        async with sending, receiving:
            await receiving.receive()

    async def main(tracker: Tracker) -> str:
        task = asyncio.create_task(receive())
        await asyncio.sleep(0.01)
        kind = chains.reason_of(chains.chain_of(task)).kind
        task.cancel()
        await asyncio.wait([task])
        return kind

    assert run(main) == "receive item"
