"""Where no stack can be parked, a nested run is refused with the reason, and nothing has begun."""

from __future__ import annotations

import asyncio
import gc
import heapq
import threading
from typing import TYPE_CHECKING, Any

from loopnb.errors import NestingError
from tests.nesting.conftest import seven

if TYPE_CHECKING:
    from collections.abc import Callable

Run = Any


def test_a_signal_handler_within_a_change_of_the_timers_is_refused_with_the_reason() -> None:
    async def main() -> BaseException | None:
        loop = asyncio.get_running_loop()
        timers = [loop.call_later(1000 + number, lambda: None) for number in range(3)]
        caught: list[BaseException] = []
        compare = asyncio.TimerHandle.__lt__.__code__

        def interrupt(frame: Any, event: str, _argument: object) -> None:
            if frame.f_code is compare and event == "call":
                import sys

                sys.setprofile(None)
                coro = seven()
                try:
                    asyncio.run(coro)
                except NestingError as error:
                    coro.close()
                    caught.append(error)

        import sys

        sys.setprofile(interrupt)
        timers.append(loop.call_later(1, lambda: None))
        sys.setprofile(None)
        for timer in timers:
            timer.cancel()
        return caught[0] if caught else None

    error = asyncio.run(main())
    assert isinstance(error, NestingError)
    assert "timers" in error.reason


def test_a_finalizer_between_two_handles_is_refused_with_the_reason() -> None:
    caught: list[str] = []

    class Finalized:
        def __del__(self) -> None:
            coro = seven()
            try:
                asyncio.run(coro)
            except NestingError as error:
                caught.append(error.reason)
                coro.close()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.run_until_complete(asyncio.sleep(0))
        # Cancelled, a handle drops its arguments here; run, it drops them when the pass takes the next.
        loop.call_soon(lambda _finalized: None, Finalized())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert len(caught) == 1
    assert "between two handles" in caught[0]


class Cyclic:
    """Calls something when it is finalized: by the garbage collector, for it refers to itself."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.this = self

    def __del__(self) -> None:
        self.call()


def test_a_finalizer_that_the_garbage_collector_calls_is_refused_with_the_reason(run: Run) -> None:
    caught: list[str] = []

    def nests() -> None:
        coro = seven()
        try:
            asyncio.run(coro)
        except NestingError as error:
            caught.append(error.reason)
            coro.close()

    async def main() -> int:
        asyncio.run(asyncio.sleep(0))
        await asyncio.sleep(0)
        Cyclic(nests)
        gc.collect()
        return asyncio.run(seven())

    assert run(main()) == 7
    assert len(caught) == 1
    assert "garbage is being collected" in caught[0]


def test_a_refused_coroutine_has_not_been_touched_and_can_be_awaited(run: Run) -> None:
    refused: list[Any] = []

    def tries() -> None:
        for call in (asyncio.run, asyncio.get_running_loop().run_until_complete, asyncio.Runner().run):
            coro = seven()
            try:
                call(coro)
            except NestingError:
                refused.append(coro)

    async def main() -> list[int]:
        Cyclic(tries)
        gc.collect()
        return [await coro for coro in refused]

    assert run(main()) == [7, 7, 7]


def test_a_collection_in_another_thread_hinders_nobody() -> None:
    begun, over = threading.Event(), threading.Event()

    def finalizes() -> None:
        begun.set()
        assert over.wait(10)

    def collects() -> None:
        Cyclic(finalizes)
        gc.collect()

    async def main() -> int:
        thread = threading.Thread(target=collects)
        thread.start()
        assert begun.wait(10)
        try:
            return asyncio.run(seven())
        finally:
            over.set()
            thread.join()

    assert asyncio.run(main()) == 7


def test_timers_stay_a_heap_whatever_nests(run: Run) -> None:
    async def main() -> bool:
        loop: Any = asyncio.get_running_loop()

        async def nests(number: int) -> None:
            await asyncio.sleep(0)
            loop.run_until_complete(asyncio.sleep(number % 7 / 1000))

        await asyncio.gather(*(nests(number) for number in range(100)))
        timers = list(loop._scheduled)
        heapq.heapify(timers)
        return bool(timers == loop._scheduled)

    assert run(main())
