"""uvicorn in a background cell, whose server does not close its port when it is cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cells import below
from tests.kernel.conftest import task_names
from tests.libraries.servers import can_be_taken, free_port

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver

SERVES = below("%%aloop -b -n web", "await uvicorn.Server(uvicorn.Config(app, port=port)).serve()")
DEFINE = """
import asyncio, httpx, loopnb, uvicorn
from contextlib import asynccontextmanager
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
events, port = [], {port}
client = httpx.AsyncClient()  # keeps its connections
def lifespan(text):
    @asynccontextmanager
    async def lives(app):
        events.append(f"+{{text}}")
        try: yield
        finally: events.append(f"-{{text}}")
    return lives
def fastapi(text):
    app = FastAPI(lifespan=lifespan(text))
    @app.get("/")
    async def answers(): return text
    return app
def starlette(text):
    async def answers(request): return PlainTextResponse(text)
    return Starlette(routes=[Route("/", answers)], lifespan=lifespan(text))
async def ask():
    while True:
        try: return (await client.get(f"http://127.0.0.1:{{port}}/")).text.strip('"')
        except httpx.ConnectError: await asyncio.sleep(0.01)
"""


@pytest.mark.parametrize("framework", ["fastapi", "starlette"])
def test_run_again_a_server_is_replaced_and_cancelled_it_frees_its_port(
    kernel: KernelDriver, framework: str
) -> None:
    port = free_port()
    kernel.run(DEFINE.format(port=port))
    answers = []
    for text in ("one", "two"):
        kernel.run(f"app = {framework}({text!r})")
        kernel.run(SERVES, cell_id=framework)
        answers.append(kernel.run("await ask()").result)
    assert not can_be_taken(port)
    kernel.run("%loopnb cancel web")
    kernel.run("while loopnb.tasks(): await asyncio.sleep(0.01)")

    assert answers == ["'one'", "'two'"]
    assert kernel.value("events") == ["+one", "-one", "+two", "-two"]
    assert can_be_taken(port)
    assert task_names(kernel) == []
    kernel.run("await client.aclose()")
