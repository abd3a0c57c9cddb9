"""The widget in a real JupyterLab: what people see and what their clicks do."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.cells import dedented

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from .conftest import OpenNotebook
    from .lab import Theme

pytestmark = pytest.mark.timeout(180)

QUICKSTART = Path(__file__).parents[2] / "notebooks" / "01_quickstart.ipynb"

PICTURE = os.environ.get("LOOPNB_PICTURE")
"""Where to write the README's picture; the dark one goes beside it, as NAME-dark.png."""

LOAD = dedented(
    """
    %load_ext loopnb
    import asyncio, time, loopnb
    """
)
TICKER = dedented(
    """
    %%aloop -b -n ticker
    while True:
        await asyncio.sleep(0.1)
    """
)
SHOW = "loopnb.show()"

UNTIL_CANCELLED = """\
async def until_cancelled():
    while "ticker" in [task.name for task in loopnb.tasks()]:
        await asyncio.sleep(0.05)
    return "it is gone"
"""

COUNT_SAMPLES = """\
from loopnb import session
current = session.current()
samples, snapshot = [], type(current).snapshot
type(current).snapshot = lambda *given: [samples.append(1), snapshot(*given)][1]
await asyncio.sleep(2)
type(current).snapshot = snapshot
print(len(samples))
"""


def rows(widget: Locator) -> Locator:
    return widget.locator(".loopnb-row")


def cancel_button(widget: Locator, name: str) -> Locator:
    return widget.get_by_role("button", name=f"Cancel task {name}", exact=True)


def is_dark(widget: Locator) -> bool:
    """Return True if the text is brighter than its background."""
    ground, text = widget.evaluate(
        """panel => ["backgroundColor", "color"].map(name =>
            getComputedStyle(panel)[name].match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0))"""
    )
    return bool(ground < text)


def test_the_quickstart_shows_its_ticker_and_cancels_it(open_notebook: OpenNotebook) -> None:
    notebook = json.loads(QUICKSTART.read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    shown = next(index for index, source in enumerate(cells) if "loopnb.show()" in source)
    lab = open_notebook(QUICKSTART)
    lab.run_all(*range(shown + 1))
    widget = lab.widget(shown)

    ticker = rows(widget).filter(has_text="ticker")
    expect(ticker).to_have_count(1)
    expect(ticker.locator(".loopnb-spawned")).to_have_text(re.compile(r"In\[\d+\]"))
    expect(widget.locator(".loopnb-live")).to_have_text("live")
    expect(widget.locator(".loopnb-condition")).to_have_text("idle")

    cancel_button(widget, "ticker").click()
    expect(ticker).to_have_count(0)
    expect(widget.locator(".loopnb-note")).to_contain_text("ticker")


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param("await until_cancelled()", id="awaits"),
        pytest.param("asyncio.run(until_cancelled())", id="is in a nested run"),
        pytest.param(
            dedented(
                """
                %%aloop
                await until_cancelled()
                """
            ),
            id="waits for a task",
        ),
    ],
)
def test_a_cancel_works_while_a_cell(open_notebook: OpenNotebook, cell: str) -> None:
    lab = open_notebook([LOAD, TICKER, SHOW, UNTIL_CANCELLED, cell])
    lab.run_all(0, 1, 2, 3)
    widget = lab.widget(2)
    lab.start(4)
    expect(widget.locator(".loopnb-condition")).to_contain_text("running, In[5]")
    cancel_button(widget, "ticker").click()

    lab.wait(4)  # it ends only when the ticker is gone
    assert "it is gone" in lab.text(4)
    expect(rows(widget)).to_have_count(0)
    expect(widget.locator(".loopnb-empty")).to_have_text("No live tasks")


def test_a_blocked_loop_shows_and_a_click_is_kept_for_later(open_notebook: OpenNotebook) -> None:
    lab = open_notebook([LOAD, TICKER, SHOW, "time.sleep(9)"])
    lab.run_all(0, 1, 2)
    widget = lab.widget(2)
    expect(widget.locator(".loopnb-live")).to_have_text("live")
    lab.start(3)
    button = cancel_button(widget, "ticker")
    button.click()

    expect(button).to_have_text("cancelling…")
    expect(button).to_have_text("queued: the kernel is busy")
    expect(widget.locator(".loopnb-live")).to_contain_text("no answer for", timeout=10_000)
    lab.wait(3)
    expect(rows(widget)).to_have_count(0)
    expect(widget.locator(".loopnb-live")).to_have_text("live")


def test_all_views_show_the_same(open_notebook: OpenNotebook) -> None:
    lab = open_notebook([LOAD, SHOW, SHOW, TICKER])
    lab.run_all(0, 1, 2, 3)
    for index in (1, 2):
        expect(rows(lab.widget(index))).to_have_count(1)
    cancel_button(lab.widget(1), "ticker").click()

    for index in (1, 2):
        expect(rows(lab.widget(index))).to_have_count(0)
    expect(lab.widget(2).locator(".loopnb-note")).to_be_empty()  # it has not asked for anything


def test_a_reloaded_page_draws_again(open_notebook: OpenNotebook) -> None:
    lab = open_notebook([LOAD, TICKER, SHOW])
    lab.run_all(0, 1, 2)
    expect(rows(lab.widget(2))).to_have_count(1)
    saved = lab.save()
    [output] = saved["cells"][2]["outputs"]
    assert "ticker" in "".join(output["data"]["text/html"])
    assert "ticker" in "".join(output["data"]["text/plain"])

    lab.reload()
    widget = lab.widget(2)

    expect(rows(widget)).to_have_count(1)
    expect(widget.locator(".loopnb-live")).to_have_text("live")
    cancel_button(widget, "ticker").click()
    expect(rows(widget)).to_have_count(0)


def test_after_a_restart_the_view_says_that_the_kernel_is_gone(open_notebook: OpenNotebook) -> None:
    lab = open_notebook([LOAD, TICKER, SHOW])
    lab.run_all(0, 1, 2)
    widget = lab.widget(2)
    expect(rows(widget)).to_have_count(1)
    lab.restart_kernel()

    expect(widget.locator(".loopnb-live")).to_contain_text("kernel gone")
    expect(cancel_button(widget, "ticker")).to_be_disabled()
    expect(rows(widget)).to_have_count(1)
    age = widget.locator("td.loopnb-age")
    frozen = age.inner_text()
    lab.run(0)  # takes longer than the ages' tick
    expect(age).to_have_text(frozen)

    lab.run(2)
    expect(lab.widget(2).locator(".loopnb-live")).to_have_text("live")
    expect(lab.widget(2).locator(".loopnb-empty")).to_have_text("No live tasks")


def test_unloading_takes_the_views_away(open_notebook: OpenNotebook) -> None:
    lab = open_notebook([LOAD, SHOW, "%unload_ext loopnb"])
    lab.run_all(0, 1)
    expect(lab.widget(1)).to_be_visible()
    lab.run(2)

    expect(lab.widget(1)).to_have_count(0)


def test_a_view_that_is_scrolled_away_asks_for_nothing(open_notebook: OpenNotebook) -> None:
    lab = open_notebook([LOAD, SHOW, "print('\\n' * 200)", COUNT_SAMPLES])
    lab.run_all(0, 1)
    expect(lab.widget(1).locator(".loopnb-live")).to_have_text("live")
    assert int(lab.run(3)) > 0

    lab.run(2)
    lab.cell(3).scroll_into_view_if_needed()
    expect(lab.widget(1)).not_to_be_in_viewport()
    assert int(lab.run(3)) == 0


def test_keys_in_the_widget_are_no_shortcuts_of_the_notebook(open_notebook: OpenNotebook) -> None:
    lab = open_notebook([LOAD, TICKER, SHOW, "1"])
    lab.run_all(0, 1, 2)
    button = cancel_button(lab.widget(2), "ticker")
    button.focus()
    for key in ("x", "d", "d", "a", "b", "m"):
        button.press(key)
    expect(lab.page.locator(".jp-Notebook .jp-CodeCell")).to_have_count(4)

    button.press("Enter")
    expect(rows(lab.widget(2))).to_have_count(0)


PICTURE_CELLS = (
    LOAD,
    """\
async def book(symbol): await asyncio.sleep(3600)
def legacy_client(symbol): return asyncio.run(book(symbol))
async def report(symbol): return legacy_client(symbol)
queue = asyncio.Queue()
async def writer(): await queue.get()
jobs = [asyncio.create_task(report(name), name=f"report-{name}") for name in ("ACME", "INIT")]
jobs.append(asyncio.create_task(writer(), name="writer"))""",
    dedented(
        """
        %%aloop -b -n feed
        while True:
            await asyncio.sleep(1)
        """
    ),
    SHOW,
    "asyncio.run(asyncio.wait(jobs))",
)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_picture_for_the_readme(open_notebook: OpenNotebook, theme: Theme, tmp_path: Path) -> None:
    lab = open_notebook(PICTURE_CELLS, theme)
    lab.run_all(0, 1, 2, 3)
    lab.start(4)
    widget = lab.widget(3)
    expect(widget.locator(".loopnb-condition")).to_contain_text("waits in a nested run")
    expect(rows(widget).filter(has_text="parked")).to_have_count(2)
    expect(widget.locator(".loopnb-live")).to_have_text("live")
    assert is_dark(widget) == (theme == "dark")
    path = Path(PICTURE) if PICTURE else tmp_path / "picture.png"
    widget.hover()
    lab.page.mouse.move(0, 0)
    widget.screenshot(path=path if theme == "light" else path.with_stem(f"{path.stem}-dark"))
    for name in ("writer", "report-ACME", "report-INIT"):
        cancel_button(widget, name).click()
    lab.wait(4)
