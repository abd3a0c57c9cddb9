"""One JupyterLab server and one Chromium for all browser tests; a fresh page for each."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

from .lab import LabPage, LabServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from playwright.sync_api import Browser, Page

    from .lab import Theme

    OpenNotebook = Callable[..., LabPage]

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


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    """A running JupyterLab."""
    server = LabServer(tmp_path_factory.mktemp("lab"))
    try:
        server.wait_ready()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """A page for all tests of a module, without JupyterLab."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    page.set_default_timeout(5_000)
    yield page
    context.close()


@pytest.fixture(scope="module")
def shared_lab(lab: LabServer, browser: Browser) -> Iterator[LabPage]:
    """One page with one kernel for all tests of a module: a notebook of three empty cells."""
    context = browser.new_context(viewport={"width": 1368, "height": 1100})
    lab.set_theme("light")
    try:
        yield LabPage(lab, context.new_page(), lab.add(f"notebook-{next(_numbers)}.ipynb", ["", "", ""]))
    finally:
        context.close()
        lab.stop_kernels()


@pytest.fixture
def open_notebook(lab: LabServer, browser: Browser) -> Iterator[OpenNotebook]:
    """Open a notebook in a fresh page (*page* says of which front end): a file, or a new one of these cells."""
    context = browser.new_context(viewport={"width": 1368, "height": 1000})

    def open_it(
        notebook: Path | Sequence[str], theme: Theme = "light", *, page: type[LabPage] = LabPage
    ) -> LabPage:
        lab.set_theme(theme)
        if isinstance(notebook, Path):
            name = lab.copy(notebook)
        else:
            name = lab.add(f"notebook-{next(_numbers)}.ipynb", notebook)
        return page(lab, context.new_page(), name)

    try:
        yield open_it
    finally:
        context.close()
        lab.stop_kernels()
