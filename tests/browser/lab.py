"""A real JupyterLab server, and a page of it as a person uses it: open, run a cell, look at the output."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from playwright.sync_api import expect

from tests.cells import dedented

if TYPE_CHECKING:
    from collections.abc import Sequence

    from playwright.sync_api import Locator, Page

REPO = Path(__file__).parents[2]
START_TIMEOUT_S = 120.0
CELL_TIMEOUT_S = 60.0

Theme = Literal["light", "dark"]

_SETTINGS = {
    # No questions, and nothing that asks the internet.
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
    "completer-extension/manager": {"autoCompletion": False},
}


class LabServer:
    """JupyterLab in a process group of its own, with all that it reads and writes below one folder.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "notebooks"
        self.root.mkdir()
        self.url = f"http://127.0.0.1:{_free_port()}"
        self.token = secrets.token_hex(16)
        self._settings = folder / "settings"
        self._log = folder / "lab.log"
        for name, value in _SETTINGS.items():
            self._set(name, value)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                env=self._environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _call(self, method: str, path: str) -> bytes:
        request = urllib.request.Request(f"{self.url}{path}?token={self.token}", method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            body: bytes = answer.read()
            return body

    def wait_ready(self) -> None:
        """Wait until the server answers; fail with its log if it does not."""
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up_at and self._process.poll() is None:
            try:
                self._call("GET", "/api/status")
            except urllib.error.URLError:
                time.sleep(0.1)  # Nothing tells when a port has begun to listen.
            else:
                return
        raise RuntimeError(f"JupyterLab did not start:\n{self._log.read_text()}")

    def stop_kernels(self) -> None:
        """End the kernels of all notebooks; each is in a process group of its own."""
        for kernel in json.loads(self._call("GET", "/api/sessions")):
            self._call("DELETE", f"/api/sessions/{kernel['id']}")

    def close(self) -> None:
        """End the server."""
        for sent in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, sent)
            except ProcessLookupError:
                break
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                continue
        self._process.wait()

    def set_theme(self, theme: Theme) -> None:
        """Choose the theme for the pages that are opened from now on."""
        name = "JupyterLab Dark" if theme == "dark" else "JupyterLab Light"
        self._set("apputils-extension/themes", {"theme": name, "adaptive-theme": False})

    def add(self, name: str, cells: Sequence[str]) -> str:
        """Write a notebook with these code cells, dedented, and return its name."""
        spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = {
            "cells": [_code_cell(f"cell-{number}", dedented(cell)) for number, cell in enumerate(cells)],
            "metadata": {"kernelspec": spec},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (self.root / name).write_text(json.dumps(notebook))
        return name

    def copy(self, notebook: Path) -> str:
        """Copy a notebook to where it is served, and return its name."""
        shutil.copy(notebook, self.root / notebook.name)
        return notebook.name

    def _set(self, plugin: str, value: object) -> None:
        path = self._settings / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))

    def _command(self) -> list[str]:
        port = self.url.rpartition(":")[2]
        options = {
            "ServerApp.port": port,
            "ServerApp.port_retries": "0",
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.open_browser": "False",
            "ServerApp.root_dir": str(self.root),
            "ServerApp.allow_root": "True",
            "IdentityProvider.token": self.token,
            "LabApp.extension_manager": "readonly",
            "LabApp.expose_app_in_browser": "True",
        }
        return [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]

    def _environment(self, folder: Path) -> dict[str, str]:
        own = {
            "JUPYTERLAB_SETTINGS_DIR": self._settings,
            "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces",
            "JUPYTER_CONFIG_DIR": folder / "config",
            "JUPYTER_DATA_DIR": folder / "data",
            "JUPYTER_RUNTIME_DIR": folder / "runtime",
            "IPYTHONDIR": folder / "ipython",
            "PYTHONPATH": os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        }
        return os.environ | {name: str(value) for name, value in own.items()}


class LabPage:
    """One notebook, open in JupyterLab.

    Args:
        server: Where it is served.
        page: A fresh page of the browser, or one whose notebook was closed.
        name: The notebook's file name.
    """

    FOLDER = "/doc/tree/"

    def __init__(self, server: LabServer, page: Page, name: str) -> None:
        self.page = page
        self._path = server.root / name
        if page.url.startswith(server.url):
            # In braces: what it returns, all of the notebook's widget, would be sent here.
            page.evaluate("path => { jupyterapp.commands.execute('docmanager:open', {path}) }", name)
        else:
            page.goto(f"{server.url}{self.FOLDER}{name}?token={server.token}")
        self._wait_ready()

    def close(self) -> None:
        """Close the notebook, unsaved, and leave the page to the next one."""
        expect(self.page.locator(".jp-Dialog")).to_have_count(0)
        self.page.evaluate("[...jupyterapp.shell.widgets('main')].forEach(widget => widget.dispose())")
        expect(self.page.locator(".jp-Notebook")).to_have_count(0)

    def reload(self) -> None:
        """Reload the page; the kernel goes on."""
        self.page.reload()
        self._wait_ready()

    def save(self) -> dict[str, Any]:
        """Save the notebook, wait until it is on the disk, and read it from there."""
        with self.page.expect_response(lambda got: got.request.method == "PUT" and "/contents/" in got.url):
            self.page.locator('[data-command="docmanager:save"]').first.click()
        notebook: dict[str, Any] = json.loads(self._path.read_text())
        return notebook

    def restart_kernel(self) -> None:
        """Restart the kernel by the toolbar's button, confirm, and wait until the new one is there."""
        self.page.locator('[data-jp-item-name="restart"] [data-command]').click()
        with self.page.expect_response(lambda got: got.url.split("?")[0].endswith("/restart")):
            self.page.locator(".jp-Dialog .jp-mod-accept").click()

    def cell(self, index: int) -> Locator:
        """Return code cell *index*, counted from 0."""
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)

    def start(self, index: int) -> None:
        """Run cell *index* and do not wait for it; only for the kernel to have it."""
        editor = self.cell(index).locator(".cm-content")
        editor.click()
        editor.press("Control+Enter")
        self._expect_prompt(index, r"\[\*\]:")

    def wait(self, index: int) -> None:
        """Wait until cell *index* has ended.

        Its own prompt tells. The kernel's status does not: JupyterLab shows the kernel as idle when a
        message of a subshell ends, whatever the cells do.
        """
        self._expect_prompt(index, r"\[\d+\]:")

    def run(self, index: int) -> str:
        """Run cell *index* to its end and return its text output."""
        prompt = self.cell(index).locator(".jp-InputPrompt")
        # A new kernel may give the cell the number that it has, and `[*]:` may be gone before anybody looks.
        prompt.evaluate("prompt => { prompt.textContent = 'not started'; }")
        editor = self.cell(index).locator(".cm-content")
        editor.click()
        editor.press("Control+Enter")
        self.wait(index)
        return self.text(index)

    def put(self, index: int, source: str) -> None:
        """Replace the text of cell *index* by *source*, dedented."""
        editor = self.cell(index).locator(".cm-content")
        editor.click()
        editor.press("Control+a")
        # In one piece, so that the editor adds neither brackets nor indentation.
        self.page.keyboard.insert_text(dedented(source))

    def choose_theme(self, theme: Theme) -> None:
        """Change the theme of the open page, by the menu."""
        name = "JupyterLab Dark" if theme == "dark" else "JupyterLab Light"
        self.page.locator(".lm-MenuBar-item", has_text="Settings").click()
        self.page.locator(".lm-Menu-item", has_text="Theme").first.click()
        self.page.locator(".lm-Menu-item", has_text=re.compile(f"^{name}$")).click()
        expect(self.page.locator("body")).to_have_attribute(
            "data-jp-theme-light", "false" if theme == "dark" else "true"
        )

    def watch_status(self) -> None:
        """Note from now on what the kernel's indicator says."""
        self.page.evaluate(
            """() => {
                let bar = document.querySelector("#jp-main-statusbar");
                let look = () => bar.textContent.match(/ipykernel\\) \\| (Idle|Busy)/)?.[1] ?? "?";
                let said = (window.kernelStatus = [look()]);
                new MutationObserver(() => look() !== said.at(-1) && said.push(look()))
                    .observe(bar, { subtree: true, childList: true, characterData: true });
            }"""
        )

    @property
    def statuses(self) -> list[str]:
        """What the kernel's indicator has said since `watch_status`."""
        said: list[str] = self.page.evaluate("window.kernelStatus")
        return said

    @property
    def has_busy_favicon(self) -> bool:
        """True if the icon in the browser's tab says that the kernel is busy."""
        is_busy: bool = self.page.evaluate("document.querySelector('link.busy.favicon').rel === 'icon'")
        return is_busy

    def run_all(self, *indices: int) -> None:
        """Run these cells, one after the other."""
        for index in indices:
            self.run(index)

    def text(self, index: int) -> str:
        """Return the text output of cell *index*, widgets excepted."""
        return "".join(self.cell(index).locator(".jp-RenderedText").all_inner_texts())

    def widget(self, index: int) -> Locator:
        """Return the loopnb view below cell *index*."""
        return self.cell(index).locator(".loopnb-panel")

    def _expect_prompt(self, index: int, pattern: str) -> None:
        prompt = self.cell(index).locator(".jp-InputPrompt")
        expect(prompt).to_have_text(re.compile(pattern), timeout=CELL_TIMEOUT_S * 1000)

    def _wait_ready(self) -> None:
        expect(self.cell(0)).to_be_visible(timeout=START_TIMEOUT_S * 1000)
        # The toolbar's indicator says idle while there is no kernel yet, and a cell run then is dropped.
        status = self.page.get_by_text(re.compile(r"ipykernel\) \| Idle$"))
        expect(status).to_be_visible(timeout=START_TIMEOUT_S * 1000)


class NotebookPage(LabPage):
    """One notebook, open in Notebook 7, which the same server serves. `wire` counts in its page."""

    FOLDER = "/notebooks/"

    def _wait_ready(self) -> None:
        expect(self.cell(0)).to_be_visible(timeout=START_TIMEOUT_S * 1000)
        # The page has no indicator that says when the kernel is there. So wait until it has heard of it.
        self.page.wait_for_function("wire.bytes > 0", timeout=START_TIMEOUT_S * 1000)


def _code_cell(cell_id: str, source: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"execution_count": None, "metadata": {}, "outputs": []}
    return {"cell_type": "code", "id": cell_id, "source": source, **empty}


def _free_port() -> int:
    """Return a port that nobody uses, and that the system gives to nobody who asks for any."""
    while True:
        port = random.randint(20_000, 29_999)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
