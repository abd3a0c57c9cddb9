"""Tasks that have ended: found while somebody holds them, and kept for a while when nobody does."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

from tests.tracking.coroutines import fail, nothing

if TYPE_CHECKING:
    from collections.abc import Callable

    from loopnb.tracking.tracker import Tracker


def test_a_finished_task_that_nobody_holds_is_in_the_history(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> list[tuple[str, str, str]]:
        await asyncio.create_task(nothing(), name="short")
        return [(ended.name, ended.state, tracker.record_ended(ended).coro) for ended in tracker.ended()]

    assert track(main) == [("short", "returned", "nothing")]


def test_a_finished_task_that_somebody_holds_is_found_too(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> list[tuple[str, str]]:
        held = asyncio.create_task(nothing(), name="held")
        await held
        return [(ended.name, ended.state) for ended in tracker.ended()]

    assert track(main) == [("held", "returned")]


def test_cancelled_and_failed_tasks_are_told_apart(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> dict[str, tuple[str, str]]:
        sleeper = asyncio.create_task(asyncio.sleep(60), name="sleeper")
        await asyncio.sleep(0)
        sleeper.cancel()
        await asyncio.gather(sleeper, asyncio.create_task(fail(), name="failing"), return_exceptions=True)
        del sleeper
        gc.collect()
        records = [tracker.record_ended(ended) for ended in tracker.ended()]
        return {record.name: (record.state, record.error) for record in records}

    assert track(main) == {"sleeper": ("cancelled", ""), "failing": ("raised", "ValueError: expected")}


def test_the_history_is_bounded_and_keeps_failures_longest(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> list[str]:
        tracker.history.resize(finished=3, failed=2)
        await asyncio.gather(fail(), return_exceptions=True)
        for _ in range(10):
            await asyncio.create_task(nothing())
        await asyncio.sleep(0)  # the last one's wake-up has held on to it
        return [ended.state for ended in tracker.ended()]

    assert track(main) == ["raised", "returned", "returned", "returned"]


async def waits_on_one_line() -> None:
    await waits_inside(asyncio.get_running_loop().create_future())


async def waits_inside(future: asyncio.Future[None]) -> None:
    await asyncio.sleep(0)
    await future


def test_a_task_that_the_collector_takes_tells_where_it_waited_if_its_code_waits_on_one_line(
    track: Callable[..., Any],
) -> None:
    async def main(tracker: Tracker) -> list[tuple[str, tuple[str, int] | None]]:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        asyncio.create_task(waits_on_one_line(), name="one line")  # noqa: RUF006  it is to be dropped
        several = waits_inside(asyncio.get_running_loop().create_future())
        asyncio.create_task(several, name="several lines")  # noqa: RUF006  as above
        del several
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
        return [(ended.name, ended.waited_at) for ended in tracker.ended() if ended.state == "dropped"]

    code = waits_on_one_line.__code__
    assert track(main) == [
        ("one line", (code.co_filename, code.co_firstlineno + 1)),
        ("several lines", None),
    ]
