"""Tasks that are cancelled together: the look for circles follows each future once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from loopnb.tracking import leaving
from loopnb.tracking.holding import end_task

if TYPE_CHECKING:
    import pytest


def test_of_many_tasks_that_await_one_gather_each_future_is_followed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    followed: list[Any] = []
    stock = leaving._cancelled_with

    def follow(future: Any) -> Any:
        followed.append(future)
        return stock(future)

    monkeypatch.setattr(leaving, "_cancelled_with", follow)

    async def main() -> list[Any]:
        leaves = [asyncio.create_task(asyncio.sleep(600)) for _ in range(30)]
        both = asyncio.gather(*leaves)

        async def waits() -> None:
            await both

        tasks = [asyncio.create_task(waits()) for _ in range(30)]
        await asyncio.sleep(0)
        known: set[int] = set()
        for task in tasks:
            end_task(task, known)
        return await asyncio.gather(*tasks, *leaves, return_exceptions=True)

    ended = asyncio.run(main())

    assert all(isinstance(end, asyncio.CancelledError) for end in ended)
    assert len(followed) <= 30 + 1 + 30
