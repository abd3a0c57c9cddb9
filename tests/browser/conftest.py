"""One JupyterLab server, one Chromium and mostly one page for all browser tests; a notebook for each."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Error, sync_playwright

from . import wire
from .lab import LabPage, LabServer, NotebookPage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from playwright.sync_api import Browser, BrowserContext, Page

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


def find_chromium() -> str | None:
    """Return the path of the browser on PATH; None if there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


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
    page.set_default_timeout(5_000)
    yield page
    context.close()


@pytest.fixture(scope="module")
def shared_lab(lab: LabServer, browser: Browser) -> Iterator[LabPage]:
    """One page with one kernel for all tests of a module: a notebook of three empty cells."""
    context = browser.new_context(viewport={"width": 1368, "height": 1100})
    wire.count_in(context)
    lab.set_theme("light")
    try:
        yield LabPage(lab, context.new_page(), lab.add(f"notebook-{next(_numbers)}.ipynb", ["", "", ""]))
    finally:
        context.close()
        lab.stop_kernels()


class Pages:
    """Lends the same page to one test after the other: loading JupyterLab costs more than most tests.

    Args:
        lab: The server.
        browser: The browser.
    """

    def __init__(self, lab: LabServer, browser: Browser) -> None:
        self._lab = lab
        self._browser = browser
        self._theme: Theme | None = None
        self._context: BrowserContext | None = None
        self._lent: LabPage | None = None

    def open(self, name: str, theme: Theme) -> LabPage:
        """Open a notebook. JupyterLab reads its theme when it is loaded: another one takes a fresh page."""
        if theme != self._theme:
            self.drop()
        if self._context is None:
            self._lab.set_theme(theme)
            self._context = self._browser.new_context(viewport={"width": 1368, "height": 1000})
            self._context.new_page()
            self._theme = theme
        (page,) = self._context.pages
        self._lent = LabPage(self._lab, page, name)
        return self._lent

    def take_back(self) -> None:
        """Close the notebook. A page in which that fails is lent to nobody else."""
        lent, self._lent = self._lent, None
        try:
            if lent is not None:
                lent.close()
        except (AssertionError, Error):
            self.drop()
        finally:
            self._lab.stop_kernels()

    def drop(self) -> None:
        """Close the page."""
        context, self._context, self._theme = self._context, None, None
        if context is not None:
            context.close()


@pytest.fixture(scope="session")
def pages(lab: LabServer, browser: Browser) -> Iterator[Pages]:
    """Keep a page open."""
    pages = Pages(lab, browser)
    try:
        yield pages
    finally:
        pages.drop()


@pytest.fixture
def open_notebook(lab: LabServer, pages: Pages) -> Iterator[OpenNotebook]:
    """Open one notebook: a file, or a new one that has the given code cells."""

    def open_it(notebook: Path | Sequence[str], theme: Theme = "light") -> LabPage:
        if isinstance(notebook, Path):
            name = lab.copy(notebook)
        else:
            name = lab.add(f"notebook-{next(_numbers)}.ipynb", notebook)
        return pages.open(name, theme)

    try:
        yield open_it
    finally:
        pages.take_back()


@pytest.fixture
def open_notebook_7(lab: LabServer, browser: Browser) -> Iterator[Callable[[Sequence[str]], NotebookPage]]:
    """Open a new notebook that has the given code cells, in a fresh page of Notebook 7."""
    context = browser.new_context(viewport={"width": 1368, "height": 1000})

    def open_it(cells: Sequence[str]) -> NotebookPage:
        return NotebookPage(lab, context.new_page(), lab.add(f"notebook-{next(_numbers)}.ipynb", cells))

    try:
        yield open_it
    finally:
        context.close()
        lab.stop_kernels()
