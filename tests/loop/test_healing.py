"""What a cell has left damaged is mended, and said if the user should know."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from loopnb.loop import healing
from loopnb.loop._cpython import loop_set_here
from loopnb.loop.healing import Healer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    asyncio.set_event_loop(None)
    loop.close()


def test_what_is_whole_is_left_alone(loop: asyncio.AbstractEventLoop) -> None:
    healer = Healer(loop)

    assert healer.mend() == []
    assert healer.notes() == ()
    assert loop_set_here() is None


def test_an_executor_that_was_shut_down_is_replaced_and_told_once(loop: asyncio.AbstractEventLoop) -> None:
    healer = Healer(loop)
    loop.run_until_complete(loop.shutdown_default_executor())

    (said,) = healer.mend()

    assert "default executor had been shut down" in said
    assert loop.run_until_complete(loop.run_in_executor(None, int, "7")) == 7
    assert healer.mend() == []
    loop.run_until_complete(loop.shutdown_default_executor())


def test_another_loop_that_was_set_gives_way(loop: asyncio.AbstractEventLoop) -> None:
    healer, other = Healer(loop), asyncio.new_event_loop()
    asyncio.set_event_loop(other)

    assert healer.mend() == []

    assert loop_set_here() is loop
    other.close()


def test_a_loop_that_a_librarys_greenlet_has_left_running_gives_way(loop: asyncio.AbstractEventLoop) -> None:
    healer, other = Healer(loop), asyncio.new_event_loop()

    async def main() -> list[str]:
        asyncio._set_running_loop(other)  # as Playwright's sync API does
        said = healer.mend()
        await asyncio.sleep(0.001)  # on the loop
        return [*said, *healer.mend()]

    (said,) = loop.run_until_complete(main())

    assert "%%noloop" in said
    other.close()


@pytest.mark.skipif(sys.platform == "win32", reason="loops there have no add_signal_handler()")
def test_signals_that_another_loop_has_taken_away_reach_the_loop_again(
    loop: asyncio.AbstractEventLoop,
) -> None:
    healer, other, told = Healer(loop), asyncio.new_event_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, told.set)
    other.add_signal_handler(signal.SIGUSR2, told.set)
    other.close()

    assert healer.mend() == []

    os.kill(os.getpid(), signal.SIGUSR1)
    loop.run_until_complete(asyncio.wait_for(told.wait(), 10))
    loop.remove_signal_handler(signal.SIGUSR1)


def test_a_policy_that_was_set_is_noted(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Policy:
        """A policy of the user's."""

    healer = Healer(loop)
    monkeypatch.setattr(healing, "current_policy", Policy)

    (note,) = healer.notes()

    assert f"{__name__}.Policy" in note
