"""One JupyterLab server, one Chromium and mostly one page for all browser tests."""

from __future__ import annotations

import itertools
import shutil
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Error, expect, sync_playwright

from tests.gates import gate as gate

from . import wire
from .lab import LabPage, LabServer, NotebookPage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from playwright.sync_api import Browser, BrowserContext, Page

    OpenNotebook = Callable[[Path | Sequence[str]], LabPage]

#: How long a page may take for what it is to show or to do, where a test says nothing else. Several times as
#: long as it takes on a busy machine.
TIMEOUT_MS = 40_000
expect.set_options(timeout=TIMEOUT_MS)

_numbers = itertools.count()

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""Names to look for on PATH; Playwright's own browser is used where there is none."""

OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def find_chromium() -> str | None:
    """Return the path of the browser on PATH; None if there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    """A running JupyterLab."""
    with closing(LabServer(tmp_path_factory.mktemp("lab"))) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """A page for all tests of a module, without JupyterLab."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    yield page
    context.close()


@pytest.fixture
def timed_page(browser: Browser) -> Iterator[Page]:
    """A page with a clock of its own."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    page.clock.install()
    yield page
    context.close()


class Tab:
    """The page of JupyterLab that all tests use in turn: loading it costs more than most of them.

    Args:
        lab: The server.
        browser: The browser.
    """

    def __init__(self, lab: LabServer, browser: Browser) -> None:
        self._lab = lab
        self._browser = browser
        self._context: BrowserContext | None = None
        self._shared_name = lab.add("shared.ipynb", ["", "", ""])
        self._name = ""
        self._shown: LabPage | None = None

    def open_shared(self) -> LabPage:
        """Return the notebook of three empty cells that tests share, with its one kernel."""
        if self._shown is not None and self._name == self._shared_name:
            return self._shown
        return self.open(self._shared_name)

    def open(self, name: str) -> LabPage:
        """Open a notebook in place of the one that is open."""
        shown, self._shown = self._shown, None
        try:
            if shown is not None:
                shown.close()
        except (AssertionError, Error):
            self.close()
        if self._context is None:
            self._context = self._browser.new_context(viewport={"width": 1368, "height": 1100})
            wire.count_in(self._context)
            self._context.new_page()
        (page,) = self._context.pages
        self._name = name
        self._shown = LabPage(self._lab, page, name)
        return self._shown

    def close(self) -> None:
        """Close the page."""
        context, self._context, self._shown = self._context, None, None
        if context is not None:
            context.close()


@pytest.fixture(scope="session")
def tab(lab: LabServer, browser: Browser) -> Iterator[Tab]:
    """Keep a page of JupyterLab open."""
    lab.set_theme("light")
    with closing(Tab(lab, browser)) as tab:
        yield tab
    lab.stop_kernels()


@pytest.fixture
def shared_lab(tab: Tab) -> LabPage:
    """One notebook of three empty cells, with one kernel, for most tests."""
    return tab.open_shared()


@pytest.fixture
def open_notebook(lab: LabServer, tab: Tab) -> OpenNotebook:
    """Open one notebook: a copy of a file, or a new one that has the given code cells."""

    def open_it(notebook: Path | Sequence[str]) -> LabPage:
        if isinstance(notebook, Path):
            return tab.open(lab.copy(notebook))
        return tab.open(lab.add(f"notebook-{next(_numbers)}.ipynb", notebook))

    return open_it


@pytest.fixture
def open_notebook_7(lab: LabServer, browser: Browser) -> Iterator[Callable[[Sequence[str]], NotebookPage]]:
    """Open a new notebook that has the given code cells, in a fresh page of Notebook 7."""
    context = browser.new_context(viewport={"width": 1368, "height": 1000})
    wire.count_in(context)

    def open_it(cells: Sequence[str]) -> NotebookPage:
        return NotebookPage(lab, context.new_page(), lab.add(f"notebook-{next(_numbers)}.ipynb", cells))

    try:
        yield open_it
    finally:
        context.close()
        lab.stop_kernels()
