"""How each thread gets work onto the one loop."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from loopnb.loop.owner import LoopOwner

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def owner() -> Iterator[LoopOwner]:
    loop = asyncio.new_event_loop()
    yield LoopOwner(loop)
    loop.close()


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_inside_is_where_the_loop_runs_and_home_is_its_thread(
    owner: LoopOwner, thread: ThreadPoolExecutor
) -> None:
    def where() -> tuple[bool, bool]:
        return owner.is_inside(), owner.is_home()

    async def here() -> tuple[bool, bool]:
        return where()

    assert where() == (False, True)
    assert owner.loop.run_until_complete(here()) == (True, True)
    assert asyncio.run(here()) == (False, True)
    assert thread.submit(where).result() == (False, False)


def test_at_home_a_call_is_a_call(owner: LoopOwner) -> None:
    assert owner.call(int, "7") == 7


def test_another_threads_call_is_made_at_home(owner: LoopOwner, thread: ThreadPoolExecutor) -> None:
    def call() -> list[int]:
        try:
            return [owner.call(threading.get_ident), owner.call(int, "x")]
        except ValueError:
            return [owner.call(threading.get_ident), -1]

    async def main() -> list[int]:
        return await asyncio.wrap_future(thread.submit(call))

    assert owner.loop.run_until_complete(main()) == [threading.get_ident(), -1]


def test_threads_that_wait_when_the_loop_ends_or_later_are_released(
    owner: LoopOwner, thread: ThreadPoolExecutor
) -> None:
    called: list[str] = []
    waits = thread.submit(owner.call, called.append, "early")

    owner.end()

    with pytest.raises(CancelledError):
        waits.result()
    with pytest.raises(CancelledError):
        thread.submit(owner.call, called.append, "late").result()
    owner.loop.run_until_complete(asyncio.sleep(0))
    assert called == []


def test_threads_may_wait_again_when_the_loop_runs_once_more(
    owner: LoopOwner, thread: ThreadPoolExecutor
) -> None:
    owner.end()
    owner.begin_again()

    async def main() -> int:
        return await asyncio.wrap_future(thread.submit(owner.call, threading.get_ident))

    assert owner.loop.run_until_complete(main()) == threading.get_ident()
