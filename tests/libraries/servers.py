"""Servers, ports and a browser for the tests of packages that cells use."""

from __future__ import annotations

import itertools
import random
import shutil
import socket

#: As in `tests/browser/conftest.py`.
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

#: A server of MCP as a script that talks on stdin and stdout. To import mcp itself takes it seconds.
TOOLS = """
import json, sys
INFO = {"capabilities": {"tools": {}}, "serverInfo": {"name": "adds", "version": "1"}}
TOOL = {"name": "add", "inputSchema": {"type": "object"}}
for line in sys.stdin:
    asked = json.loads(line)
    parameters = asked.get("params") or {}
    if asked.get("method") == "initialize":
        result = {"protocolVersion": parameters["protocolVersion"], **INFO}
    elif asked.get("method") == "tools/call":
        result = {"content": [{"type": "text", "text": str(sum(parameters["arguments"].values()))}]}
    else:
        result = {"tools": [TOOL]}
    if "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


def free_port() -> int:
    """Return the number of a port that nobody uses.

    Systems choose those of outgoing connections from 32768 on, at any time. So this one is below.
    """
    ports = (random.randint(20_000, 32_000) for _ in itertools.count())
    return next(filter(can_be_taken, ports))


def can_be_taken(port: int) -> bool:
    """Return True if a server could listen on *port*."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def chromium() -> str | None:
    """Return the path of an installed Chromium, or None for Playwright's own."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)
