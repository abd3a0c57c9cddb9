"""Waits end when what they wait for is done, in any order, at any depth, in any number."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any

import pytest

from loopnb import nesting
from tests.loops import FastLoop, turns
from tests.nesting.conftest import FACTORIES

if TYPE_CHECKING:
    from collections.abc import Callable

Run = Any


async def value_after(delay: float, value: Any = None) -> Any:
    await asyncio.sleep(delay)
    return value


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_three_waits_end_in_the_order_of_their_lengths(factory: Any) -> None:
    order: list[float] = []

    async def nests(delay: float) -> None:
        await asyncio.sleep(0)
        order.append(asyncio.run(value_after(delay, delay)))

    async def main() -> None:
        # One after the other, the three would end after this timer.
        timer = asyncio.get_running_loop().call_later(0.68, order.append, 0.68)
        first = asyncio.ensure_future(nests(0.05))
        await asyncio.gather(first, nests(0.5), nests(0.15))
        timer.cancel()

    with contextlib.closing(FastLoop()) as loop:
        loop.set_task_factory(factory)
        loop.run_until_complete(main())

    assert order == [0.05, 0.15, 0.5]


@pytest.mark.parametrize("count", [2, 3, 12])
def test_those_that_are_due_at_the_same_time_end_in_the_order_they_began(run: Run, count: int) -> None:
    async def main() -> list[int]:
        event, order = asyncio.Event(), []

        async def nests(number: int) -> None:
            await asyncio.sleep(0)
            asyncio.run(event.wait())
            order.append(number)

        tasks = [asyncio.ensure_future(nests(number)) for number in range(count)]
        await turns()  # they park
        event.set()
        await asyncio.gather(*tasks)
        return order

    assert run(main()) == list(range(count))


def test_a_wait_can_depend_on_an_earlier_wait(run: Run) -> None:
    async def main() -> Any:
        event = asyncio.Event()

        async def sets_the_event() -> str:
            await asyncio.sleep(0)
            asyncio.run(asyncio.sleep(0.01))
            event.set()
            return "set"

        async def waits_for_the_event() -> str:
            await asyncio.sleep(0)
            asyncio.run(event.wait())
            return "seen"

        return await asyncio.gather(sets_the_event(), waits_for_the_event())

    assert run(main()) == ["set", "seen"]


def test_a_wait_can_depend_on_a_later_wait(run: Run) -> None:
    async def main() -> Any:
        event = asyncio.Event()

        async def waits() -> str:
            await asyncio.sleep(0)
            asyncio.run(event.wait())
            return "seen"

        async def sets() -> str:
            await asyncio.sleep(0)
            asyncio.run(asyncio.sleep(0.01))
            event.set()
            return "set"

        return await asyncio.gather(waits(), sets())

    assert run(main()) == ["seen", "set"]


def test_a_task_in_a_nested_run_can_be_awaited_in_another(run: Run) -> None:
    async def nests() -> int:
        await asyncio.sleep(0)
        return asyncio.run(value_after(0.01, 7))  # type: ignore[no-any-return] # it is an int

    async def main() -> int:
        task = asyncio.ensure_future(nests())
        loop = asyncio.get_running_loop()
        return loop.run_until_complete(task) + await task

    assert run(main()) == 14


if "eager" in FACTORIES:

    def test_the_first_step_of_an_eager_task_waits_on_the_stack_of_its_creator() -> None:
        async def nests(order: list[str]) -> None:
            asyncio.run(asyncio.sleep(0.01))
            order.append("nested")

        async def main() -> list[str]:
            order: list[str] = []
            loop = asyncio.get_running_loop()
            loop.call_soon(order.append, "others go on")
            loop.set_task_factory(FACTORIES["eager"])
            task = loop.create_task(nests(order))
            order.append("created")
            await task
            return order

        assert asyncio.run(main()) == ["others go on", "nested", "created"]


def test_tasks_step_while_a_stack_is_parked(run: Run) -> None:
    async def main() -> int:
        steps = 0

        async def steady() -> None:
            nonlocal steps
            while True:
                steps += 1
                await asyncio.sleep(0)

        async def wait_for_20() -> None:
            for _ in range(1_000):
                if steps < 20:
                    await asyncio.sleep(0)

        task = asyncio.ensure_future(steady())
        asyncio.run(wait_for_20())
        task.cancel()
        return steps

    assert run(main()) >= 20


def test_300_nested_runs_stand_in_each_other(run: Run) -> None:
    async def down(depth: int) -> int:
        await asyncio.sleep(0)
        return 0 if depth == 0 else 1 + asyncio.run(down(depth - 1))

    assert run(down(300)) == 300


def test_5000_nested_runs_wait_at_once(run: Run) -> None:
    async def main() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        gate = loop.create_future()
        parked = 0

        async def nests(number: int) -> int:
            await asyncio.sleep(0)
            nonlocal parked
            parked += 1
            loop.run_until_complete(gate)
            return number

        tasks = [asyncio.ensure_future(nests(number)) for number in range(5000)]
        while parked < 5000:  # noqa: ASYNC110  a pass at a time
            await asyncio.sleep(0)
        gate.set_result(None)
        return parked, sum(await asyncio.gather(*tasks))

    assert run(main()) == (5000, sum(range(5000)))


def test_every_stack_that_can_go_on_does_before_the_loop_blocks() -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        gate = loop.create_future()
        order: list[str] = []

        async def nests() -> None:
            await asyncio.sleep(0)
            loop.run_until_complete(gate)
            order.append("went on")

        tasks = [loop.create_task(nests()) for _ in range(20)]
        await asyncio.sleep(0)
        blocker = loop.call_later(10, order.append, "blocked")  # the next thing the loop would wake up for
        loop.call_soon(gate.set_result, None)
        await asyncio.gather(*tasks)
        blocker.cancel()
        return order

    assert asyncio.run(main()) == ["went on"] * 20


@pytest.mark.parametrize("count", [1, 3])
def test_done_callbacks_of_the_user_have_run_when_a_nested_run_returns(run: Run, count: int) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        seen: list[int] = []
        future = loop.create_future()

        def note(number: int) -> Callable[[Any], None]:
            return lambda _future: seen.append(number)

        for number in range(count):
            future.add_done_callback(note(number))
        loop.call_soon(future.set_result, None)
        loop.run_until_complete(future)
        return seen

    assert run(main()) == list(range(count))


def test_a_wait_for_what_is_done_ends_before_the_loop_blocks(run: Run) -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        blocked: list[str] = []
        blocker = loop.call_later(10, blocked.append, "blocked")
        for _ in range(3):
            future = loop.create_future()
            future.set_result(None)
            loop.run_until_complete(future)
        blocker.cancel()
        return blocked

    assert run(main()) == []


def test_handles_run_in_the_order_they_were_scheduled_in() -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        order: list[int] = []

        def nests(number: int) -> None:
            order.append(number)
            loop.run_until_complete(asyncio.sleep(0))

        for number in range(10):
            loop.call_soon(nests if number % 3 == 0 else order.append, number)
        asyncio.run(asyncio.sleep(0.01))
        return order

    assert asyncio.run(main()) == list(range(10))


def test_a_pass_that_runs_dry_as_another_thread_schedules_something_ends_quietly() -> None:
    scheduled: list[bool] = []
    loop = asyncio.new_event_loop()

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if event == "exception" and frame.f_code.co_name == "_run_once":
            # What a thread may do at this very moment.
            scheduled.append(True)
            loop.call_soon_threadsafe(int)
        return trace

    async def main() -> None:
        future = loop.create_future()
        loop.call_soon(loop.run_until_complete, future)  # its pass counts all of these
        loop.call_soon(future.set_result, None)
        for _ in range(10):
            loop.call_soon(int)
        await asyncio.sleep(0)
        await future

    nesting.apply(loop)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        loop.run_until_complete(main())
    finally:
        sys.settrace(before)
        loop.close()
    assert scheduled


def test_nested_runs_cost_no_more_when_many_begin_at_once() -> None:
    def lines_of(count: int) -> float:
        """Return how many lines of Python each of *count* nested runs takes if all begin in one pass."""
        lines = 0

        def trace(frame: Any, event: str, argument: Any) -> Any:
            nonlocal lines
            lines += event == "line"
            return trace

        async def nests() -> None:
            await asyncio.sleep(0)
            asyncio.run(asyncio.sleep(0))

        async def main() -> None:
            await asyncio.gather(*(nests() for _ in range(count)))

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            asyncio.run(main())
        finally:
            sys.settrace(before)
        return lines / count

    assert lines_of(500) < 1.1 * lines_of(100)


def test_the_newest_goes_first_where_the_user_has_asked_for_it() -> None:
    depth: list[int] = []  # like pybind11's stack of life supports: whoever returns must be on top

    async def nests(number: int, delay: float) -> bool:
        await asyncio.sleep(0)
        depth.append(number)
        asyncio.run(asyncio.sleep(delay))
        return depth.pop() == number

    async def main() -> Any:
        return await asyncio.gather(nests(0, 0.01), nests(1, 0.1), nests(2, 0.03))

    assert not all(asyncio.run(main()))

    nesting.apply(order="lifo")
    depth.clear()
    assert all(asyncio.run(main()))

    nesting.apply()
    depth.clear()
    assert not all(asyncio.run(main()))


async def nests_on(future: asyncio.Future[None]) -> str:
    asyncio.get_running_loop().run_until_complete(future)
    return "went on"


@pytest.mark.parametrize("was_applied_before", [True, False])
def test_a_stop_does_not_spin_where_an_older_wait_is_done_and_the_newest_is_not(
    was_applied_before: bool,
) -> None:
    loop = asyncio.new_event_loop()
    if was_applied_before:
        nesting.apply(loop, order="lifo")
    else:
        nesting.remove()
        loop.call_soon(lambda: nesting.apply(loop, order="lifo"))
    futures = [loop.create_future() for _ in range(2)]
    tasks = [loop.create_task(nests_on(future)) for future in futures]
    loop.call_later(0.01, futures[0].set_result, None)
    loop.call_later(0.03, loop.stop)
    loop.run_forever()
    futures[1].set_result(None)
    outcomes = loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()
    nesting.remove()

    if was_applied_before:
        assert outcomes == ["went on", "went on"]
    else:  # the loop's own stack was parked, and those above it had to end for it to stop
        assert [str(outcome) for outcome in outcomes] == [
            "went on",
            "Event loop stopped before Future completed.",
        ]


def test_nested_runs_in_the_first_batch_do_not_fill_the_ready_queue() -> None:
    async def main() -> int:
        loop: Any = asyncio.get_running_loop()
        for _ in range(100):
            loop.run_until_complete(asyncio.sleep(0))
        return len(loop._ready)

    assert asyncio.run(main()) < 5
