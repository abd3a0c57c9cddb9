"""A timeout cancels one task, waits for its cleanup, and says what the task was doing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.loop.deadline import Deadline, OwnDeadline
from tests.widget.front_end import FastLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator


@pytest.fixture
def loop() -> Iterator[FastLoop]:
    """A loop that waits for nothing."""
    loop = FastLoop()
    yield loop
    loop.close()


def run(loop: FastLoop, coro: Coroutine[Any, Any, Any], timeout: float | None) -> Any:
    """Run *coro* in a task with a deadline, and wait for that outside of any task."""
    task = loop.create_task(coro, name="mine")
    with Deadline(loop, task, timeout, lambda task: f"busy in {task.get_name()}"):
        return loop.run_until_complete(task)


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_a_task_that_ends_in_time_gives_its_value(loop: FastLoop, timeout: float | None) -> None:
    assert run(loop, asyncio.sleep(2, "value"), timeout) == "value"


def test_the_error_comes_after_the_cleanup_and_says_what_the_task_was_doing(loop: FastLoop) -> None:
    ended = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(7)
            ended.append(loop.time())

    began = loop.time()
    with pytest.raises(TimeoutError, match="task 'mine' did not finish within 5 s; it was busy in mine"):
        run(loop, slow(), 5.0)

    assert ended == [began + 12]


def test_a_task_that_goes_on_after_its_cancellation_gives_its_value(loop: FastLoop) -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "all the same"
        return "never"

    assert run(loop, stubborn(), 5.0) == "all the same"


def test_a_task_that_somebody_else_cancels_stays_cancelled(loop: FastLoop) -> None:
    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    with pytest.raises(asyncio.CancelledError):
        run(loop, cancels_itself(), 5.0)


def test_nothing_is_left_of_it_in_the_loop(loop: FastLoop) -> None:
    run(loop, asyncio.sleep(1), 5.0)
    began = loop.time()

    loop.run_until_complete(asyncio.sleep(1))

    assert loop.time() == began + 1


def begin(loop: FastLoop, coro: Coroutine[Any, Any, Any], timeout: float) -> asyncio.Task[Any]:
    """Run *coro* in a task that keeps its own deadline."""

    async def own() -> Any:
        with OwnDeadline(timeout, lambda task: f"busy in {task.get_name()}"):
            return await coro

    return loop.create_task(own(), name="mine")


async def cleans_up() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(7)


def test_a_task_with_a_deadline_of_its_own_ends_in_timeout_error(loop: FastLoop) -> None:
    task = begin(loop, cleans_up(), 5.0)
    with pytest.raises(TimeoutError, match="task 'mine' did not finish within 5 s; it was busy in mine"):
        loop.run_until_complete(task)

    assert not task.cancelled()
    assert isinstance(task.exception(), TimeoutError)
    assert task.cancelling() == 0


@pytest.mark.parametrize("after", [2.0, 8.0], ids=["before it is late", "while it ends"])
def test_a_task_that_is_late_and_was_cancelled_ends_cancelled(loop: FastLoop, after: float) -> None:
    task = begin(loop, cleans_up(), 5.0)
    loop.call_later(after, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)

    assert task.cancelled()


def test_a_task_that_suppresses_its_own_deadline_gives_its_value(loop: FastLoop) -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "all the same"
        return "never"

    task = begin(loop, stubborn(), 5.0)

    assert loop.run_until_complete(task) == "all the same"
    assert task.cancelling() == 0
