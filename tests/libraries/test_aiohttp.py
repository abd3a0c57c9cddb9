"""aiohttp's application keys, which walk the stack outwards to the frame of a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver


@pytest.mark.parametrize(
    "cell",
    [
        "asyncio.run(make())",
        "await make()",
        "await asyncio.create_task(make())",
        "%aloop make()",
        "asyncio.run(nested())",
    ],
)
def test_an_application_key_finds_the_module_it_is_made_in(kernel: KernelDriver, cell: str) -> None:
    kernel.run(
        """
        import asyncio
        from aiohttp import web
        async def make(): return web.AppKey("key", str)
        async def nested(): return asyncio.run(make())
        """
    )
    assert kernel.run(cell).result == "<AppKey(__main__.key, type=str)>"
