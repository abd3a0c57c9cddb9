"""The chain of what a task waits for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loopnb import views
from loopnb.tracking.where import where_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from loopnb.tracking.tracker import Tracker

HERE = Path(__file__).name


@pytest.mark.parametrize("how", ["gather", "group", "wait", "task"])
def test_where_follows_the_tasks_that_are_awaited(track: Callable[..., Any], how: str) -> None:
    async def leaf() -> None:
        await asyncio.sleep(6000)

    async def waiting() -> None:
        task = asyncio.create_task(leaf(), name="leaf")
        if how == "gather":
            await asyncio.gather(task)
        elif how == "wait":
            await asyncio.wait([task])
        elif how == "task":
            await task
        else:
            async with asyncio.TaskGroup() as group:
                group.create_task(leaf(), name="leaf")
                task.cancel()

    async def main(tracker: Tracker) -> str:
        task = asyncio.create_task(waiting(), name="top")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        now = tracker.clock()
        text = "\n".join(where_lines(tracker, task, lambda detail: views.wait_text(detail, now)))
        for other in tracker.live():
            if other is not asyncio.current_task():
                other.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return text

    shown = track(main)
    assert "'leaf'" in shown
    assert f"leaf()  {HERE}:" in shown
    assert "await asyncio.sleep(6000)" in shown
    assert shown.endswith(("waits for sleep, 1 h 39 min left", "waits for sleep, 1 h 40 min left"))
