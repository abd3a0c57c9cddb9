"""Draw the pictures of README and notebooks from the real thing: JupyterLab in a Chromium (`make shots`)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import browser
from playwright.sync_api import expect, sync_playwright
from steps import ROOT

sys.path.insert(0, str(ROOT))

from tests.browser.conftest import OPTIONS
from tests.browser.lab import LabPage, LabServer

if TYPE_CHECKING:
    from playwright.sync_api import Locator

FOLDER = ROOT / "notebooks"

LOAD = """
    %load_ext loopnb
    import asyncio, time, loopnb
    """
DOWNLOADS = """
    import socket
    server = socket.create_server(("127.0.0.1", 8080), backlog=100)  # it never answers
    async def fetch(symbol):
        reader, writer = await asyncio.open_connection("127.0.0.1", 8080)
        return await reader.readline()
    downloads = [asyncio.create_task(fetch(n), name=f"fetch-{n}") for n in range(40)]
    """
REPORTS = """
    async def book(symbol): await asyncio.sleep(3600)
    def legacy_client(symbol): return asyncio.run(book(symbol))
    async def report(symbol): return legacy_client(symbol)
    async def stubborn():
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(3600)
    queue = asyncio.Queue()
    jobs = [asyncio.create_task(report(name), name=f"report-{name}") for name in ("ACME", "INIT")]
    jobs += [asyncio.create_task(queue.get(), name="writer"), asyncio.create_task(stubborn(), name="cleanup")]
    await asyncio.sleep(0.1)
    jobs[-1].cancel();
    """
FEED = """
    %%aloop -b -n feed
    while True:
        await asyncio.sleep(1)
    """
FAILING = """
    async def parse(page):
        await asyncio.sleep(0.5 + page / 10)
        if page == 3:
            raise ValueError("page 3 has no <title>")
        return page
    pages = [asyncio.create_task(parse(page), name=f"parse-{page}") for page in range(6)]
    await asyncio.wait(pages);
    """
MANY = """
    async def wait_for_change(n): await asyncio.sleep(3600)
    many = [asyncio.create_task(wait_for_change(n), name=f"watch-{n}") for n in range(10_000)]
    """


class Studio:
    """A notebook with a live view in its second cell.

    Args:
        lab: The page.
    """

    def __init__(self, lab: LabPage) -> None:
        self.lab = lab
        lab.put(0, LOAD)
        lab.put(1, "loopnb.show()")
        lab.run_all(0, 1)
        self.view = lab.widget(1)
        self.next = 2

    def write(self, source: str) -> int:
        """Write *source* into a new cell, and return the cell's index."""
        index, self.next = self.next, self.next + 1
        self.lab.put(index, source)
        return index

    def run(self, source: str) -> None:
        """Run *source* in a new cell."""
        self.lab.run(self.write(source))

    def row(self, text: str) -> Locator:
        """Return the row with this text."""
        return self.view.locator(".loopnb-row").filter(has_text=text)

    def tab(self, name: str) -> None:
        """Choose a tab."""
        self.view.get_by_role("tab", name=name).click()

    def take(self, name: str) -> None:
        """Write the view to a picture."""
        self.lab.page.mouse.move(2, 2)
        self.lab.page.wait_for_timeout(700)
        path = FOLDER / f"{name}.png"
        self.view.screenshot(path=path)
        print(path.relative_to(ROOT), flush=True)


def draw(studio: Studio) -> None:
    """Take all pictures."""
    for source in (FEED, DOWNLOADS, REPORTS):
        studio.run(source)
    expect(studio.row("40 ×")).to_have_count(1)
    expect(studio.row("parked")).not_to_have_count(0)
    studio.take("task-widget")
    studio.lab.choose_theme("dark")
    studio.take("task-widget-dark")
    studio.lab.choose_theme("light")

    cell = studio.write("time.sleep(4)")
    studio.lab.start(cell)
    expect(studio.view.locator(".loopnb-now")).to_contain_text("blocked by")
    studio.take("widget-blocked")
    studio.lab.wait(cell)

    studio.run(FAILING)
    studio.tab("Finished")
    studio.row("parse-3").locator(".loopnb-name").click()
    expect(studio.view.locator(".loopnb-detail")).to_contain_text("raise ValueError")
    studio.take("widget-failed")
    studio.view.get_by_role("button", name="Close").click()
    studio.tab("Timeline")
    studio.take("widget-timeline")

    studio.tab("Tasks")
    studio.run(MANY)
    studio.row("10,000 ×").click()
    expect(studio.row("watch-1wait")).to_have_count(1)
    studio.take("widget-many")


def main() -> int:
    """Start a server and a browser, and draw."""
    chromium = browser.ensure()
    if chromium is None:
        print("There is no Chromium, and none could be installed.")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        server = LabServer(Path(folder))
        try:
            server.wait_ready()
            server.set_theme("light")
            with sync_playwright() as playwright:
                chrome = playwright.chromium.launch(executable_path=chromium, args=list(OPTIONS))
                page = chrome.new_page(viewport={"width": 1368, "height": 2400})
                draw(Studio(LabPage(server, page, server.add("shots.ipynb", [""] * 9))))
                chrome.close()
        finally:
            server.stop_kernels()
            server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
