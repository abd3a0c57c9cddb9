"""On uvloop's loop, which shows neither its passes nor its queues, the watchdog sees all but the passes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from tests.watch.conftest import BLOCKED_AFTER, Watched, line_of, until
from tests.watch.test_blocks import block_in_task
from tests.watch.test_busy import burn_on

if TYPE_CHECKING:
    from collections.abc import Iterator

uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Make a watched loop of uvloop's."""
    found = Watched(uvloop.new_event_loop)
    with found.runner:
        yield found


def block_for_long(watched: Watched) -> None:
    """Block until the watchdog has looked more than once.

    Here a look may take the frames, and the task only when the step has ended: its last look may be wrong.
    """
    watched.block_until_seen()
    time.sleep(0.3)


def test_a_task_that_blocks_is_named_with_its_line(watched: Watched) -> None:
    def blocks() -> None:
        block_for_long(watched)

    block = block_in_task(watched, blocks)

    assert block.how == "sleep"
    assert block.function.endswith("block_for_long")
    assert any(line_of(blocks, "block_for_long(watched)") in frame for frame in block.stack)


def test_a_callback_that_blocks_is_named(watched: Watched) -> None:
    def hog() -> None:
        block_for_long(watched)

    async def main() -> None:
        watched.loop.call_soon(hog)
        await watched.last_block("block_for_long")

    watched.run(main())
    (block, *_) = [block for block in watched.watch.blocks() if block.by == "callback"]

    assert any("hog" in frame for frame in block.stack)
    assert block.kept.timers == block.kept.ready == 0  # its queues cannot be seen


def test_the_lag_is_measured(watched: Watched) -> None:
    async def main() -> None:
        watched.block_until_seen()
        await until(lambda: watched.watch.pace().total.max_s >= BLOCKED_AFTER / 2)
        count = watched.watch.pace().total.count
        await until(lambda: watched.watch.pace().total.count > count)

    watched.run(main())
    pace = watched.watch.pace()

    assert pace.total.count > 1
    assert pace.passes_per_s is None


def test_who_keeps_it_busy_is_seen(watched: Watched) -> None:
    found = burn_on(watched, 0.1, looks=150)

    for seen, true in found.values():
        assert abs(seen - true) < 0.16  # 150 looks at 60 % scatter by 4 points; four times that
    shares = watched.watch.pace().shares
    assert shares is not None
    assert shares.user > 0.5


def test_unloading_stops_the_thread(watched: Watched) -> None:
    async def main() -> bool:
        return watched.watch.is_on

    assert watched.run(main())
    assert not watched.watch.is_on


def test_it_wakes_for_a_task_that_is_spawned_later(watched: Watched) -> None:
    async def main() -> None:
        before = watched.watch.pace().total.count
        task = asyncio.create_task(asyncio.sleep(60))
        watched.watch.wake()
        await until(lambda: watched.watch.pace().total.count > before)
        task.cancel()

    watched.run(main())
