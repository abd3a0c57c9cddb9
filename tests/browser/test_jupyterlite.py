"""JupyterLite in a browser, offline: install loopnb, run nested, see a task in the widget and cancel it.

`make test-all PARTS=jupyterlite` builds the site, and names its folder in JUPYTERLITE_FOLDER.
"""

from __future__ import annotations

import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Route

CELLS = (
    "%pip install loopnb",
    "%load_ext loopnb",
    """
import asyncio, loopnb
async def slow(seconds):
    await asyncio.sleep(seconds)
    return f"slept {seconds} s"
print("nested:", asyncio.run(slow(0.01)))
""",
    "task = asyncio.create_task(slow(1000), name='long')",
    "loopnb.show()",
    "await asyncio.sleep(2)  # so long that it might hang: somebody looks",
    "print('all', 'cells', 'ran')",
)


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_args: Any) -> None:
        """Write nothing to standard error."""


@pytest.fixture
def site() -> Iterator[str]:
    """Serve the site, and return its address."""
    handler = partial(_Files, directory=str(Path(os.environ["JUPYTERLITE_FOLDER"]) / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.jupyterlite
@pytest.mark.timeout(240)  # Pyodide starts in a minute
def test_loopnb_is_at_home_in_jupyterlite(site: str, browser: Browser) -> None:
    outside: list[str] = []

    def keep_offline(route: Route) -> None:
        if route.request.url.startswith(site):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    context = browser.new_context()
    context.route("**/*", keep_offline)
    page = context.new_page()
    query = urlencode([("kernel", "python"), ("execute", "1"), *(("code", cell.strip()) for cell in CELLS)])
    page.goto(f"{site}/repl/index.html?{query}")
    page.get_by_text("all cells ran", exact=True).wait_for(timeout=200_000)
    row = page.get_by_role("row").filter(has_text="long")
    row.get_by_text("sleep").first.wait_for()

    row.get_by_role("button", name="Cancel").click()
    page.mouse.move(2, 2)  # under the pointer it would stay
    row.wait_for(state="detached")

    assert page.get_by_text("nested: slept 0.01 s", exact=True).count() == 1
    assert page.get_by_title("engine stack-switching").count() == 1
    assert page.get_by_text("Exception in callback").count() == 0
    assert outside == []
    context.close()
