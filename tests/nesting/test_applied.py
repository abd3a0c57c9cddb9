"""`with nesting.applied():` nests inside the block, and leaves asyncio as it was."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from loopnb import nesting
from loopnb.errors import NestingError
from loopnb.nesting import scope
from tests.loops import turns
from tests.nesting.test_scope_removal import nests, picture, picture_of
from tests.processes import run_script


@pytest.fixture(autouse=True)
def _off() -> None:
    nesting.remove()


async def is_refused() -> bool:
    """Return True if a nested run is refused here, by asyncio's own error."""
    coro = asyncio.sleep(0)
    try:
        asyncio.run(coro)
    except RuntimeError as error:
        return type(error) is RuntimeError
    finally:
        coro.close()
    return False


def test_a_scope_nests_and_leaves_every_attribute_as_it_was() -> None:
    before = picture()

    with nesting.applied():
        assert asyncio.run(nests()) == 7

    assert picture() == before
    assert asyncio.run(is_refused())


def test_scopes_may_be_nested_and_each_ends_only_its_own() -> None:
    with nesting.applied():
        with nesting.applied(order="lifo"):
            assert scope.wants_lifo()
        assert not scope.wants_lifo()
        assert asyncio.run(nests()) == 7
    assert asyncio.run(is_refused())


def test_a_scope_leaves_what_apply_has_switched_on_and_remove_leaves_the_scope() -> None:
    nesting.apply()
    with nesting.applied():
        nesting.remove()
        assert asyncio.run(nests()) == 7
        nesting.apply()
    assert asyncio.run(nests()) == 7


def test_a_scope_for_one_loop_leaves_the_others_alone() -> None:
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        before = picture_of(loop)

        with nesting.applied(loop):
            assert runner.run(nests()) == 7
            assert asyncio.run(is_refused())

        assert picture_of(loop) == before
        assert runner.run(is_refused())


def test_an_exception_ends_the_scope_and_has_no_frames_of_ours() -> None:
    before = picture()

    with pytest.raises(ZeroDivisionError) as caught, nesting.applied():
        _ = 1 / 0

    assert picture() == before
    assert [entry.path for entry in caught.traceback] == [caught.traceback[0].path]


def test_it_decorates_a_function() -> None:
    @nesting.applied()
    def main() -> int:
        return asyncio.run(nests())

    assert [main(), main()] == [7, 7]
    assert asyncio.run(is_refused())


def test_a_scope_may_begin_and_end_while_the_loop_runs() -> None:
    before = picture()

    async def main() -> list[Any]:
        said: list[Any] = [await is_refused()]
        for _ in range(2):
            with nesting.applied():
                said.append(await nests())
            said.append(await is_refused())
        await asyncio.sleep(0)
        return said

    with asyncio.Runner() as runner:
        own = picture_of(runner.get_loop())
        assert runner.run(main()) == [True, 7, True, 7, True]
        assert picture_of(runner.get_loop()) == own
    assert picture() == before


def test_a_task_that_is_cancelled_inside_leaves_the_scope() -> None:
    async def stays(inside: asyncio.Event) -> None:
        with nesting.applied():
            inside.set()
            await asyncio.sleep(60)

    async def main() -> bool:
        inside = asyncio.Event()
        task = asyncio.create_task(stays(inside))
        await inside.wait()
        assert await nests() == 7
        task.cancel()
        await asyncio.wait([task])
        return await is_refused()

    assert asyncio.run(main())
    assert not scope.is_wanted()


def test_what_another_task_has_parked_in_it_ends_in_order_after_it() -> None:
    async def parks(event: asyncio.Event) -> str:
        asyncio.run(asyncio.wait_for(event.wait(), 5))
        return "resumed"

    async def main() -> tuple[bool, str]:
        event = asyncio.Event()
        with nesting.applied():
            task = asyncio.create_task(parks(event))
            await turns()
        refused = await is_refused()
        event.set()
        return refused, await task

    assert asyncio.run(main()) == (True, "resumed")


def test_scopes_of_two_threads_may_overlap() -> None:
    entered, leave = threading.Event(), threading.Event()
    found: list[object] = []
    before = picture()

    def other() -> None:
        with nesting.applied():
            entered.set()
            leave.wait(10)
            found.append(asyncio.run(nests()))

    thread = threading.Thread(target=other)
    with nesting.applied():
        thread.start()
        assert entered.wait(10)
        assert asyncio.run(nests()) == 7
    assert scope.is_wanted()
    assert asyncio.run(nests()) == 7  # it is on for all threads until the last has left
    leave.set()
    thread.join(10)

    assert found == [7]
    assert picture() == before
    assert asyncio.run(is_refused())


def test_where_no_nesting_is_possible_the_scope_is_not_entered() -> None:
    class Own(asyncio.SelectorEventLoop):
        def run_forever(self) -> None:
            super().run_forever()

    before = picture()
    loop = Own()

    with pytest.raises(NestingError), nesting.applied(loop):
        pytest.fail("it was entered")

    assert picture() == before
    loop.close()


SCRIPT = """
import asyncio
from loopnb import nesting

async def main():
    return asyncio.run(asyncio.sleep(0.01, "nested"))

with nesting.applied():
    print(asyncio.run(main()))
try:
    asyncio.run(main())
except RuntimeError as error:
    print(error)
"""


def test_it_works_in_a_script() -> None:
    ran = run_script("import warnings; warnings.simplefilter('ignore')\n" + SCRIPT)

    assert ran.stdout.splitlines() == ["nested", "asyncio.run() cannot be called from a running event loop"]
    assert ran.stderr == ""
