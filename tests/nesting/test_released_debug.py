"""What asyncio's debug mode says of handles that were parked."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

Run = Any


def test_parked_time_is_not_reported_as_a_slow_callback(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def parked() -> None:
        await asyncio.sleep(0)
        asyncio.run(asyncio.sleep(0.25))

    async def slow() -> None:
        await asyncio.sleep(0)
        time.sleep(0.15)  # noqa: ASYNC251  what is to be reported
        asyncio.run(asyncio.sleep(0.01))

    async def main() -> None:
        asyncio.get_running_loop().set_debug(True)
        asyncio.run(asyncio.sleep(0))
        await asyncio.sleep(0)
        await asyncio.ensure_future(parked())
        assert not caplog.messages
        await asyncio.ensure_future(slow())

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main())
    slow_ones = [message for message in caplog.messages if message.startswith("Executing")]
    assert slow_ones
    assert all("took 0.1" in message or "took 0.2" in message for message in slow_ones)


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
