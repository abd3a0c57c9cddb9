"""Nested runs leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import weakref
from collections import Counter
from typing import Any

import pytest
from greenlet import greenlet

from loopnb.nesting.scope import engine_of
from tests.loops import turns
from tests.nesting.foreground import WaitingUser


def counted() -> Counter[str]:
    gc.collect()
    return Counter(type(thing).__name__ for thing in gc.get_objects())


def greenlets() -> int:
    gc.collect()
    return sum(isinstance(thing, greenlet) for thing in gc.get_objects())


@pytest.mark.timeout(240)
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
    def one_round() -> None:
        async def nests(number: int) -> None:
            asyncio.run(asyncio.sleep(0.001 * (number % 3)))

        async def main() -> None:
            await asyncio.gather(*(nests(number) for number in range(20)))

        asyncio.run(main())

    one_round()
    before, stacks = counted(), greenlets()
    for _ in range(20):
        one_round()
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


async def runs() -> weakref.ref[Any]:
    return weakref.ref(asyncio.get_running_loop())


async def nests() -> weakref.ref[Any]:
    return asyncio.run(runs())


async def fails_below_a_nested_run() -> weakref.ref[Any]:
    with contextlib.suppress(LookupError):
        asyncio.run(fails())
    return await runs()


async def fails() -> None:
    await asyncio.sleep(0)
    raise LookupError


@pytest.mark.parametrize("main", [runs, nests, fails_below_a_nested_run])
@pytest.mark.parametrize("debug", [False, True])
def test_a_closed_loop_is_freed_without_a_collection(main: Any, debug: bool) -> None:
    gc.collect()
    gc.disable()
    try:
        loops = [asyncio.run(main(), debug=debug) for _ in range(3)]
        alive = [loop() for loop in loops]
    finally:
        gc.enable()

    assert alive == [None] * 3


def test_a_loop_that_is_closed_has_the_stock_attributes_again() -> None:
    loop = asyncio.new_event_loop()
    before = set(vars(loop))
    loop.run_until_complete(nests())
    loop.close()

    assert set(vars(loop)) == before
    assert loop.get_task_factory() is None


def test_an_idle_driver_keeps_no_error_that_it_has_delivered() -> None:
    class Marked(KeyboardInterrupt):
        pass

    async def fails() -> None:
        await asyncio.sleep(0)
        raise Marked

    async def main() -> int:
        loop = asyncio.get_running_loop()
        engine = engine_of(loop)
        task = asyncio.current_task()
        assert engine is not None
        assert task is not None
        engine.set_foreground(WaitingUser([task]))
        for _ in range(3):
            with contextlib.suppress(Marked):
                loop.run_until_complete(fails())
        await asyncio.sleep(0)
        return counted()["Marked"]

    assert asyncio.run(main()) == 0
