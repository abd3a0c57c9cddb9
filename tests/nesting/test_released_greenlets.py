"""Libraries that run synchronous code in greenlets and await in it, as SQLAlchemy does."""

from __future__ import annotations

import asyncio
import sys
from random import Random
from typing import TYPE_CHECKING, Any

import greenlet as greenlets
import pytest
from greenlet import getcurrent, greenlet

from tests.loops import turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

Run = Any


def awaited(awaitable: Awaitable[Any]) -> Any:
    """Await from synchronous code, in a greenlet of `spawned`."""
    parent: Any = getcurrent().parent
    return parent.switch(awaitable)


async def spawned(fn: Callable[..., Any], *args: Any) -> Any:
    """Run synchronous code that may call `awaited`."""
    stack = greenlet(fn, getcurrent())
    stack.gr_context = getcurrent().gr_context
    result = stack.switch(*args)
    while not stack.dead:
        try:
            value = await result
        except BaseException:  # noqa: BLE001  it is the synchronous code's
            result = stack.throw(*sys.exc_info())
        else:
            result = stack.switch(value)
    return result


@pytest.fixture(autouse=True)
def _trace() -> Iterator[None]:
    """Nothing may be left of what follows switches."""
    before = greenlets.gettrace()
    yield
    assert greenlets.gettrace() is before


def test_one_that_nests_keeps_no_other_from_its_values(run: Run) -> None:
    def awaits(number: int) -> list[int]:
        return [awaited(asyncio.sleep(0.002, number + step)) for step in range(5)]

    def nests() -> tuple[int, int]:
        return awaited(asyncio.sleep(0, 1)), asyncio.run(asyncio.sleep(0.02, 2))

    async def main() -> Any:
        return await asyncio.gather(spawned(awaits, 10), spawned(nests), spawned(awaits, 20), spawned(nests))

    assert run(main()) == [[10, 11, 12, 13, 14], (1, 2), [20, 21, 22, 23, 24], (1, 2)]


@pytest.mark.parametrize("seed", range(5))
def test_any_number_that_await_nest_and_fail(run: Run, seed: int) -> None:
    async def ends(number: int, delay: float) -> int:
        await asyncio.sleep(delay)
        if number % 7 == 3:
            raise ValueError(number)
        return number

    def works(random: Random, number: int) -> list[Any]:
        got: list[Any] = []
        for step in range(6):
            coro = ends(number + step, random.choice((0, 0.001, 0.004)))
            try:
                got.append(awaited(coro) if random.random() < 0.6 else asyncio.run(coro))
            except ValueError as error:
                got.append(error.args)
        return got

    def expected(number: int) -> list[Any]:
        return [(n,) if n % 7 == 3 else n for n in range(number, number + 6)]

    async def main() -> list[Any]:
        return await asyncio.gather(
            *(spawned(works, Random(f"{seed} {number}"), number) for number in range(0, 300, 10))
        )

    assert run(main()) == [expected(number) for number in range(0, 300, 10)]


def test_those_of_another_loop_are_left_to_that(run: Run) -> None:
    def nests(number: int) -> int:
        result: int = asyncio.run(asyncio.sleep(0.005, number))
        return result

    def runs_another_loop() -> list[int]:
        async def inner() -> list[int]:
            found: list[int] = await asyncio.gather(*(spawned(nests, number) for number in range(3)))
            return found

        loop = asyncio.new_event_loop()
        try:
            result: list[int] = loop.run_until_complete(inner())
            return result
        finally:
            loop.close()

    async def later(fn: Callable[..., Any], *args: Any) -> Any:
        await asyncio.sleep(0.001)
        return await spawned(fn, *args)

    async def main() -> Any:
        return await asyncio.gather(spawned(nests, 4), later(runs_another_loop))

    assert run(main()) == [4, [0, 1, 2]]


def test_a_cancelled_one_ends_at_its_nested_run(run: Run) -> None:
    def nests() -> str:
        try:
            asyncio.run(asyncio.sleep(60))
        except asyncio.CancelledError:
            return "cancelled"
        return "ended"

    def awaits() -> int:
        return sum(awaited(asyncio.sleep(0.001, 1)) for _ in range(10))

    async def later(fn: Callable[[], Any]) -> Any:
        await asyncio.sleep(0)  # else an eager task nests on the stack of its creator
        return await spawned(fn)

    async def main() -> tuple[str, int]:
        task, other = asyncio.create_task(later(nests)), asyncio.create_task(later(awaits))
        await turns()  # the first parks
        task.cancel()
        return await task, await other

    assert run(main()) == ("cancelled", 10)


def test_somebody_elses_trace_function_is_called_and_stays(run: Run) -> None:
    seen: list[str] = []

    def trace(event: str, _stacks: object) -> None:
        seen.append(event)

    def nests() -> int:
        result: int = asyncio.run(asyncio.sleep(0.001, 7))
        return result

    async def main() -> int:
        before = greenlets.settrace(trace)
        try:
            result: int = await spawned(nests)
            assert greenlets.gettrace() is trace
            return result
        finally:
            greenlets.settrace(before)

    assert run(main()) == 7
    assert "switch" in seen
