"""Installed and removed at any point, the engine leaves asyncio and the loop as they were."""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.runners
import gc
import sys
import threading
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopnb import nesting
from loopnb.errors import NestingError
from loopnb.nesting.scope import engine_of
from tests.loops import turns

OWNERS: list[Any] = [
    asyncio,
    asyncio.runners,
    asyncio.Runner,
    asyncio.base_events.BaseEventLoop,
    *asyncio.SelectorEventLoop.__mro__[:-1],
]


def picture() -> list[Any]:
    """Take down every attribute that could be patched, and the code of functions that are."""
    attributes = [dict(vars(owner)) for owner in OWNERS]
    return [attributes, asyncio.run.__code__, anyio.run.__code__, list(sys.meta_path), list(gc.callbacks)]


def picture_of(loop: Any) -> list[Any]:
    changes = ("_ready", "_scheduled", "_timer_cancelled_count", "_thread_id", "_stopping", "_asyncgens")
    attributes = {
        name: value
        for name, value in vars(loop).items()
        if name not in changes and "coroutine_origin" not in name and name != "_default_executor"
    }
    return [attributes, loop.get_task_factory(), loop.slow_callback_duration.__class__]


@pytest.fixture(autouse=True)
def _off() -> None:
    nesting.remove()


async def nests(delay: float = 0.002) -> int:
    asyncio.run(asyncio.sleep(delay))
    return 7


def test_every_patched_attribute_is_the_very_object_it_was() -> None:
    before = picture()
    nesting.apply()
    assert asyncio.run(nests()) == 7
    assert picture() != before

    nesting.remove()
    assert picture() == before


@pytest.mark.parametrize("debug", [False, True])
def test_the_loop_is_as_it_was(debug: bool) -> None:
    loop = asyncio.new_event_loop()
    loop.set_debug(debug)
    before = picture_of(loop)
    nesting.apply(loop)
    loop.run_until_complete(nests())
    nesting.remove()

    assert picture_of(loop) == before
    loop.close()


def test_the_users_own_factory_is_left_alone() -> None:
    made: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(coro.__qualname__)
        return asyncio.Task(coro, loop=loop, **options)

    async def main() -> tuple[Any, list[str]]:
        loop = asyncio.get_running_loop()
        nesting.apply(loop)
        asyncio.run(asyncio.sleep(0))
        loop.set_task_factory(factory)
        asyncio.run(asyncio.sleep(0))
        nesting.remove()
        return loop.get_task_factory(), list(made)

    assert asyncio.run(main()) == (factory, ["sleep"])


def test_installed_used_and_removed_in_one_callback() -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        before = picture_of(loop)
        seen: list[Any] = []

        def callback() -> None:
            for _ in range(3):
                nesting.apply()
                loop.run_until_complete(asyncio.sleep(0))
                nesting.remove()
                seen.append(picture_of(loop) == before)

        loop.call_soon(callback)
        for number in range(5):  # in the same batch: a stock pass has counted them
            loop.call_soon(seen.append, number)
        while len(seen) < 8:  # noqa: ASYNC110  whatever sets it, sets it in here
            await asyncio.sleep(0.001)
        return seen

    seen = asyncio.run(main())
    assert sorted(map(str, seen)) == sorted(["0", "1", "2", "3", "4", "True", "True", "True"])


def waits_on(loop: asyncio.AbstractEventLoop) -> int:
    engine = engine_of(loop)
    return len(engine.waits) if engine is not None else 0


@pytest.mark.parametrize("others", [0, 1, 50])
def test_the_first_nested_run_in_a_batch_of_ready_handles(others: int) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        ran = 0

        def count() -> None:
            nonlocal ran
            ran += 1

        def first() -> None:
            nesting.apply()
            loop.run_until_complete(asyncio.sleep(0.002))

        for _ in range(others):
            loop.call_soon(count)
        loop.call_soon(first)
        for _ in range(others):
            loop.call_soon(count)
        while engine_of(loop) is None or waits_on(loop) or ran < 2 * others:  # noqa: ASYNC110  the same
            await asyncio.sleep(0.001)
        return ran

    assert asyncio.run(main()) == 2 * others
    nesting.remove()


def test_removed_inside_a_nested_run_it_ends_in_order() -> None:
    before = picture()

    async def removes() -> str:
        nesting.remove()
        await asyncio.sleep(0.002)
        coro = asyncio.sleep(0)
        try:
            asyncio.run(coro)
        except RuntimeError:
            coro.close()
        return "refused"

    async def main() -> tuple[str, bool]:
        loop = asyncio.get_running_loop()
        was = picture_of(loop)
        nesting.apply()
        return asyncio.run(removes()), picture_of(loop) == was

    assert asyncio.run(main()) == ("refused", True)
    assert picture() == before


def test_removed_with_stacks_parked_new_ones_are_refused_and_those_end() -> None:
    async def main() -> tuple[list[Any], str, bool]:
        loop = asyncio.get_running_loop()
        was = picture_of(loop)
        nesting.apply()
        tasks = [loop.create_task(nests(0.05 * number)) for number in range(1, 4)]
        await turns()  # they park
        nesting.remove()
        with pytest.raises(RuntimeError) as caught:
            loop.run_until_complete(tasks[0])
        results = await asyncio.gather(*tasks)
        await asyncio.sleep(0)
        return results, str(caught.value), picture_of(loop) == was

    results, refusal, restored = asyncio.run(main())
    assert results == [7, 7, 7]
    assert "running" in refusal
    assert restored


def test_removed_and_applied_again_with_stacks_parked() -> None:
    async def main() -> tuple[list[Any], int]:
        loop = asyncio.get_running_loop()
        nesting.apply()
        tasks = [loop.create_task(nests(0.01))]
        await asyncio.sleep(0)
        nesting.remove()
        nesting.apply()
        tasks.append(loop.create_task(nests(0.002)))
        results = await asyncio.gather(*tasks)
        engine = engine_of(loop)
        assert engine is not None
        return results, len(engine.waits)

    assert asyncio.run(main()) == ([7, 7], 0)
    nesting.remove()


def test_removed_from_another_thread_the_loop_is_given_back() -> None:
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        was = picture_of(loop)
        nesting.apply(loop)
        nesting.apply()
        await nests()
        thread = threading.Thread(target=nesting.remove)
        thread.start()
        await asyncio.get_running_loop().run_in_executor(None, thread.join)
        await asyncio.sleep(0)
        return picture_of(loop) == was and engine_of(loop) is None

    before = picture()
    assert asyncio.run(main())
    assert picture() == before


def test_each_name_is_taken_back_by_itself() -> None:
    before = picture()
    nesting.apply(who="one")
    nesting.apply(who="two")
    nesting.remove(who="one")
    assert asyncio.run(nests()) == 7

    nesting.remove(who="two")
    assert picture() == before


STEPS = st.lists(st.sampled_from(["apply", "apply here", "remove", "nest", "spawn", "step"]), max_size=25)


@settings(deadline=None)
@given(steps=STEPS)
def test_installing_and_removing_at_random_points(steps: list[str]) -> None:
    before = picture()

    async def tries_to_nest() -> str:
        coro = asyncio.sleep(0.0005)
        try:
            asyncio.run(coro)
        except (NestingError, RuntimeError):
            coro.close()
            return "refused"
        return "nested"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        was = picture_of(loop)
        tasks: list[asyncio.Task[str]] = []
        wanted = False
        for step in steps:
            if step == "apply":
                nesting.apply()
                wanted = True
            elif step == "apply here":
                nesting.apply(loop)
                wanted = True
            elif step == "remove":
                nesting.remove()
                wanted = False
            elif step == "nest":
                assert await tries_to_nest() == ("nested" if wanted else "refused")
            elif step == "spawn":
                tasks.append(asyncio.Task(tries_to_nest(), loop=loop))
            else:
                await asyncio.sleep(0)
        assert set(await asyncio.gather(*tasks)) <= {"nested", "refused"}
        nesting.remove()
        assert picture_of(loop) == was

    asyncio.run(main())
    assert picture() == before
