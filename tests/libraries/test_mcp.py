"""MCP's client, whose transport and session must be left by the task that has entered them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.cells import dedented
from tests.kernel.conftest import task_names
from tests.libraries.servers import TOOLS

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver


@pytest.fixture(autouse=True)
def _server(kernel: KernelDriver) -> None:
    (kernel.folder / "tools.py").write_text(dedented(TOOLS))
    kernel.run(
        f"""
        import loopnb, sys
        from contextlib import AsyncExitStack
        from mcp import ClientSession, StdioServerParameters
        from mcp.client.stdio import stdio_client
        server = StdioServerParameters(command={sys.executable!r}, args=["tools.py"])
        """,
        timeout=40,
    )


def test_a_session_is_held_across_cells(kernel: KernelDriver) -> None:
    kernel.run(
        """
        reader, writer = await loopnb.hold(stdio_client(server, sys.__stderr__))
        session = await loopnb.hold(ClientSession(reader, writer), "session")
        await session.initialize()
        """
    )
    kernel.run("answer = await session.call_tool('add', {'a': 1, 'b': 2})")
    assert kernel.value("answer.content[0].text") == "3"
    kernel.run("await loopnb.release(session)")
    kernel.run("await loopnb.release((reader, writer))")

    assert task_names(kernel) == []


def test_one_that_is_not_held_fails_to_be_left_and_its_error_names_hold(kernel: KernelDriver) -> None:
    kernel.run(
        """
        stack = AsyncExitStack()
        await stack.enter_async_context(stdio_client(server, sys.__stderr__))
        """
    )
    left = kernel.execute("await stack.aclose()")

    assert "Attempted to exit cancel scope in a different task" in left.evalue
    assert "use `await loopnb.hold(...)`" in left.traceback
