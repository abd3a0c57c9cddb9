"""stop(), close(), fatal exceptions and the end of everything, with stacks parked."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from pathlib import Path
from typing import Literal

import pytest

from loopnb import nesting
from tests.loops import turns
from tests.nesting.conftest import new_loop
from tests.nesting.foreground import WaitingUser

ROOT = Path(__file__).parents[2]
pinned = pytest.mark.parametrize("was_applied_before", [True, False])


def test_stop_is_at_once_and_the_next_run_resumes_what_is_parked() -> None:
    loop = new_loop(True)
    seen: list[str] = []

    async def nests(name: str) -> None:
        loop.run_until_complete(asyncio.sleep(0.05))
        seen.append(name)

    tasks = [loop.create_task(nests(name)) for name in "ab"]
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert seen == []

    loop.run_until_complete(asyncio.gather(*tasks))
    loop.close()
    assert sorted(seen) == ["a", "b"]


@pinned
def test_a_collection_loses_no_stack_of_a_stopped_loop_that_nobody_holds(was_applied_before: bool) -> None:
    """From 3.15 on, the garbage collector sees what parked stacks refer to."""
    loop = new_loop(was_applied_before)
    seen: list[str] = []

    async def nests() -> None:
        running = asyncio.get_running_loop()
        running.run_until_complete(asyncio.sleep(0.02))
        seen.append("resumed")

    loop.create_task(nests())
    loop.run_until_complete(asyncio.sleep(0))
    held = weakref.ref(loop)
    del loop
    gc.collect()
    again = held()
    assert again is not None

    again.run_until_complete(asyncio.sleep(0.05))
    again.close()
    assert seen == ["resumed"]


@pinned
def test_a_wait_without_a_task_ends_at_a_stop_with_the_stock_error(was_applied_before: bool) -> None:
    loop = new_loop(was_applied_before)
    errors: list[str] = []

    def nests() -> None:
        try:
            loop.run_until_complete(never)
        except RuntimeError as error:
            errors.append(str(error))

    never = loop.create_future()
    loop.call_soon(nests)
    loop.call_soon(loop.call_soon, loop.stop)
    loop.run_forever()  # or it would go on for ever, spinning or not
    assert errors == ["Event loop stopped before Future completed."]
    never.cancel()

    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@pinned
@pytest.mark.parametrize("order", ["any", "lifo"])
def test_at_a_stop_a_wait_whose_future_is_done_has_its_result(
    was_applied_before: bool, order: Literal["any", "lifo"]
) -> None:
    loop = asyncio.new_event_loop()
    nesting.apply(loop if was_applied_before else None, order=order)
    outcomes: list[str] = []
    futures = [loop.create_future() for _ in range(2)]

    def nests(future: asyncio.Future[str]) -> None:
        try:
            outcomes.append(loop.run_until_complete(future))
        except RuntimeError as error:
            outcomes.append(str(error))

    def completes_the_older_and_stops() -> None:
        futures[0].set_result("done")
        loop.stop()

    for future in futures:
        loop.call_soon(nests, future)
    loop.call_later(0.01, completes_the_older_and_stops)
    loop.run_forever()
    loop.close()
    nesting.remove()
    assert outcomes == ["Event loop stopped before Future completed.", "done"]


def test_the_end_of_asyncio_run_does_not_wait_for_parked_bystanders() -> None:
    ended: list[str] = []

    async def nests() -> None:
        try:
            asyncio.run(asyncio.Event().wait())  # which nobody sets
        finally:
            ended.append("finally")

    async def main() -> None:
        asyncio.ensure_future(nests())  # noqa: RUF006  left behind on purpose
        await turns()  # it parks

    asyncio.run(main())
    assert ended == ["finally"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("nests_before", [0, 1, 2])
def test_a_fatal_exception_of_a_callback_reaches_the_owner_and_no_bystander(
    kind: type[BaseException], nests_before: int
) -> None:
    outcomes: list[str] = []

    async def nests() -> None:
        try:
            asyncio.run(asyncio.sleep(10))
        except BaseException as error:
            outcomes.append(type(error).__name__)
            raise

    def fail() -> None:
        raise kind

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(nests_before):
            loop.create_task(nests())  # noqa: RUF006  bystanders, the first to nest on this loop
        loop.call_later(0.01, fail)
        await asyncio.sleep(10)

    with pytest.raises(kind):
        asyncio.run(main())
    assert outcomes == ["CancelledError"] * nests_before  # by the cleanup of asyncio.run


def test_a_fatal_exception_reaches_the_newest_waiting_cell() -> None:
    from loopnb.nesting.scope import engine_of

    async def cell() -> str:
        try:
            asyncio.run(asyncio.sleep(10))
        except SystemExit as error:
            return f"exit {error.code}"
        return "slept"

    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.run_until_complete(asyncio.sleep(0))
        await asyncio.sleep(0)
        engine = engine_of(loop)
        assert engine is not None
        task = loop.create_task(cell())
        user = WaitingUser([task])
        engine.set_foreground(user)
        loop.call_later(0.01, sys.exit, 3)
        result = await task
        assert user.changes == [+1, -1]
        return result

    assert asyncio.run(main()) == "exit 3"


@pytest.mark.parametrize(("exits", "cleaned_up"), [(1, ["begun", "ended"]), (2, ["begun"])])
def test_what_a_cell_waits_for_cleans_up_before_a_fatal_exception_goes_on(
    exits: int, cleaned_up: list[str]
) -> None:
    from loopnb.nesting.scope import engine_of

    seen: list[str] = []

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            seen.append("begun")
            if exits == 2:
                asyncio.get_running_loop().call_soon(sys.exit, 4)
            await asyncio.sleep(0.01)
            seen.append("ended")

    async def cell() -> list[str]:
        with pytest.raises(SystemExit):
            asyncio.run(cleans_up())
        return list(seen)

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        loop.run_until_complete(asyncio.sleep(0))
        await asyncio.sleep(0)
        engine = engine_of(loop)
        assert engine is not None
        task = loop.create_task(cell())
        engine.set_foreground(WaitingUser([task]))
        loop.call_later(0.01, sys.exit, 3)
        return await task

    assert asyncio.run(main()) == cleaned_up


def test_an_interrupt_ends_the_newest_waiting_cell_only() -> None:
    from loopnb.nesting.scope import engine_of

    async def nests(delay: float) -> str:
        try:
            asyncio.run(asyncio.sleep(delay))
        except KeyboardInterrupt:
            return "interrupted"
        return "slept"

    async def main() -> tuple[str, str]:
        loop = asyncio.get_running_loop()
        loop.run_until_complete(asyncio.sleep(0))
        engine = engine_of(loop)
        assert engine is not None
        assert not engine.interrupt()
        cell, bystander = loop.create_task(nests(10)), loop.create_task(nests(0.05))
        engine.set_foreground(WaitingUser([cell]))
        await turns()  # both park
        assert engine.interrupt()
        return await asyncio.gather(cell, bystander)

    assert list(asyncio.run(main())) == ["interrupted", "slept"]


def test_a_loop_without_parked_stacks_can_move_to_another_thread() -> None:
    loop = new_loop(True)

    async def nests() -> int:
        loop.run_until_complete(asyncio.sleep(0.001))
        return 1

    results = [loop.run_until_complete(nests())]
    thread = threading.Thread(target=lambda: results.append(loop.run_until_complete(nests())))
    thread.start()
    thread.join()
    results.append(loop.run_until_complete(nests()))
    loop.close()
    assert results == [1, 1, 1]
