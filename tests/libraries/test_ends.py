"""The end of a kernel in which a library has something open: in order, without a complaint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cells import below, dedented
from tests.kernel.conftest import assert_quiet
from tests.libraries.servers import TOOLS, free_port

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver

APP = """
import asyncio, httpx, pathlib
noted = pathlib.Path("noted")
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({{"type": "lifespan.startup.complete"}})
        await receive()
        await asyncio.sleep(0.01)  # such as closing a pool of connections
        noted.write_text("closed")
        await send({{"type": "lifespan.shutdown.complete"}})
    else:
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": b"hello"}})
client = httpx.AsyncClient()  # keeps its connection
async def ask():
    while True:
        try: return (await client.get("http://127.0.0.1:{port}/")).text
        except httpx.ConnectError: await asyncio.sleep(0.01)
"""
SERVERS = {
    "hypercorn": """
        from hypercorn.asyncio import serve
        from hypercorn.config import Config
        config = Config()
        config.bind = ["127.0.0.1:{port}"]
        await serve(app, config)
        """,
    "uvicorn": """
        import uvicorn
        server = uvicorn.Server(uvicorn.Config(app, port={port}, log_level="error"))
        try: await server.serve()
        finally: await server.shutdown()
        """,
}


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_closes_what_its_application_has_opened(fresh_kernel: KernelDriver, server: str) -> None:
    port = free_port()
    fresh_kernel.run(APP.format(port=port))
    fresh_kernel.run(below("%%aloop -b", SERVERS[server].format(port=port)))
    assert fresh_kernel.run("await ask()").result == "'hello'"
    log = fresh_kernel.shutdown()

    assert (fresh_kernel.folder / "noted").read_text() == "closed"
    assert_quiet(log)


SESSIONS = {
    "aiohttp with aiodns": """
        import aiohttp, aiohttp.web
        async def answers(request): return aiohttp.web.Response(text="hello")
        app = aiohttp.web.Application()
        app.router.add_get("/", answers)
        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
        session = aiohttp.ClientSession()
        assert type(session.connector._resolver) is aiohttp.resolver.AsyncResolver
        async with session.get(f"http://localhost:{runner.addresses[0][1]}/") as response:
            assert await response.text() == "hello"
        """,
    "aiosqlite": """
        import aiosqlite
        db = await aiosqlite.connect(":memory:")
        await db.execute("create table t (x)")
        """,
    "mcp": """
        import sys
        from contextlib import AsyncExitStack
        from mcp import ClientSession, StdioServerParameters
        from mcp.client.stdio import stdio_client
        stack = AsyncExitStack()
        server = StdioServerParameters(command=sys.executable, args=["tools.py"])
        reader, writer = await stack.enter_async_context(stdio_client(server, sys.__stderr__))
        session = await stack.enter_async_context(ClientSession(reader, writer))
        await session.initialize()
        assert (await session.call_tool("add", {"a": 1, "b": 2})).content[0].text == "3"
        """,
}


@pytest.mark.parametrize("session", SESSIONS)
def test_what_a_cell_has_left_open_is_closed(fresh_kernel: KernelDriver, session: str) -> None:
    (fresh_kernel.folder / "tools.py").write_text(dedented(TOOLS))
    fresh_kernel.run(
        """
        import atexit, pathlib
        atexit.register(pathlib.Path("at-exit").write_text, "ran")
        """
    )
    fresh_kernel.run(SESSIONS[session])
    log = fresh_kernel.shutdown()

    assert_quiet(log)
    assert "did not end" not in log
    assert (fresh_kernel.folder / "at-exit").exists()  # no signal has ended it
