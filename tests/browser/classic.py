"""The classic Notebook 6, and a page of it as a person uses it: open, run a cell, look at the output."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from .lab import CELL_TIMEOUT_S, START_TIMEOUT_S, LabServer

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

_IS_READY = """
    window.Jupyter && Jupyter.notebook && Jupyter.notebook._fully_loaded && Jupyter.notebook.kernel
    && Jupyter.notebook.kernel.is_connected()
"""


class ClassicServer(LabServer):
    """The server of Notebook 6. CLASSIC_PYTHON is the interpreter that it is installed for."""

    def _command(self) -> list[str]:
        options = {
            "port": self.url.rpartition(":")[2],
            "port_retries": "0",
            "ip": "127.0.0.1",
            "open_browser": "False",
            "notebook_dir": str(self.root),
            "allow_root": "True",
            "token": self.token,
        }
        arguments = [f"--NotebookApp.{name}={value}" for name, value in options.items()]
        return [os.environ["CLASSIC_PYTHON"], "-m", "notebook", *arguments]


class ClassicPage:
    """One notebook, open in Notebook 6.

    Args:
        server: Where it is served.
        page: A fresh page of the browser.
        name: The notebook's file name.
    """

    def __init__(self, server: ClassicServer, page: Page, name: str) -> None:
        self._page = page
        page.goto(f"{server.url}/notebooks/{name}?token={server.token}")
        page.wait_for_function(_IS_READY, timeout=START_TIMEOUT_S * 1000)

    def cell(self, index: int) -> Locator:
        """Return code cell *index*, counted from 0."""
        return self._page.locator(".code_cell").nth(index)

    def run(self, index: int) -> None:
        """Run cell *index* to its end."""
        cell = self.cell(index)
        cell.locator(".CodeMirror").click()
        self._page.keyboard.press("Control+Enter")
        prompt = cell.locator(".input_prompt")
        expect(prompt).to_have_text(re.compile(r"In\s\[\d+\]:"), timeout=CELL_TIMEOUT_S * 1000)

    def save(self) -> None:
        """Save the notebook, and wait until it is on the disk."""
        self._page.evaluate("() => Jupyter.notebook.save_notebook().then(() => null)")

    def reload(self) -> None:
        """Reload the page."""
        self._page.reload()
        self._page.wait_for_function(_IS_READY, timeout=START_TIMEOUT_S * 1000)

    def widget(self, index: int) -> Locator:
        """Return the loopnb view below cell *index*."""
        return self.cell(index).locator(".loopnb-panel")
