"""The widget in a real JupyterLab: what people see and what their clicks do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import expect

from loopnb.widgets.protocol import MOST_BYTES
from tests.cells import dedented

from . import wire
from .contrast import borders, contrasts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from playwright.sync_api import Locator

    from tests.gates import Gate

    from .conftest import OpenNotebook
    from .lab import LabPage, LabServer, NotebookPage

pytestmark = pytest.mark.timeout(300)

QUICKSTART = Path(__file__).parents[2] / "notebooks" / "01_quickstart.ipynb"

LOAD = dedented(
    """
    %load_ext loopnb
    import asyncio, os, time, loopnb
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

UNTIL_CANCELLED = """
async def until_cancelled():
    while "ticker" in [task.name for task in loopnb.tasks()]:
        await asyncio.sleep(0.05)
    return "it is gone"
"""
STUBBORN = """
async def stubborn(is_open):
    for _ in range(2):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
    try:
        await asyncio.sleep(3600)
    finally:
        while not is_open():
            await asyncio.sleep(0.05)
task = asyncio.create_task(stubborn(lambda: {gate}), name="stubborn")
"""
COUNT_LOOKS = """
from loopnb.widgets.model import Monitor
looks, look = [], Monitor.look
Monitor.look = lambda *given: [looks.append(1), look(*given)][1]
try:
    while True:
        looks.clear()
        await asyncio.sleep(1.5)
        if {}: break
finally:
    Monitor.look = look
"""
END_TASKS = """
from loopnb import session
while loopnb.tasks():
    session.current().cancel_all()
    await asyncio.sleep(0.02)
"""


def rows(widget: Locator) -> Locator:
    return widget.locator(".loopnb-row")


def row(widget: Locator, text: str) -> Locator:
    return rows(widget).filter(has_text=text)


def cancel_button(widget: Locator, name: str) -> Locator:
    return widget.get_by_role("button", name=f"Cancel task {name}", exact=True)


class Shown:
    """A page with a live view in its second cell, and cells to run.

    Args:
        lab: The page.
    """

    def __init__(self, lab: LabPage) -> None:
        self.lab = lab
        self.page = lab.page
        self.widget = lab.widget(1)
        self.header = self.widget.locator(".loopnb-now")
        self.note = self.widget.locator(".loopnb-note")

    def show(self) -> None:
        """Show a fresh view. No task of an earlier test is left, nor what it has sorted or opened."""
        # Nothing of ours may be under the pointer, for then rows stay in place.
        self.page.mouse.move(2, 2)
        if not self.widget.count() or self.widget.locator(".loopnb-end").is_visible():
            self.lab.put(0, LOAD)
            self.lab.put(1, SHOW)
            self.lab.run(0)
        else:
            self.run(END_TASKS)
        self.lab.run(1)
        expect(self.widget.locator(".loopnb-live")).to_have_text("live")
        expect(self.widget.locator(".loopnb-empty")).to_have_text("No live tasks")

    def run(self, source: str) -> str:
        """Run *source* in the third cell, and return its text output."""
        self.lab.put(2, source)
        return self.lab.run(2)

    def start(self, source: str) -> None:
        """Start *source* in the third cell."""
        self.lab.put(2, source)
        self.lab.start(2)

    def wait(self) -> str:
        """Wait until the third cell has ended, and return its text output."""
        self.lab.wait(2)
        return self.lab.text(2)


@pytest.fixture
def shown(shared_lab: LabPage) -> Shown:
    """A live view of a loop without tasks."""
    shown = Shown(shared_lab)
    shown.show()
    return shown


# -- it is true -----------------------------------------------------------------------------------


def test_a_cell_that_blocks_is_named_and_a_click_is_answered_and_kept(shown: Shown, gate: Gate) -> None:
    shown.run(TICKER)
    expect(row(shown.widget, "ticker")).to_have_count(1)
    expect(shown.header).to_contain_text("idle")
    shown.start(f"while not {gate}: time.sleep(0.1)")
    blocked = re.compile(r"blocked by In\[\d+\], line 1: time.sleep\s*\d+(\.\d)? s")
    expect(shown.header).to_contain_text(blocked)
    began = shown.header.text_content() or ""
    cancel_button(shown.widget, "ticker").click()
    expect(shown.note).to_have_text(re.compile(r"will be cancelled when In\[\d+\] yields"))
    expect(shown.header).to_contain_text(blocked)
    expect(shown.header).not_to_have_text(began)  # it grows, though the kernel's loop does not turn
    expect(shown.widget.locator(".loopnb-chip").first).to_have_text("1 waiting")

    gate.open()
    expect(shown.note).to_have_text("cancelled ticker")
    shown.wait()
    expect(shown.header).to_contain_text("idle")
    shown.page.mouse.move(2, 2)
    expect(rows(shown.widget)).to_have_count(0)


def test_a_cell_that_awaits_is_said_to_run(shown: Shown, gate: Gate) -> None:
    shown.start(f"while not {gate}: await asyncio.sleep(0.05)")

    expect(shown.header).to_contain_text(re.compile(r"In\[\d+\] runs"))
    gate.open()
    shown.wait()
    expect(shown.header).to_contain_text("idle")


def test_idle_is_not_said_while_a_task_is_ready(shown: Shown, gate: Gate) -> None:
    expect(shown.header).to_contain_text("idle")
    shown.run(
        f"""
        async def spin():
            while not {gate}:
                await asyncio.sleep(0)
        spinning = asyncio.create_task(spin(), name="spinner")
        """
    )
    expect(shown.header).to_contain_text("1 task runs")
    expect(shown.header).not_to_contain_text("idle")

    gate.open()
    expect(shown.header).to_contain_text("idle")


def test_a_task_that_blocks_is_named_with_line_and_remedy(shown: Shown) -> None:
    shown.run(
        """
        async def greedy():
            while True:
                await asyncio.sleep(0.3)
                time.sleep(2)
        task = asyncio.create_task(greedy(), name="greedy")
        """
    )
    greedy = row(shown.widget, "greedy")
    expect(greedy).to_have_attribute("data-state", "blocking")

    expect(greedy).to_contain_text(re.compile(r"time.sleep\(2\) at .*In\[\d+\], line 4"))
    expect(greedy.locator(".loopnb-waited")).to_have_text(re.compile(r"^[12]\.\d s$"))  # blocks since then
    expect(shown.header).to_contain_text("greedy")
    expect(shown.widget.locator(".loopnb-remedy")).to_contain_text("asyncio.sleep")


def test_the_status_stays_busy_while_a_cell_runs_even_after_clicks(shown: Shown, gate: Gate) -> None:
    shown.run(TICKER)
    expect(row(shown.widget, "ticker")).to_have_count(1)
    shown.start(f"while not {gate}: await asyncio.sleep(0.05)")
    expect(shown.header).to_contain_text("runs")
    shown.lab.watch_status()
    shown.widget.get_by_role("button", name="Age").click()
    cancel_button(shown.widget, "ticker").click()
    expect(shown.note).to_contain_text("cancelled ticker")
    shown.page.wait_for_timeout(1_000)  # the status must not change, however long one looks

    expect(shown.lab.cell(2).locator(".jp-InputPrompt")).to_have_text("[*]:")
    assert shown.lab.statuses[-1] == "Busy"
    assert shown.lab.has_busy_favicon
    gate.open()
    shown.wait()


def test_a_task_that_refuses_to_be_cancelled_is_not_said_to_be(shown: Shown, gate: Gate) -> None:
    shown.run(STUBBORN.format(gate=gate))
    stubborn = row(shown.widget, "stubborn")
    button = cancel_button(shown.widget, "stubborn")
    for refused in ("refused to cancel", "refused to cancel (twice)"):
        button.click()
        expect(stubborn).to_contain_text(refused)
        expect(button).to_have_text("Cancel")  # while a cancel is under way, a click does nothing
    button.click()
    expect(stubborn).to_have_attribute("data-state", "cancelling")
    expect(stubborn).to_contain_text("runs its finally at")

    stubborn.hover()  # the page may have moved below the pointer
    gate.open()
    expect(stubborn).to_have_attribute("data-state", "cancelled")  # held in its place under the pointer
    shown.page.mouse.move(2, 2)
    expect(rows(shown.widget)).to_have_count(0)


def test_a_failed_task_stays_in_finished_with_its_error(shown: Shown) -> None:
    shown.run(
        """
        async def boom(): raise ValueError("no <b>such</b> thing")
        async def fine(): return 6 * 7
        tasks = [asyncio.create_task(boom(), name="boom"), asyncio.create_task(fine(), name="fine")]
        await asyncio.wait(tasks)
        """
    )
    shown.widget.get_by_role("tab", name="Finished").click()
    expect(rows(shown.widget).first).to_contain_text("boom")  # the newest failure is the first of all
    boom = row(shown.widget, "boom").first
    expect(boom).to_have_attribute("data-state", "raised")
    expect(boom).to_contain_text("ValueError: no <b>such</b> thing")
    expect(row(shown.widget, "fine").first).to_have_attribute("data-state", "returned")

    boom.locator(".loopnb-name").click()
    expect(shown.widget.locator(".loopnb-detail")).to_contain_text("raise ValueError")
    shown.widget.get_by_role("button", name="Close").click()


def test_each_of_ten_thousand_tasks_can_be_found_and_cancelled(shown: Shown) -> None:
    shown.run(
        """
        async def wait(): await asyncio.sleep(3600)
        many = [asyncio.create_task(wait(), name=f"job-{n}") for n in range(10_000)]
        """
    )
    expect(row(shown.widget, "10,000 × wait")).to_have_count(1)
    row(shown.widget, "10,000 × wait").click()
    expect(row(shown.widget, "job-0wait")).to_have_count(1)
    scroll = shown.widget.locator(".loopnb-scroll")
    scroll.evaluate("scroll => { scroll.scrollTop = scroll.scrollHeight; }")
    expect(row(shown.widget, "job-9999wait")).to_be_in_viewport()
    assert rows(shown.widget).count() <= 60
    assert wire.heard(shown.page).largest <= MOST_BYTES + wire.ENVELOPE_BYTES

    shown.widget.locator(".loopnb-find").fill("job-4321")
    expect(rows(shown.widget)).to_have_count(1)
    cancel_button(shown.widget, "job-4321").click()
    expect(shown.note).to_have_text("cancelled job-4321")
    shown.widget.locator(".loopnb-find").fill("")
    expect(row(shown.widget, "9,999 × wait")).to_have_count(1)
    row(shown.widget, "9,999 × wait").locator(".loopnb-cancel").click()
    row(shown.widget, "9,999 × wait").locator(".loopnb-cancel").click()
    shown.page.mouse.move(2, 2)
    expect(rows(shown.widget)).to_have_count(0, timeout=60_000)


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param("print(await until_cancelled())", id="awaits"),
        pytest.param("print(asyncio.run(until_cancelled()))", id="is in a nested run"),
        pytest.param(
            """
            %%aloop
            print(await until_cancelled())
            """,
            id="waits for a task",
        ),
    ],
)
def test_a_cancel_works_while_a_cell(shown: Shown, cell: str) -> None:
    shown.run(UNTIL_CANCELLED)
    shown.run(TICKER)
    shown.start(cell)
    expect(shown.header).to_contain_text(re.compile(r"In\[\d+\]"))
    cancel_button(shown.widget, "ticker").click()

    assert "it is gone" in shown.wait()  # it ends only when the ticker is gone


def test_a_view_that_is_scrolled_away_asks_for_nothing(shown: Shown) -> None:
    shown.run(COUNT_LOOKS.format("looks"))
    shown.widget.evaluate("panel => { panel.style.marginBottom = '3000px'; }")
    shown.lab.cell(2).scroll_into_view_if_needed()
    expect(shown.widget).not_to_be_in_viewport()

    shown.run(COUNT_LOOKS.format("not looks"))
    shown.widget.evaluate("panel => { panel.style.marginBottom = ''; }")
    shown.widget.scroll_into_view_if_needed()


def test_keys_in_the_widget_are_no_shortcuts_of_the_notebook(shown: Shown) -> None:
    shown.run(TICKER)
    row(shown.widget, "ticker").focus()
    for key in ("x", "d", "d", "a", "b", "m", "ArrowUp", "ArrowDown"):
        shown.page.keyboard.press(key)
    expect(shown.page.locator(".jp-Notebook .jp-CodeCell")).to_have_count(3)

    shown.page.keyboard.press("Delete")
    expect(shown.note).to_have_text("cancelled ticker")
    shown.page.keyboard.press("Escape")
    expect(rows(shown.widget)).to_have_count(0)


def test_the_cell_of_a_task_is_scrolled_to(shown: Shown) -> None:
    shown.run(TICKER)
    shown.widget.evaluate("panel => { panel.style.marginBottom = '3000px'; }")
    expect(shown.lab.cell(2)).not_to_be_in_viewport()
    row(shown.widget, "ticker").locator(".loopnb-link").click()

    expect(shown.lab.cell(2)).to_be_in_viewport()
    shown.widget.evaluate("panel => { panel.style.marginBottom = ''; }")


def test_tree_and_timeline_are_drawn_from_the_kernel(shown: Shown) -> None:
    shown.run(
        """
        async def leaf(): await asyncio.sleep(3600)
        async def trunk(): await asyncio.create_task(leaf(), name="leaf")
        task = asyncio.create_task(trunk(), name="trunk")
        await asyncio.sleep(0)
        """
    )
    shown.widget.get_by_role("tab", name="Tree").click()
    lines = shown.widget.locator(".loopnb-tree-line")
    expect(lines.filter(has_text="trunk")).not_to_have_count(0)
    expect(lines.filter(has_text="leaf")).not_to_have_count(0)

    shown.widget.get_by_role("tab", name="Timeline").click()
    canvas = shown.widget.locator(".loopnb-canvas")
    expect(canvas).to_have_attribute("aria-label", re.compile(r"\d+ tasks? in \d+ lane"))
    with shown.page.expect_download() as download:
        shown.widget.get_by_role("button", name="Export").click()
    events = json.loads(download.value.path().read_text())["traceEvents"]
    assert {"trunk", "leaf"} <= {event.get("name") for event in events}
    assert all("ph" in event and "pid" in event for event in events)


def test_the_view_has_contrast_in_both_themes_of_jupyterlab(shown: Shown) -> None:
    shown.run(TICKER)
    for theme in ("dark", "light"):
        shown.lab.choose_theme(theme)
        expect(row(shown.widget, "ticker")).to_have_count(1)
        assert [text for text in contrasts(shown.widget) if text["ratio"] < 4.5] == [], theme
        assert [line for line in borders(shown.widget) if line["ratio"] < 3] == [], theme


# -- it knows when it ends --------------------------------------------------------------------------


def test_a_reloaded_page_draws_again(shown: Shown) -> None:
    shown.run(TICKER)
    shown.lab.save()
    shown.lab.reload()

    expect(row(shown.widget, "ticker")).to_have_count(1)
    expect(shown.widget.locator(".loopnb-live")).to_have_text("live")
    cancel_button(shown.widget, "ticker").click()
    expect(shown.note).to_have_text("cancelled ticker")


def test_all_views_show_the_same(shown: Shown) -> None:
    shown.run(SHOW)
    second = shown.lab.widget(2)
    expect(second.locator(".loopnb-live")).to_have_text("live")
    shown.lab.put(0, "task = asyncio.create_task(asyncio.sleep(3600), name='both')")
    shown.lab.run(0)
    for widget in (shown.widget, second):
        expect(row(widget, "both")).to_have_count(1)
    cancel_button(second, "both").click()
    expect(second.locator(".loopnb-note")).to_have_text("cancelled both")
    shown.page.mouse.move(2, 2)

    for widget in (shown.widget, second):
        expect(rows(widget)).to_have_count(0)
    expect(shown.note).not_to_contain_text("both")  # it has not asked for that


def test_an_unloaded_view_says_so_in_one_line(shown: Shown) -> None:
    shown.run("%unload_ext loopnb")

    expect(shown.widget.locator(".loopnb-end")).to_have_text("loopnb was unloaded")


def test_after_a_restart_the_view_says_so_and_is_grey(shown: Shown) -> None:
    shown.run(TICKER)
    expect(row(shown.widget, "ticker")).to_have_count(1)
    shown.lab.restart_kernel()

    text = re.compile(r"This view belongs to the kernel before its restart at \d\d:\d\d. Run the cell again.")
    expect(shown.widget.locator(".loopnb-end")).to_have_text(text)
    expect(cancel_button(shown.widget, "ticker")).to_be_disabled()
    age = shown.widget.locator(".loopnb-age")
    frozen = age.inner_text()
    shown.lab.put(0, LOAD)
    shown.lab.run(0)  # takes longer than the ages' tick
    expect(age).to_have_text(frozen)

    shown.lab.run(1)
    expect(shown.widget.locator(".loopnb-live")).to_have_text("live")
    expect(shown.widget.locator(".loopnb-empty")).to_have_text("No live tasks")


def test_after_a_shutdown_the_view_says_so_and_is_grey(shown: Shown) -> None:
    shown.run(TICKER)
    expect(row(shown.widget, "ticker")).to_have_count(1)
    shown.page.evaluate("() => { jupyterapp.commands.execute('kernelmenu:shutdown') }")

    text = re.compile(r"The kernel was shut down at \d\d:\d\d. Start it and run the cell again.")
    expect(shown.widget.locator(".loopnb-end")).to_have_text(text)
    expect(shown.widget).to_have_attribute("data-live", "gone")
    expect(cancel_button(shown.widget, "ticker")).to_be_disabled()


def test_the_view_is_at_home_in_notebook_7(
    open_notebook_7: Callable[[Sequence[str]], NotebookPage], gate: Gate
) -> None:
    lab = open_notebook_7([LOAD, TICKER, SHOW, f"while not {gate}: time.sleep(0.1)"])
    lab.run_all(0, 1, 2)
    widget = lab.widget(2)
    expect(widget.locator(".loopnb-live")).to_have_text("live")
    lab.start(3)
    expect(widget.locator(".loopnb-now")).to_contain_text("blocked by In[4], line 1: time.sleep")
    gate.open()
    lab.wait(3)

    row(widget, "ticker").focus()
    for key in ("x", "d", "d", "Delete"):
        lab.page.keyboard.press(key)
    expect(widget.locator(".loopnb-note")).to_have_text("cancelled ticker")
    expect(lab.page.locator(".jp-Notebook .jp-CodeCell")).to_have_count(4)
    assert [text for text in contrasts(widget) if text["ratio"] < 4.5] == []


def test_a_saved_notebook_shows_the_table_in_notebook_7(
    open_notebook_7: Callable[[Sequence[str]], NotebookPage], lab: LabServer
) -> None:
    notebook = open_notebook_7([LOAD, TICKER, SHOW])
    notebook.run_all(0, 1, 2)
    table = notebook.cell(2).locator("table")
    expect(notebook.widget(2).locator(".loopnb-live")).to_have_text("live")
    expect(table).to_contain_text("ticker")
    expect(table).to_be_hidden()
    notebook.save()
    lab.stop_kernels()
    notebook.reload()

    error = notebook.cell(2).get_by_text("model not found")
    expect(error).to_have_count(1)
    expect(error).to_be_hidden()
    expect(table).to_be_visible()
    expect(table).to_contain_text("ticker")
    notebook.run_all(0, 2)
    expect(notebook.widget(2).locator(".loopnb-live")).to_have_text("live")
    expect(table).to_be_hidden()


def test_a_view_inside_an_output_widget_is_seen(open_notebook: OpenNotebook) -> None:
    inside = """
    import ipywidgets
    out = ipywidgets.Output()
    display(out)
    with out:
        loopnb.show()
    """
    lab = open_notebook([LOAD, dedented(inside)])
    lab.run_all(0, 1)

    expect(lab.widget(1).locator(".loopnb-live")).to_have_text("live")
    expect(lab.cell(1).locator("table")).to_be_hidden()


def test_a_saved_notebook_shows_the_table_where_there_is_no_kernel(open_notebook: OpenNotebook) -> None:
    lab = open_notebook([LOAD, SHOW, TICKER])
    lab.run_all(0, 1)
    table = lab.cell(1).locator("table")
    expect(lab.widget(1).locator(".loopnb-live")).to_have_text("live")
    lab.run(2)
    expect(table).to_contain_text("ticker")  # stored again, for a cell has run
    expect(table).to_be_hidden()
    expect(row(lab.widget(1), "ticker")).to_have_count(1)  # the view is the same one
    notebook = lab.save()
    # VS Code shows the first type of each output that it knows, application/vnd.* before text/html.
    # GitHub shows the HTML, and no views.
    stored, view = (output["data"] for output in notebook["cells"][1]["outputs"])
    assert set(stored) == {"text/html", "text/plain"}
    assert "text/html" not in view
    exported, _resources = HTMLExporter().from_notebook_node(nbformat.reads(json.dumps(notebook), 4))
    assert exported.count("<table") == 1
    assert "ticker" in exported.partition("<table")[2].partition("</table>")[0]

    lab.page.evaluate("() => jupyterapp.commands.execute('kernelmenu:shutdown').then(() => null)")
    expect(lab.widget(1).locator(".loopnb-end")).to_contain_text("shut down")
    expect(table).to_be_hidden()
    lab.reload()
    error = lab.cell(1).get_by_text("model not found")
    expect(error).to_have_count(1)
    expect(error).to_be_hidden()
    expect(table).to_be_visible()
    expect(table).to_contain_text("ticker")
    lab.run_all(0, 1)
    expect(lab.widget(1).locator(".loopnb-live")).to_have_text("live")
    expect(table).to_be_hidden()


def test_the_quickstart_shows_its_ticker_and_cancels_it(open_notebook: OpenNotebook) -> None:
    cells = [cell.source for cell in nbformat.read(QUICKSTART, 4).cells if cell.cell_type == "code"]
    at = next(index for index, source in enumerate(cells) if "loopnb.show()" in source)
    lab = open_notebook(QUICKSTART)
    lab.run_all(*range(at + 1))
    widget = lab.widget(at)
    ticker = row(widget, "ticker")
    expect(ticker).to_have_count(1)
    expect(ticker.locator(".loopnb-cell")).to_have_text(re.compile(r"In\[\d+\]"))
    expect(widget.locator(".loopnb-live")).to_have_text("live")

    cancel_button(widget, "ticker").click()
    expect(widget.locator(".loopnb-note")).to_contain_text("ticker")


def test_all_cells_of_the_quickstart_leave_something_to_see(open_notebook: OpenNotebook) -> None:
    cells = [cell.source for cell in nbformat.read(QUICKSTART, 4).cells if cell.cell_type == "code"]
    at = next(index for index, source in enumerate(cells) if "loopnb.show()" in source)
    lab = open_notebook(QUICKSTART)
    lab.page.evaluate("() => jupyterapp.commands.execute('notebook:run-all-cells').then(() => null)")
    lab.wait(len(cells) - 1)
    widget = lab.widget(at)
    widget.scroll_into_view_if_needed()

    expect(rows(widget)).to_have_count(1)
    expect(rows(widget)).to_contain_text("12 × worker")
    widget.get_by_role("tab", name="Finished").click()
    widget.locator(".loopnb-find").fill("ticker")
    expect(row(widget, "ticker")).not_to_have_count(0)
