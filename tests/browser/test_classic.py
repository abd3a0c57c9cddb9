"""The widget in the classic Notebook 6 with ipywidgets 7.7, in a real Chromium.

`make test-all PARTS=classic` installs both, and names their interpreter in CLASSIC_PYTHON.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from .classic import ClassicPage, ClassicServer

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

CELLS = (
    """
    %load_ext loopnb
    import asyncio, loopnb
    """,
    """
    %%aloop -b -n ticker
    while True:
        await asyncio.sleep(0.1)
    """,
    "loopnb.show()",
    """
    async def late():
        await asyncio.sleep(1000)

    spawned = asyncio.create_task(late(), name="later")
    """,
    """
    while "ticker" in [task.name for task in loopnb.tasks()]:
        await asyncio.sleep(0.05)
    """,
)


@pytest.mark.classic
@pytest.mark.timeout(240)
def test_the_widget_is_live_and_cancels_in_the_classic_notebook(tmp_path: Path, browser: Browser) -> None:
    with closing(ClassicServer(tmp_path)) as server, closing(browser.new_context()) as context:
        server.wait_ready()
        notebook = ClassicPage(server, context.new_page(), server.add("classic.ipynb", CELLS))
        for index in (0, 1, 2):
            notebook.run(index)
        widget = notebook.widget(2)
        rows = widget.locator(".loopnb-row")
        expect(widget.locator(".loopnb-live")).to_have_text("live")
        expect(rows).to_have_count(1)

        notebook.run(3)
        expect(rows.filter(has_text="later")).to_have_count(1)
        widget.get_by_role("button", name="Cancel task ticker", exact=True).click()
        notebook.run(4)  # ends only when the task is gone
        expect(rows.filter(has_text="ticker")).to_have_count(0)
        expect(rows).to_have_count(1)

        table = notebook.cell(2).locator("table")
        expect(table).to_contain_text("later")  # a reader of the saved notebook sees it
        expect(table).to_be_hidden()
        notebook.save()
        server.stop_kernels()
        notebook.reload()
        error = notebook.cell(2).get_by_text("could not be displayed")
        expect(error).to_have_count(1)
        expect(error).to_be_hidden()
        expect(table).to_be_visible()
        server.stop_kernels()
