"""Nested runs begin anywhere: in any callback, below C frames, in other greenlets, in finalizers."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import re
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.nesting.conftest import seven

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Run = Any
ON_UNIX = hasattr(signal, "setitimer")


def in_callback(start: Callable[[asyncio.AbstractEventLoop, Callable[[], None]], Any]) -> Any:
    """Run a nested run in a callback that *start* arranges for, and return what came of it."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        outcome = loop.create_future()

        def callback() -> None:
            try:
                outcome.set_result(asyncio.run(seven()))
            except BaseException as error:
                outcome.set_exception(error)
                raise

        start(loop, callback)
        return await outcome

    return asyncio.run(main())


def test_in_call_soon() -> None:
    assert in_callback(lambda loop, callback: loop.call_soon(callback)) == 7


def test_in_call_later() -> None:
    assert in_callback(lambda loop, callback: loop.call_later(0.001, callback)) == 7


def test_in_call_soon_threadsafe() -> None:
    assert (
        in_callback(lambda loop, callback: loop.run_in_executor(None, loop.call_soon_threadsafe, callback))
        == 7
    )


def test_in_a_done_callback() -> None:
    def start(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        future = loop.create_future()
        future.add_done_callback(lambda _future: callback())
        future.set_result(None)

    assert in_callback(start) == 7


def test_in_a_reader() -> None:
    here, there = socket.socketpair()

    def start(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        def read() -> None:
            loop.remove_reader(here)
            callback()

        loop.add_reader(here, read)
        there.send(b"x")

    with here, there:
        assert in_callback(start) == 7


def test_a_reader_is_not_called_again_before_it_has_returned(run: Run) -> None:
    here, there = socket.socketpair()
    got: list[bytes | int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def read() -> None:
            got.append(asyncio.run(seven()))
            got.append(here.recv(1))
            if there.fileno() != -1:
                there.send(b"y")
                there.close()
            elif got[-1] == b"":
                loop.remove_reader(here)
                ended.set()

        ended = asyncio.Event()
        here.setblocking(False)
        loop.add_reader(here, read)
        there.send(b"x")
        await asyncio.wait_for(ended.wait(), 5)

    with here, there:
        run(main())

    assert got == [7, b"x", 7, b"y", 7, b""]


def test_a_protocol_that_nests_gets_what_comes_next(run: Run) -> None:
    here, there = socket.socketpair()
    got: list[Any] = []
    events: dict[str, asyncio.Event] = {}

    class Protocol(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            got.append(data)
            if data == b"x":
                there.send(b"y")
                got.append(asyncio.run(asyncio.wait_for(events["second"].wait(), 5)))
                events["end"].set()
            else:
                events["second"].set()

    async def main() -> None:
        events.update(second=asyncio.Event(), end=asyncio.Event())
        transport, _protocol = await asyncio.get_running_loop().create_connection(Protocol, sock=here)
        there.send(b"x")
        await asyncio.wait_for(events["end"].wait(), 5)
        transport.close()

    with there:
        run(main())

    assert got == [b"x", b"y", True]


@pytest.mark.parametrize("first", ["parked", "returns"])
def test_a_reader_behind_a_handle_that_nests_is_called_once(run: Run, first: str) -> None:
    here, there = socket.socketpair()
    got: list[bytes] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if first == "parked":
            loop.call_soon(lambda: asyncio.run(seven()))
        here.setblocking(False)
        loop.add_reader(here, lambda: got.append(here.recv(1)))
        there.send(b"x")
        for _ in range(20):
            await asyncio.sleep(0)
        loop.remove_reader(here)

    with here, there:
        run(main())

    assert got == [b"x"]


@pytest.mark.skipif(not ON_UNIX, reason="asyncio has no signal handlers on Windows")
def test_a_signal_counts_while_the_handler_of_the_one_before_nests(run: Run) -> None:
    begun: list[int] = []
    got: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def handle() -> None:
            begun.append(1)
            if len(begun) == 1:
                os.kill(os.getpid(), signal.SIGUSR1)
            got.append(asyncio.run(seven()))
            if len(got) == 2:
                ended.set()

        loop.add_signal_handler(signal.SIGUSR1, handle)
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(ended.wait(), 5)
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())

    assert got == [7, 7]


@pytest.mark.skipif(not ON_UNIX, reason="asyncio has no signal handlers on Windows")
def test_in_a_signal_handler_of_the_loop() -> None:
    def start(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        loop.add_signal_handler(signal.SIGUSR1, callback)
        os.kill(os.getpid(), signal.SIGUSR1)

    assert in_callback(start) == 7


def test_in_an_async_generator(run: Run) -> None:
    async def numbers() -> Any:
        for _ in range(3):
            yield asyncio.run(seven())

    async def main() -> list[int]:
        return [number async for number in numbers()]

    assert run(main()) == [7, 7, 7]


def test_in_the_cleanup_of_an_async_generator(run: Run) -> None:
    seen: list[int] = []
    closed = asyncio.Event()

    async def numbers() -> Any:
        try:
            yield 1
            yield 2
        finally:
            seen.append(asyncio.run(seven()))
            closed.set()

    async def main() -> None:
        async for _ in numbers():
            break
        await closed.wait()  # the loop has the generator closed in a task of its own

    run(main())
    assert seen == [7]


def test_in_a_finalizer(run: Run) -> None:
    seen: list[int] = []

    class Finalized:
        def __del__(self) -> None:
            seen.append(asyncio.run(seven()))

    async def main() -> None:
        Finalized()

    run(main())
    assert seen == [7]


def test_below_frames_of_c(run: Run) -> None:
    def key(number: int) -> int:
        return number + asyncio.run(seven())

    @functools.lru_cache
    def cached(number: int) -> int:
        return key(number)

    called_by_c = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(key)

    async def main() -> Any:
        by_map = list(map(key, range(3)))
        by_regex = re.sub("[0-9]", lambda found: str(key(int(found[0]))), "a1b2")
        return sorted([3, 1, 2], key=key), cached(1) + cached(1), called_by_c(5), by_map, by_regex

    async def twice() -> Any:
        return await asyncio.gather(main(), main())

    assert list(run(twice())) == [([1, 2, 3], 16, 12, [7, 8, 9], "a8b9")] * 2


def test_below_frames_of_c_they_end_in_any_order(run: Run) -> None:
    ended: list[int] = []

    async def main() -> None:
        events = [asyncio.Event() for _ in range(3)]

        def wait(number: int) -> int:
            asyncio.run(events[number].wait())
            ended.append(number)
            return number

        async def sorts(number: int) -> None:
            await asyncio.sleep(0)  # the first step of an eager task would park this function, too
            sorted([number], key=wait)

        async def ends() -> None:
            for number in (0, 2, 1):
                events[number].set()
                while number not in ended:  # noqa: ASYNC110  it is a plain function that ends
                    await asyncio.sleep(0)

        await asyncio.gather(sorts(0), sorts(1), sorts(2), ends())

    run(main())
    assert ended == [0, 2, 1]


# -- each call in each place ---------------------------------------------------------------------


def by_run() -> int:
    return asyncio.run(seven())


def by_runner() -> int:
    with asyncio.Runner() as runner:
        return runner.run(seven())


def by_loop() -> int:
    return asyncio.get_running_loop().run_until_complete(seven())


async def in_main(call: Callable[[], int]) -> int:
    return call()


async def after_an_await(call: Callable[[], int]) -> int:
    await asyncio.sleep(0)
    return call()


async def in_a_task(call: Callable[[], int]) -> int:
    return await asyncio.create_task(in_main(call))


async def in_a_callback(call: Callable[[], int]) -> int:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.call_soon(lambda: done.set_result(call()))
    result: int = await done
    return result


@pytest.mark.parametrize("place", [in_main, after_an_await, in_a_task, in_a_callback])
@pytest.mark.parametrize("call", [by_run, by_runner, by_loop])
def test_each_blocking_call_nests_in_each_place(run: Run, call: Any, place: Any) -> None:
    assert run(place(call)) == 7


# -- interrupted anywhere ------------------------------------------------------------------------


@pytest.fixture
def on_alarm() -> Iterator[Callable[[Callable[[], Any]], None]]:
    """Have a Python signal handler call something, once, a few milliseconds from now.

    The signal comes again and again until then: one that comes just before a system call is lost on it.
    """
    if not ON_UNIX:
        pytest.skip("there is no alarm on Windows")
    previous = signal.getsignal(signal.SIGALRM)

    def arrange(call: Callable[[], Any]) -> None:
        def handler(*_: object) -> None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            call()

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.5)

    yield arrange
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("nested_before", [False, True])
def test_a_signal_handler_that_interrupts_select_can_nest_and_leaves_no_stale_timeout(
    on_alarm: Callable[[Callable[[], Any]], None], nested_before: bool
) -> None:
    async def main() -> tuple[list[int], list[str]]:
        loop = asyncio.get_running_loop()
        if nested_before:
            loop.run_until_complete(asyncio.sleep(0))
        seen: list[int] = []
        done = loop.create_future()

        async def slow() -> int:
            await asyncio.sleep(0)
            loop.call_later(0.02, lambda: None if done.done() else done.set_result(None))
            await asyncio.sleep(0.005)
            return 7

        # Nothing else is due before this: only select's stale timeout would end the wait for it.
        stale: list[str] = []
        timer = loop.call_later(8, stale.append, "the timer was first")
        on_alarm(lambda: seen.append(asyncio.run(slow())))
        await done
        timer.cancel()
        return seen, stale

    assert asyncio.run(main()) == ([7], [])


def test_other_threads_are_not_affected() -> None:
    async def main() -> int:
        stop = threading.Event()
        results: list[int] = []

        def work() -> None:
            results.append(asyncio.run(seven()))
            while not stop.is_set():
                results.append(asyncio.run(seven()))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            asyncio.run(seven())
        stop.set()
        await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in threads))
        return len(results)

    assert asyncio.run(main()) >= 3
