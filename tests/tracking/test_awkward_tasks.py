"""Tasks of a class of the user's, one of whose methods raises, are shown as far as they can be."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.tracking import graph
from loopnb.tracking.details import detail_of
from loopnb.tracking.where import where_lines
from tests.awkward import METHODS, awkward

if TYPE_CHECKING:
    from collections.abc import Callable

    from loopnb.tracking.tracker import Tracker

#: asyncio itself asks what a task awaits for its loop.
AWAITABLE = [method for method in METHODS if method != "get_loop"]


@pytest.mark.parametrize("method", METHODS)
def test_they_are_listed_and_are_part_of_the_graph(track: Callable[..., Any], method: str) -> None:
    async def main(tracker: Tracker) -> None:
        lock, gate = asyncio.Lock(), asyncio.Event()

        async def uses_lock() -> None:
            async with lock:
                await gate.wait()

        with awkward(method) as kind:
            holder = kind(uses_lock(), loop=asyncio.get_running_loop(), name="holder")
            await asyncio.sleep(0)
            needy = kind(uses_lock(), loop=asyncio.get_running_loop(), name="needy")
            plain = asyncio.create_task(uses_lock(), name="plain")
            await asyncio.sleep(0)
            found = graph.finish(graph.slices(tracker))
            numbers = {record.name: number for number, record in found.records.items()}
            tasks = [holder, needy, plain]
            words = [detail_of(tracker, task).text for task in tasks]
            lines = [list(where_lines(tracker, task, lambda found: found.text)) for task in tasks]
        gate.set()
        await asyncio.wait(tasks)

        assert {"holder", "needy", "plain"} <= numbers.keys()
        assert found.awaits[numbers["needy"]] == found.awaits[numbers["plain"]] == (numbers["holder"],)
        assert words[0] == "Event.wait of gate"
        assert "held by holder" in words[1]
        assert "held by holder" in words[2]
        assert all(lines)

    track(main)


@pytest.mark.parametrize("method", AWAITABLE)
def test_what_waits_for_them_is_shown(track: Callable[..., Any], method: str) -> None:
    async def main(tracker: Tracker) -> None:
        gate = asyncio.Event()

        async def awaits(task: asyncio.Task[Any]) -> None:
            await task

        with awkward(method) as kind:
            task = kind(gate.wait(), loop=asyncio.get_running_loop(), name="awkward")
            above = asyncio.create_task(awaits(task), name="above")
            await asyncio.sleep(0)
            for _ in range(2):  # the second look asks the future that the first has found
                found = graph.finish(graph.slices(tracker))
            numbers = {record.name: number for number, record in found.records.items()}
            record = tracker.record(above)
        gate.set()
        await above
        tracker.listing.look()

        assert found.awaits[numbers["above"]] == (numbers["awkward"],)
        assert record.waits_for == "task awkward"
        assert not {numbers["above"], numbers["awkward"]} & tracker.listing.records.keys()

    track(main)


@pytest.mark.parametrize("method", METHODS)
def test_when_they_have_ended_they_are_listed_no_more(track: Callable[..., Any], method: str) -> None:
    async def main(tracker: Tracker) -> None:
        gate = asyncio.Event()
        with awkward(method) as kind:
            task = kind(gate.wait(), loop=asyncio.get_running_loop(), name="awkward")
            await asyncio.sleep(0)
            tracker.listing.look()
            live = [record.name for record in tracker.listing.ordered()]
            gate.set()
            for _ in range(3):
                await asyncio.sleep(0)
            tracker.listing.look()
            later = [record.name for record in tracker.listing.ordered()]
            ended = tracker.ended()

        assert "awkward" in live
        assert "awkward" not in later
        assert ended == []
        assert task.done()

    track(main)
