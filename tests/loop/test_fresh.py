"""A fresh loop ends what its task has left, in order, and names what does not end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

from loopnb.loop.fresh import FreshLoop
from loopnb.nesting.loop_task import make_task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    import pytest


def run_fresh(make_coro: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine on a fresh loop, close that, and return the value."""
    loop = asyncio.new_event_loop()
    fresh = FreshLoop(loop, lambda _future: contextlib.nullcontext())
    task = make_task(loop, make_coro())
    try:
        fresh.run(task)
    finally:
        assert fresh.close(0) is None
        assert loop.is_closed()
    return task.result()


def test_what_is_left_ends_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    ended: list[str] = []
    kept: list[Any] = []

    async def late() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("spawned by a cleanup")

    async def left() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            kept.append(asyncio.create_task(late()))
            await asyncio.sleep(0)
            ended.append("task")

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            ended.append("generator")

    async def main() -> str:
        kept.append(asyncio.create_task(left()))
        kept.append(numbers())
        await anext(kept[-1])
        return "value"

    assert run_fresh(main) == "value"
    assert ended == ["task", "spawned by a cleanup", "generator"]
    assert capsys.readouterr().err == ""


def test_an_unseen_failure_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    kept: list[Any] = []

    async def fails() -> None:
        raise ValueError("expected")

    async def main() -> None:
        kept.append(asyncio.create_task(fails(), name="unseen"))
        kept.append(asyncio.create_task(fails(), name="seen"))
        await asyncio.wait(kept)
        kept[1].exception()

    run_fresh(main)
    kept.clear()

    said = "loopnb: task 'unseen' of the fresh loop failed, and nobody awaited it: ValueError: expected\n"
    assert capsys.readouterr().err == said


def test_a_thread_that_works_on_is_named_and_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    go = threading.Event()

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(None, go.wait, 30)

    run_fresh(main)
    go.set()

    assert "a thread of the fresh loop's executor is still working" in capsys.readouterr().err
