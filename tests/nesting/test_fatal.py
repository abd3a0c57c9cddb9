"""A fatal error of somebody else's coroutine is captured, and raised where its result is wanted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from loopnb.nesting.fatal import CapturedFatal, capture_fatal


async def leaves(code: int) -> int:
    await asyncio.sleep(0)
    if code:
        raise SystemExit(code)
    return code


def test_a_captured_error_does_not_end_the_loop_and_is_raised_when_unwrapped() -> None:
    async def main() -> int:
        task = asyncio.ensure_future(capture_fatal(leaves(3)))
        await asyncio.wait([task])
        return CapturedFatal.unwrap(task.result())

    with pytest.raises(SystemExit) as caught:
        asyncio.run(main())
    assert caught.value.code == 3


def test_a_value_passes_unchanged_and_the_coroutine_keeps_its_name() -> None:
    coro: Any = capture_fatal(leaves(0))

    assert coro.__qualname__ == "leaves"
    assert CapturedFatal.unwrap(asyncio.run(coro)) == 0
