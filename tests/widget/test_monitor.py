"""What a look costs that cannot be seen in what it sends."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

from loopnb.widgets.monitor import Monitor, Viewer
from loopnb.widgets.protocol import Query

if TYPE_CHECKING:
    from tests.loops import FastLoop

    from .conftest import Notebook

COUNT, CHANGED = 4_000, 1_500


def test_what_comes_and_goes_sets_off_no_garbage_collection(kernel: Notebook, loop: FastLoop) -> None:
    """Collections look at the user's objects, too: with 10,000 tasks they took longer than the looks."""
    steps: dict[int, asyncio.Future[bool]] = {}

    def next_step(number: int) -> asyncio.Future[bool]:
        steps[number] = loop.create_future()
        return steps[number]

    async def job(number: int) -> None:
        while await next_step(number):
            await next_step(number)

    async def change(begun: range, ended: range, moved: range) -> None:
        for numbers, goes_on in ((ended, False), (moved, True)):
            for number in numbers:
                steps.pop(number).set_result(goes_on)
        await asyncio.sleep(0)
        for number in begun:
            jobs.add(task := asyncio.create_task(job(number)))
            task.add_done_callback(jobs.discard)
        await asyncio.sleep(0)

    jobs: set[asyncio.Task[None]] = set()
    monitor = Monitor(kernel, lambda _message: None, loop.time)
    monitor.show_all(Viewer("v", Query()))
    loop.run_until_complete(change(range(COUNT), range(0), range(0)))
    monitor.look_at_once()
    begun, ended = range(COUNT, COUNT + CHANGED), range(CHANGED)
    loop.run_until_complete(change(begun, ended, range(CHANGED, 2 * CHANGED)))
    gc.collect()
    before = gc.get_stats()[0]["collections"]

    monitor.look_at_once()

    assert gc.get_stats()[0]["collections"] == before
    assert len(monitor.tasks) == len(jobs) == COUNT
    assert len(monitor.ended.when) >= CHANGED
    monitor.rest()
    for task in list(jobs):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
