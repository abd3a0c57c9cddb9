"""Nested runs in greenlets of the user's own."""

from __future__ import annotations

import asyncio
from typing import Any

from greenlet import getcurrent, greenlet

from tests.nesting.conftest import seven

Run = Any


def test_a_greenlet_of_the_user_can_nest(run: Run) -> None:
    async def nests(number: int) -> int:
        await asyncio.sleep(0)
        other = greenlet(lambda: asyncio.run(seven()) + number)
        result: int = other.switch()
        return result

    async def main() -> list[int]:
        return await asyncio.gather(*(nests(number) for number in range(5)))

    assert run(main()) == [7, 8, 9, 10, 11]


def test_what_shares_the_context_below_a_greenlet_runs(run: Run) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        problems: list[Any] = []
        loop.set_exception_handler(lambda _loop, context: problems.append(context))
        runs = 0

        def tick() -> None:
            nonlocal runs
            runs += 1

        def nests() -> None:
            for _ in range(3):
                loop.call_soon(tick, context=context)
            asyncio.run(asyncio.sleep(0.01))

        import contextvars

        context = contextvars.copy_context()
        context.run(lambda: greenlet(nests).switch())
        assert not problems
        return runs

    assert run(main()) == 3


def test_a_greenlet_used_on_another_stack_than_it_began_on_returns_to_its_caller() -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        mine: list[greenlet] = []

        def body(_value: Any) -> str:
            mine[0].parent.switch("begun")
            return "ended"

        async def begins() -> Any:
            other = greenlet(body)
            mine.append(other)
            first = other.switch(None)
            loop.run_until_complete(asyncio.sleep(0.01))
            return first

        async def ends() -> Any:
            loop.run_until_complete(asyncio.sleep(0.002))
            return mine[0].switch(None)

        return await asyncio.gather(begins(), ends())

    assert asyncio.run(main()) == ["begun", "ended"]


def test_a_stack_that_a_handle_has_switched_to_nests_and_switches_back() -> None:
    # As under Playwright's sync API: the loop runs in a greenlet of its own, and each call goes
    # there until a handle switches back to the caller.
    caller = getcurrent()
    loop = asyncio.new_event_loop()
    ended = loop.create_future()
    fiber = greenlet(lambda: loop.run_until_complete(ended))

    def call(coro: Any) -> Any:
        task = loop.create_task(coro)
        task.add_done_callback(lambda _task: caller.switch())
        while not task.done():
            fiber.switch()
        return task.result()

    async def nests() -> int:
        return asyncio.run(seven())

    got = []
    for run in (call, asyncio.run) * 4:
        others = [loop.create_task(nests()) for _ in range(3)]  # they need drivers, too
        got.append(run(seven()))
        got += call(asyncio.wait_for(asyncio.gather(*others), 5))
    loop.call_soon(ended.set_result, None)
    while not fiber.dead:
        fiber.switch()
    loop.close()

    assert got == [7] * 32
