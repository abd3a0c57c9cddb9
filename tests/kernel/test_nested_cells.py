"""Blocking calls in cells of a real kernel: they nest, and the loop stays live meanwhile."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.cells import dedented

if TYPE_CHECKING:
    from tests.kernel.driver import Comm, KernelDriver

CALLS = {
    "run": "asyncio.run(f())",
    "runner": "asyncio.Runner().run(f())",
    "until complete": "asyncio.get_event_loop().run_until_complete(f())",
    "submitted": "asyncio.run_coroutine_threadsafe(f(), asyncio.get_event_loop()).result()",
    "loopnb.run": "__import__('loopnb').run(f())",
}
PLACES = {
    "plain cell": "answer = {call}",
    "await cell": dedented(
        """
        await asyncio.sleep(0)
        answer = {call}
        """
    ),
    "task": dedented(
        """
        async def task(): return {call}
        answer = await asyncio.create_task(task())
        """
    ),
    "call_soon callback": dedented(
        """
        loop = asyncio.get_running_loop(); done = loop.create_future()
        loop.call_soon(lambda: done.set_result({call}))
        answer = await done
        """
    ),
}


# All calls in all places: tests/nesting/test_engine_callers.py.
NESTS = [(call, PLACES["plain cell"]) for call in CALLS.values()]
NESTS += [(CALLS["run"], place) for place in PLACES.values() if place is not PLACES["plain cell"]]


@pytest.mark.parametrize(("call", "place"), NESTS, ids=[*CALLS, *list(PLACES)[1:]])
def test_a_blocking_call_nests(kernel: KernelDriver, call: str, place: str) -> None:
    kernel.run(
        """
        import asyncio
        async def f():
            await asyncio.sleep(0.01)
            return 42
        answer = None
        """
    )

    kernel.run(place.format(call=call))

    assert kernel.value("answer") == 42


def test_the_loop_goes_on_during_a_nested_run(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio
        turns = 0
        """
    )
    kernel.run(
        """
        async def turn():
            global turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)
        """
    )
    kernel.run("turner = asyncio.create_task(turn())")

    kernel.run(
        """
        before = turns
        async def has_turned():
            while turns < before + 5: await asyncio.sleep(0.01)
            return 'gone on'
        during = asyncio.run(asyncio.wait_for(has_turned(), 20))
        turner.cancel()
        """
    )

    assert kernel.value("during") == "gone on"


def test_a_name_imported_before_loading_nests_too_and_is_stock_after_unloading(
    unloaded_kernel: KernelDriver,
) -> None:
    unloaded_kernel.run(
        """
        import asyncio
        from asyncio import run
        stock = run.__code__
        """
    )

    unloaded_kernel.run("%load_ext loopnb")
    assert unloaded_kernel.value("run(asyncio.sleep(0.01, 5))") == 5

    unloaded_kernel.run("%unload_ext loopnb")
    assert unloaded_kernel.value("run.__code__ is stock and run is asyncio.run")


def test_a_traceback_shows_the_users_frames_only(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio
        def inner():
            1 / 0
        async def outer():
            inner()
        """
    )

    result = kernel.execute("asyncio.run(outer())")

    assert result.ename == "ZeroDivisionError"
    assert "inner()" in result.traceback
    assert "loopnb" not in result.traceback
    assert "asyncio/" not in result.traceback


def test_a_client_of_one_run_works_in_the_next(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio
        async def echo(reader, writer):
            while line := await reader.readline():
                writer.write(line)
            writer.close()
        server = asyncio.run(asyncio.start_server(echo, '127.0.0.1', 0))
        reader, writer = asyncio.run(asyncio.open_connection(*server.sockets[0].getsockname()))
        """
    )
    kernel.run(
        """
        async def ask(line):
            writer.write(line)
            return await reader.readline()
        """
    )

    assert kernel.value("asyncio.run(ask(b'once\\n'))") == b"once\n"
    assert kernel.value("asyncio.run(ask(b'twice\\n'))") == b"twice\n"
    kernel.run("writer.close(); server.close(); await server.wait_closed()")


def test_another_loop_runs_in_a_cell_as_without_a_kernel(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio
        other = asyncio.new_event_loop()
        """
    )

    assert kernel.value("other.run_until_complete(asyncio.sleep(0.01, 'other'))") == "other"
    assert kernel.value("asyncio.run(asyncio.sleep(0.01, 'mine'), **({}))") == "mine"
    kernel.run("other.close()")


def test_comm_messages_are_handled_during_a_nested_run(kernel: KernelDriver, clicks: Comm) -> None:
    cell = kernel.start(
        """
        asyncio.run(asyncio.wait_for(clicked.wait(), 20))
        print('click received')
        """
    )
    cell.wait_for(lambda: kernel.is_alive(), "start")
    clicks.send({})

    cell.wait().expect_ok()
    assert "click received" in cell.stdout


def test_a_nested_run_from_a_thread_without_a_loop_is_the_stock_one(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio, threading
        seen = []
        """
    )

    kernel.run(
        """
        async def which(): return asyncio.get_running_loop()
        thread = threading.Thread(target=lambda: seen.append(asyncio.run(which())))
        thread.start(); thread.join()
        """
    )

    assert kernel.value("seen[0] is not asyncio.get_running_loop() and seen[0].is_closed()")


def test_loopnb_run_submits_from_a_thread(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio, loopnb
        async def which(): return asyncio.get_running_loop()
        """
    )

    cell = kernel.run("await asyncio.to_thread(loopnb.run, which()) is asyncio.get_running_loop()")

    assert cell.result == "True"


def test_an_error_of_what_a_thread_submits_shows_no_frame_of_ours(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio, loopnb
        async def fails():
            raise ValueError('expected')
        """
    )

    result = kernel.execute("await asyncio.to_thread(loopnb.run, fails())")

    assert result.ename == "ValueError"
    assert "loopnb/" not in result.traceback


def test_loopnb_run_in_a_thread_with_its_own_loop_says_what_to_do(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio, loopnb
        async def inner():
            return loopnb.run(asyncio.sleep(0))
        """
    )

    result = kernel.execute("await asyncio.to_thread(asyncio.run, inner())")

    assert result.ename == "NestingError"
    assert "loop of its own" in result.evalue
    assert "await" in result.evalue


def test_a_blank_cell_that_a_cell_runs_does_not_end_it(kernel: KernelDriver) -> None:
    cell = kernel.run(
        """
        get_ipython().run_cell('')
        %loopnb
        """
    )

    assert "executing" in cell.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="only there memory can be limited, and counted so")
def test_memory_that_runs_out_below_nested_runs_is_an_error_of_the_cell(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run(
        """
        import asyncio, loopnb, resource
        from pathlib import Path

        waiting = asyncio.Event()
        async def held(): return asyncio.run(waiting.wait())
        tasks = [loopnb.spawn(held()) for _ in range(20)]
        await asyncio.sleep(0)

        async def greedy(): return bytearray(2**32)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        unlimited = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, unlimited[1]))
        """
    )

    assert fresh_kernel.execute("asyncio.run(greedy())").ename == "MemoryError"
    fresh_kernel.run("resource.setrlimit(resource.RLIMIT_AS, unlimited); waiting.set()")
    assert fresh_kernel.run(
        "await asyncio.gather(*tasks); asyncio.run(asyncio.sleep(0, 'goes on'))"
    ).result == ("'goes on'")
