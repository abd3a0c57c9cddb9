"""The tasks of one loop: their cell, their parent, their end."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.errors import TaskNotFoundError
from loopnb.records import CellRef
from loopnb.tracking import cells

if TYPE_CHECKING:
    from collections.abc import Callable

    from loopnb.tracking.tracker import Tracker


def test_a_task_knows_its_cell_and_its_parent(track: Callable[..., Any]) -> None:
    cell = CellRef("a", 3)

    async def main(tracker: Tracker) -> tuple[CellRef | None, bool]:
        cells.current_cell.set(cell)
        task = asyncio.create_task(asyncio.sleep(60))
        record = tracker.record(task)
        current = asyncio.current_task()
        assert current is not None
        task.cancel()
        return record.cell, record.parent == tracker.number_of(current)

    assert track(main) == (cell, True)


def test_a_task_that_dies_pending_is_reported_by_asyncio_as_ever(track: Callable[..., Any]) -> None:
    async def main(_tracker: Tracker) -> list[str]:
        loop = asyncio.get_running_loop()
        told: list[str] = []
        loop.set_exception_handler(lambda _loop, context: told.append(context["message"]))

        async def lost() -> None:
            await loop.create_future()

        asyncio.create_task(lost())  # noqa: RUF006  nobody holds it: that is what is tested
        await asyncio.sleep(0)
        gc.collect()
        return told

    assert track(main) == ["Task was destroyed but it is pending!"]


def test_an_unknown_task_is_an_error_that_lists_the_others(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> None:
        with pytest.raises(TaskNotFoundError):
            tracker.find("nobody")

    track(main)
