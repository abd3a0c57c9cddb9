"""What asyncio's debug mode says of handles that were parked."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from tests.loops import FastLoop
from tests.nesting.conftest import FACTORIES


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_parked_time_is_not_reported_as_a_slow_callback(
    factory: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loop = FastLoop()
    loop.set_task_factory(factory)

    async def parked() -> None:
        await asyncio.sleep(0)
        asyncio.run(asyncio.sleep(0.25))

    async def slow() -> None:
        await asyncio.sleep(0)
        loop.now += 0.125  # as if it blocked the loop
        asyncio.run(asyncio.sleep(0.25))

    async def main() -> None:
        loop.set_debug(True)
        asyncio.run(asyncio.sleep(0))
        await asyncio.sleep(0)
        await asyncio.ensure_future(parked())
        assert not caplog.messages
        await asyncio.ensure_future(slow())

    with caplog.at_level(logging.WARNING, "asyncio"), contextlib.closing(loop):
        loop.run_until_complete(main())

    (message,) = caplog.messages
    assert message.startswith("Executing")
    assert "slow()" in message


def test_the_current_handle_is_saved_over_a_park() -> None:
    async def main() -> bool:
        loop: Any = asyncio.get_running_loop()
        loop.set_debug(True)
        await asyncio.sleep(0)

        async def nests() -> bool:
            await asyncio.sleep(0)
            before = loop._current_handle
            asyncio.run(asyncio.sleep(0.002))
            return before is not None and loop._current_handle is before

        return await asyncio.ensure_future(nests())

    assert asyncio.run(main())
