"""A `run_forever()` inside the loop waits until it is stopped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.loop.forever import NestedForever

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def parking(*meanwhile: Callable[[], object]) -> Callable[[asyncio.Future[Any]], None]:
    """Return a `park` that calls the next of *meanwhile* while the stack is parked."""
    left = iter(meanwhile)

    def park(future: asyncio.Future[Any]) -> None:
        next(left)()
        assert future.done()

    return park


def test_a_call_lasts_until_its_future_is_stopped(loop: asyncio.AbstractEventLoop) -> None:
    stopped: list[bool] = []

    def park(future: asyncio.Future[Any]) -> None:
        stopped.extend([forever.stop(object()), future.done(), forever.stop(future), future.done()])

    forever = NestedForever(loop, park)

    forever.run()

    assert stopped == [False, False, True, True]
    assert not forever.stop_all()


def test_all_of_them_can_be_stopped(loop: asyncio.AbstractEventLoop) -> None:
    stopped: list[bool] = []
    forever = NestedForever(loop, parking(lambda: forever.run(), lambda: stopped.append(forever.stop_all())))

    forever.run()

    assert stopped == [True]


def test_one_that_was_parked_before_a_reload_is_stopped_after_it(loop: asyncio.AbstractEventLoop) -> None:
    def reload() -> None:
        assert NestedForever(loop, parking()).stop_all()

    NestedForever(loop, parking(reload)).run()

    assert not NestedForever(loop, parking()).stop_all()


def test_cancelling_ends_it(loop: asyncio.AbstractEventLoop) -> None:
    def park(future: asyncio.Future[Any]) -> None:
        future.cancel()

    forever = NestedForever(loop, park)

    with pytest.raises(asyncio.CancelledError):
        forever.run()

    assert not forever.stop_all()


class Parked(Exception):
    """Raised in the place of parking a stack: the loop can turn then."""

    def __init__(self, future: asyncio.Future[Any]) -> None:
        super().__init__()
        self.future = future


@pytest.mark.parametrize("by", ["its own task", "nobody", "another task", "a cell that has ended"])
def test_one_that_its_task_has_stopped_beforehand_lasts_for_one_pass(
    loop: asyncio.AbstractEventLoop, by: str
) -> None:
    def park(future: asyncio.Future[Any]) -> None:
        raise Parked(future)

    forever = NestedForever(loop, park)

    async def stop() -> None:
        forever.stop_next()

    async def pass_of_a_call() -> bool:
        with pytest.raises(Parked) as parked:
            forever.run()
        await asyncio.sleep(0)
        return parked.value.future.done()

    async def main() -> list[bool]:
        if by == "another task":
            await asyncio.create_task(stop())
        elif by != "nobody":
            forever.stop_next()
        if by == "a cell that has ended":
            forever.forget_stop()
        return [await pass_of_a_call(), await pass_of_a_call()]

    assert loop.run_until_complete(main()) == [by == "its own task", False]
