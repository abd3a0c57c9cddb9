"""Nested runs leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections import Counter
from typing import Any

import pytest
from greenlet import greenlet

from loopnb.nesting.scope import engine_of
from tests.loops import turns


def counted() -> Counter[str]:
    gc.collect()
    return Counter(type(thing).__name__ for thing in gc.get_objects())


def greenlets() -> int:
    gc.collect()
    return sum(isinstance(thing, greenlet) for thing in gc.get_objects())


def test_100_000_nested_runs_leave_memory_and_objects_as_they_were() -> None:
    async def main() -> tuple[Counter[str], int]:
        loop = asyncio.get_running_loop()

        def several(count: int) -> None:
            for _ in range(count):
                loop.run_until_complete(asyncio.sleep(0))

        await asyncio.sleep(0)
        several(1000)
        await asyncio.sleep(0)
        before, blocks = counted(), sys.getallocatedblocks()
        several(100_000)
        await asyncio.sleep(0)
        after, blocks_after = counted(), sys.getallocatedblocks()
        return after - before, blocks_after - blocks

    more, blocks = asyncio.run(main())
    assert sum(more.values()) < 500, more
    assert blocks < 2000


def test_after_a_burst_a_handful_of_drivers_remains() -> None:
    async def main() -> tuple[int, int]:
        loop = asyncio.get_running_loop()

        async def nests() -> None:
            loop.run_until_complete(asyncio.sleep(0.01))

        await asyncio.sleep(0)
        loop.run_until_complete(asyncio.sleep(0))
        before = greenlets()
        for _ in range(3):
            await asyncio.gather(*(nests() for _ in range(500)))
        return before, greenlets()

    before, after = asyncio.run(main())
    assert after - before <= 8


def test_a_loop_that_has_run_and_closed_leaves_nothing() -> None:
    def one() -> None:
        async def nests(number: int) -> None:
            asyncio.run(asyncio.sleep(0.001 * (number % 3)))

        async def main() -> None:
            await asyncio.gather(*(nests(number) for number in range(20)))

        asyncio.run(main())

    one()
    before, stacks = counted(), greenlets()
    for _ in range(20):
        one()
    more = counted() - before
    assert greenlets() - stacks <= 0
    for kind in ("Task", "Context", "Handoff", "Wait", "_UnixSelectorEventLoop"):
        assert more[kind] <= 0, (kind, more)


@pytest.mark.parametrize("ends", ["returns", "raises", "is cancelled"])
def test_no_wake_up_of_one_wait_ends_the_next(ends: str) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        outcomes: list[Any] = []
        waiting: list[bool] = []
        all_wait, second = asyncio.Event(), asyncio.Event()

        async def inner() -> None:
            await asyncio.sleep(0.002)
            if ends == "raises":
                raise LookupError
            if ends == "is cancelled":
                raise asyncio.CancelledError

        async def nests() -> None:
            with contextlib.suppress(LookupError, asyncio.CancelledError):
                loop.run_until_complete(inner())
            waiting.append(True)
            if len(waiting) == 10:
                all_wait.set()
            loop.run_until_complete(second.wait())
            outcomes.append(second.is_set())

        tasks = [asyncio.ensure_future(nests()) for _ in range(10)]
        await all_wait.wait()
        await turns()
        assert outcomes == []
        second.set()
        await asyncio.gather(*tasks)
        engine = engine_of(loop)
        assert engine is not None
        return [*outcomes, len(engine.waits)]

    assert asyncio.run(main()) == [True] * 10 + [0]
