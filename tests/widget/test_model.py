"""The widget's model on a real loop with a real tracker; only the page at the other end is a stand-in."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import gc
import json
import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from IPython.core.formatters import DisplayFormatter
from ipywidgets import Widget

from loopnb.records import Block, CellRef, Standstill
from loopnb.tracking import tracked
from loopnb.tracking.slicing import SlicePace
from loopnb.widgets import timeline
from loopnb.widgets.details import traceback_text
from loopnb.widgets.ended import Ended
from loopnb.widgets.model import FAST_S, LEASE_S, SLOW_S, SOON_S, LoopWidget
from loopnb.widgets.monitor import BEAT_S
from loopnb.widgets.protocol import MOST_BYTES
from loopnb.widgets.table import Selection
from tests.awkward import METHODS, awkward

from .conftest import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from loopnb.records import Finding, TaskRecord
    from loopnb.tracking.history import EndedTask
    from tests.loops import FastLoop

    from .conftest import Notebook
    from .front_end import FrontEnd


async def nap(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def ticks() -> None:
    await asyncio.sleep(1e9)


@pytest.fixture
def widget(kernel: Notebook, page: FrontEnd, loop: FastLoop) -> Iterator[LoopWidget]:
    """The widget, displayed nowhere yet."""
    widget = LoopWidget(kernel, loop, clock=loop.time, cpu_clock=loop.time)
    yield widget
    widget.close()


def look(page: FrontEnd, loop: FastLoop, view: str = "v", **query: object) -> None:
    """Show a view, and wait until it has all that it shows."""
    page.say(op="visible", view=view, visible=True, query=query)
    loop.pass_time(0.01)


def test_a_view_can_draw_as_soon_as_it_is_made(kernel: Notebook, page: FrontEnd, loop: FastLoop) -> None:
    kernel.spawn(ticks(), "feed")
    widget = LoopWidget(kernel, loop, clock=loop.time, cpu_clock=loop.time)
    opened = page.comms[-1].opened_with
    [row] = opened["snapshot"]["window"]["rows"].values()

    assert row["name"] == "feed"
    assert opened["snapshot"]["shared"]["head"]["text"] == "idle"
    assert opened["options"] == {"height": None, "group": True}
    widget.close()


def test_nothing_is_looked_at_while_nobody_looks(
    widget: LoopWidget, kernel: Notebook, loop: FastLoop, page: FrontEnd
) -> None:
    kernel.looks.clear()
    loop.pass_time(60)

    assert kernel.looks == []
    assert page.ops() == []


def test_a_visible_view_gets_header_and_rows_at_once(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    kernel.spawn(ticks(), "feed", cell=4)
    look(page, loop)
    [row] = page.rows()

    assert page.ops()[0] == "shared"
    assert row["name"] == "feed"
    assert row["cell"] == "In[4]"
    assert row["state"] == "waiting"
    assert row["waits_for"] == "sleep"
    assert page.shared["head"]["counts"]["waiting"] == 1


def test_a_quiet_loop_is_only_heard_every_two_seconds(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop)
    loop.pass_time(3)
    kernel.looks.clear()
    page.ops()
    loop.pass_time(10 * BEAT_S)

    assert len(page.ops()) <= 10
    assert len(kernel.looks) == pytest.approx(10 * BEAT_S / SLOW_S, abs=1)


async def stages() -> None:
    await asyncio.sleep(1)
    await asyncio.sleep(1e9)


def test_a_group_whose_tasks_wait_elsewhere_has_not_ended(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    kernel.spawn_all([stages() for _ in range(5)], [None] * 5)
    look(page, loop)
    [before] = page.rows()
    loop.pass_time(2)
    [after] = page.rows()

    assert after["key"] != before["key"]
    assert "ended" not in page.last("window")


def test_a_group_that_has_ended_has_not_moved(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    tasks = [kernel.spawn(ticks(), f"task-{number}") for number in range(5)]
    look(page, loop)
    [row] = page.rows()
    for task in tasks:
        task.cancel()
    loop.pass_time(SLOW_S)

    assert page.rows() == []
    assert page.last("window")["ended"] == {row["key"]: "ended"}


def test_changes_add_up(widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop) -> None:
    look(page, loop, group=False)
    tasks = [kernel.spawn(ticks(), f"task-{number}") for number in range(5)]
    loop.pass_time(SLOW_S)
    assert [row["name"] for row in page.rows()] == [f"task-{number}" for number in range(5)]

    tasks[1].cancel()
    loop.pass_time(SLOW_S)

    assert [row["name"] for row in page.rows()] == ["task-0", "task-2", "task-3", "task-4"]
    assert page.windows["v"]["total"] == 4
    assert page.shared["head"]["tasks"] == 4


def test_it_looks_more_often_while_something_changes(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop)
    loop.pass_time(3)
    kernel.spawn(ticks())
    loop.pass_time(SLOW_S + FAST_S)
    *_, changed, following = kernel.looks

    assert following - changed == pytest.approx(FAST_S)


def test_costly_looks_are_made_less_often(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    kernel.cost_s = 0.1
    look(page, loop)
    kernel.looks.clear()
    loop.pass_time(10)

    assert len(kernel.looks) * kernel.cost_s <= 0.06 * 10


def test_a_hidden_view_stops_the_looking(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop, "one")
    look(page, loop, "two")
    page.say(op="visible", view="one", visible=False)
    loop.pass_time(1)
    assert len(kernel.looks) > 2

    page.say(op="visible", view="two", visible=False)
    loop.pass_time(1)
    kernel.looks.clear()
    loop.pass_time(60)

    assert kernel.looks == []


def test_a_view_that_vanished_is_forgotten(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop)
    loop.pass_time(LEASE_S + 1)
    kernel.looks.clear()
    page.ops()
    loop.pass_time(60)

    assert kernel.looks == []
    assert page.ops() == []


def test_the_loop_is_idle_since_the_last_cell_or_block(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop)
    loop.pass_time(5)

    kernel.cells_ended += 1  # both looks find the loop idle; a cell has run in between
    ended_at = loop.time()
    loop.pass_time(10)
    assert page.shared["head"]["text"] == "idle"
    assert page.shared["head"]["since_s"] == pytest.approx(ended_at, abs=SLOW_S)

    [tell] = kernel.onlookers
    tell(BLOCK)
    tell(None)
    ended_at = loop.time()
    loop.pass_time(10)
    assert page.shared["head"]["since_s"] == pytest.approx(ended_at, abs=SLOW_S)

    page.say(op="visible", view="v", visible=False, query={})
    loop.pass_time(10)
    look(page, loop)
    assert page.shared["head"]["since_s"] == pytest.approx(ended_at, abs=SLOW_S)

    page.say(op="visible", view="v", visible=False, query={})
    loop.pass_time(10)
    tell(BLOCK)
    tell(None)
    loop.pass_time(10)
    look(page, loop)
    assert page.shared["head"]["since_s"] is None  # nobody knows since when


def test_a_silent_view_is_not_forgotten_while_a_cell_executes(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    kernel.cell = CellRef("x", 4)
    look(page, loop)
    assert page.shared["head"]["text"] == "In[4] runs"
    assert page.shared["head"]["since_s"] == 990.0
    loop.pass_time(5 * LEASE_S)
    kernel.looks.clear()
    loop.pass_time(1)
    assert kernel.looks

    kernel.cell = None
    loop.pass_time(2 * LEASE_S)
    kernel.looks.clear()
    loop.pass_time(1)

    assert kernel.looks == []


def test_two_views_cause_no_more_looks_than_one(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop, "one")
    look(page, loop, "two", group=False)
    loop.pass_time(1)
    kernel.looks.clear()
    loop.pass_time(10)

    assert len(kernel.looks) <= 10 / SLOW_S + 1


# -- what a view asks for --------------------------------------------------------------------------


def test_a_view_may_scroll_filter_and_open_a_group(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    names: list[str | None] = [f"n{number}" for number in range(300)]
    kernel.spawn_all([ticks() for _ in names], names, cell=3)
    kernel.spawn(ticks(), "alone", cell=5)
    look(page, loop)
    group, alone = page.rows()
    assert (group["count"], group["cell"], group["state"]) == (300, "In[3]", "waiting")
    assert alone["name"] == "alone"

    query: dict[str, Any] = {"open": [group["key"]], "offset": 250, "limit": 50}
    page.say(op="query", view="v", query=query)
    loop.pass_time(0.01)
    assert page.windows["v"]["total"] == 302
    assert [row["name"] for row in page.rows()] == names[249:299]
    assert {row["depth"] for row in page.rows()} == {1}

    page.say(op="query", view="v", query={"text": "N7", "group": False})
    loop.pass_time(0.01)

    assert [row["name"] for row in page.rows()] == ["n7", *(f"n{number}" for number in range(70, 80))]


def test_what_a_view_shows_stays_up_to_date(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop, states=["parked"])
    assert page.rows() == []

    look(page, loop, "w", text="feed")
    kernel.spawn(ticks(), "feed")
    kernel.spawn(ticks(), "other")
    loop.pass_time(1)

    assert page.rows() == []
    assert [row["name"] for row in page.rows("w")] == ["feed"]


def test_a_view_that_missed_something_gets_everything(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    kernel.spawn(ticks(), "feed")
    look(page, loop)
    page.windows.clear()
    page.shared = None
    kernel.spawn(ticks(), "new")
    loop.pass_time(1)
    assert page.gaps
    page.say(op="resync", view="v", query={"group": False})
    loop.pass_time(0.01)
    page.gaps.clear()

    assert [row["name"] for row in page.rows()] == ["feed", "new"]
    assert page.shared["head"]["tasks"] == 2


def test_a_reloaded_page_gets_the_newest_state(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop)
    kernel.spawn(ticks(), "new")
    page.state = {}
    page.reload()
    [row] = page.state["window"]["rows"].values()

    assert row["name"] == "new"
    loop.pass_time(1)
    assert [row["name"] for row in page.rows()] == ["new"]


def test_nothing_is_taken_from_a_view_that_writes_the_trait(widget: LoopWidget) -> None:
    widget.set_state({"snapshot": {"shared": "forged"}, "options": {"height": 1}})

    assert widget.get_state()["snapshot"]["shared"]["epoch"] == "epoch"
    assert widget.get_state()["options"]["height"] is None


@pytest.mark.parametrize("content", [{"op": "reboot", "id": "v:3"}, {"op": "cancel", "id": "v:3"}])
def test_a_bad_message_is_answered(
    widget: LoopWidget, page: FrontEnd, loop: FastLoop, content: dict[str, object]
) -> None:
    page.say(**content)
    loop.pass_time(0)
    [ack] = page.heard

    assert (ack["op"], ack["id"], ack["ok"]) == ("ack", "v:3", False)
    assert widget.fault is None


def test_no_message_is_long(widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop) -> None:
    kernel.spawn_all([ticks() for _ in range(200)], ["\N{PILE OF POO}" * 500] * 200, cell=3)
    look(page, loop, group=False, limit=120)
    page.say(op="query", view="v", query={"group": False, "limit": 120, "offset": 60})
    loop.pass_time(3)

    assert max(page.sizes) <= MOST_BYTES


def test_another_order_of_many_tasks_is_made_in_slices(
    widget: LoopWidget,
    kernel: Notebook,
    page: FrontEnd,
    loop: FastLoop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel.spawn_all([ticks() for _ in range(1_000)], [f"n{number:03}" for number in range(1_000)], cell=3)
    look(page, loop)
    put, slices = Selection.put, [0]

    def noted(selection: Selection, number: int) -> None:
        slices[-1] += 1
        put(selection, number)

    def is_over(_pace: SlicePace) -> bool:
        slices.append(0)
        return True

    monkeypatch.setattr(Selection, "put", noted)
    monkeypatch.setattr(SlicePace, "is_over", is_over)
    page.say(op="query", view="v", query={"group": False, "sort": "name", "desc": True})
    loop.pass_time(0.5)

    assert page.rows()[0]["name"] == "n999"
    assert page.windows["v"]["total"] == 1_000
    assert sum(slices) >= 1_000
    assert max(slices) <= 64


def tabs_sent(page: FrontEnd) -> list[str]:
    """Return the tab of each window that was sent since this, or `ops`, was last called."""
    heard, page.heard = page.heard, []
    return [message["query"]["tab"] for message in heard if message["op"] == "window"]


def test_a_view_gets_no_rows_of_a_tab_that_it_has_left(
    widget: LoopWidget,
    kernel: Notebook,
    page: FrontEnd,
    loop: FastLoop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel.spawn_all([nap(0) for _ in range(400)], [None] * 400)
    kernel.spawn(ticks(), "feed")
    loop.pass_time(1)
    look(page, loop)
    describe, described = kernel.tracker.record_ended, [0]

    def leave(ended: EndedTask) -> TaskRecord:
        described[0] += 1
        if described[0] == 100:  # of 400: the rows of Finished are being made
            page.ops()
            page.say(op="query", view="v", query={"tab": "live"})
        return describe(ended)

    monkeypatch.setattr(kernel.tracker, "record_ended", leave)
    monkeypatch.setattr(SlicePace, "is_over", lambda _pace: True)
    page.say(op="query", view="v", query={"tab": "finished"})
    loop.pass_time(0.5)

    assert described[0] == 400
    assert "finished" not in tabs_sent(page)
    assert [row["name"] for row in page.rows()] == ["feed"]
    page.say(op="query", view="v", query={"tab": "finished"})
    loop.pass_time(0.5)
    assert set(tabs_sent(page)) == {"finished"}
    assert page.windows["v"]["total"] == 400


def test_a_view_gets_no_rows_in_an_order_that_it_has_left(
    widget: LoopWidget,
    kernel: Notebook,
    page: FrontEnd,
    loop: FastLoop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel.spawn_all([ticks() for _ in range(1_000)], [f"n{number:03}" for number in range(1_000)], cell=3)
    look(page, loop)
    page.say(op="query", view="v", query={"tab": "finished"})
    loop.pass_time(0.5)
    put, puts = Selection.put, [0]

    def leave(selection: Selection, number: int) -> None:
        puts[0] += 1
        if puts[0] == 200:  # of 1,000: the new order is being made
            page.ops()
            page.say(op="query", view="v", query={"tab": "finished"})
        put(selection, number)

    monkeypatch.setattr(Selection, "put", leave)
    monkeypatch.setattr(SlicePace, "is_over", lambda _pace: True)
    page.say(op="query", view="v", query={"group": False, "sort": "name", "desc": True})
    loop.pass_time(0.5)

    assert puts[0] >= 1_000
    assert "live" not in tabs_sent(page)
    assert page.windows["v"]["query"]["tab"] == "finished"


# -- cancelling ------------------------------------------------------------------------------------


def test_a_cancel_is_acknowledged_and_the_row_goes_soon(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    kernel.spawn(ticks(), "feed")
    look(page, loop)
    number = page.rows()[0]["number"]
    page.ops()
    page.say(op="cancel", id="v:1", number=number)
    assert page.heard == []  # the handler has only posted it
    loop.pass_time(2 * SOON_S)

    first, *_ = page.heard
    assert first == {"op": "ack", "id": "v:1", "ok": True, "text": "cancelling feed", "final": False}
    assert page.last("ack") == {**first, "text": "cancelled feed", "final": True}
    assert page.rows() == []


def test_a_group_is_cancelled_as_the_view_shows_it(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    tasks = kernel.spawn_all([ticks() for _ in range(12)], [f"n{number}" for number in range(12)], cell=3)
    look(page, loop, text="n1")  # n1, n10, n11
    [group] = page.rows()
    page.say(op="cancel", id="v:1", view="v", group=group["key"])
    loop.pass_time(1)

    assert page.last("ack")["text"] == "cancelled 3 tasks of ticks"
    assert [task.get_name() for task in tasks if task.cancelled()] == ["n1", "n10", "n11"]


def test_leftovers_are_counted_and_cancelled(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    runs, context = kernel.tracker.runs, contextvars.copy_context()
    runs.begin(CellRef("id3", 3), context)
    old = kernel.spawn(ticks(), "old", cell=3)
    kernel.spawn(ticks(), "other", cell=4)
    runs.begin(CellRef("id3", 5), context)
    look(page, loop)
    assert page.shared["head"]["leftovers"] == 1
    page.say(op="cancel", id="v:1", leftovers=True)
    loop.pass_time(1)

    assert page.last("ack")["text"] == "cancelled old"
    assert old.cancelled()
    assert [row["name"] for row in page.rows()] == ["other"]


async def cleans_up(is_clean: asyncio.Event) -> None:
    try:
        await asyncio.sleep(1e9)
    finally:
        await is_clean.wait()


async def stubborn(may_end: asyncio.Event) -> None:
    while not may_end.is_set():
        try:
            await asyncio.sleep(1e9)
        except asyncio.CancelledError:
            continue


def test_a_task_that_cleans_up_is_cancelling(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    is_clean = asyncio.Event()
    kernel.spawn(cleans_up(is_clean), "careful", cell=3)
    look(page, loop)
    asked_at = loop.time()
    page.say(op="cancel", id="v:1", number=page.rows()[0]["number"])
    loop.pass_time(1)
    [row] = page.rows()

    assert row["state"] == "cancelling"
    assert row["cancelling_since_s"] == pytest.approx(asked_at, abs=0.1)
    assert row["note"].startswith("runs its finally at cleans_up")
    assert page.shared["head"]["counts"]["cancelling"] == 1
    assert not page.last("ack")["final"]
    is_clean.set()
    loop.pass_time(1)
    assert page.rows() == []
    assert page.last("ack")["text"] == "cancelled careful"


def test_a_task_that_swallows_its_cancellation_has_refused(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    may_end = asyncio.Event()
    kernel.spawn(stubborn(may_end), "mule")
    look(page, loop)
    for note in ("refused to cancel", "refused to cancel (twice)", "refused to cancel (3 times)"):
        page.say(op="cancel", id="v:1", number=page.rows()[0]["number"])
        loop.pass_time(1)
        [row] = page.rows()

        assert (row["state"], row["note"]) == ("waiting", note)
        ack = page.last("ack")
        assert (ack["ok"], ack["final"], ack["text"]) == (False, True, "mule refused to cancel")
    may_end.set()


def test_what_the_users_own_code_cancels_is_cancelling_too(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    is_clean = asyncio.Event()
    task = kernel.spawn(cleans_up(is_clean))
    look(page, loop)
    task.cancel()
    loop.pass_time(1)

    assert page.rows()[0]["state"] == "cancelling"
    is_clean.set()


def test_a_cancel_that_comes_too_late_says_so(widget: LoopWidget, page: FrontEnd, loop: FastLoop) -> None:
    page.say(op="cancel", id="v:1", number=99)
    loop.pass_time(0)
    [ack] = page.heard

    assert not ack["ok"]
    assert "no live task" in ack["text"]
    assert widget.fault is None


# -- while the loop is blocked -----------------------------------------------------------------------


def test_a_click_that_the_loop_does_not_take_up_is_acknowledged_by_its_own_thread(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    kernel.spawn(ticks(), "feed")
    look(page, loop)
    kernel.cell = CellRef("x", 7)
    page.ops()
    number = page.rows()[0]["number"]
    clicking = threading.Thread(target=page.say, kwargs={"op": "cancel", "id": "v:1", "number": number})
    clicking.start()
    clicking.join()  # the loop does not turn
    [noted] = page.heard
    assert (noted["ok"], noted["final"]) == (True, False)
    assert noted["text"] == "will be cancelled when In[7] yields"

    loop.pass_time(1)

    assert page.last("ack")["final"]
    assert page.rows() == []


BLOCK = Block(
    0, 0.0, 1.2, False, "cell", "In[7]", CellRef("x", 7), None, "sleep", "In[7], line 3", call="time.sleep(9)"
)


def test_a_block_is_told_from_the_thread_that_sees_it(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    [tell] = kernel.onlookers
    tell(BLOCK)
    assert page.ops() == []  # nobody looks

    look(page, loop)
    seeing = threading.Thread(target=tell, args=[BLOCK])
    seeing.start()
    seeing.join()
    block = page.shared["block"]
    assert block["text"] == "In[7], line 3: time.sleep"
    assert block["since_s"] == pytest.approx(loop.time() - 1.2, abs=0.1)

    loop.pass_time(3)
    assert page.shared["block"] is None  # the loop turns


def test_a_cell_that_asks_for_input_is_said_to_run_though_nobody_blocks(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop)
    [tell] = kernel.onlookers
    kernel.cell = CellRef("x", 7)  # the loop stands still, so no look has seen it
    tell(Standstill(2.0))
    block = page.shared["block"]
    assert (block["text"], block["is_standstill"]) == ("In[7] runs", True)
    assert block["since_s"] == 990.0

    kernel.cell = None
    tell(None)
    assert page.shared["block"] is None
    page.ops()
    tell(Standstill(2.0))  # a GUI's loop runs between cells
    assert page.ops() == []


def test_a_task_that_blocks_is_named_with_its_row(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    kernel.spawn_all([ticks(), ticks()], ["hog", "other"], cell=3)
    look(page, loop)
    number = min(kernel.tracker.listing.records)
    [tell] = kernel.onlookers
    tell(
        Block(
            0,
            0.0,
            1.2,
            False,
            "task",
            f"task {number} 'hog'",
            CellRef("x", 3),
            number,
            "sleep",
            "In[3], line 2",
            call="time.sleep(5)",
        )
    )
    block = page.shared["block"]

    assert block["task"] == number
    assert block["group"] == page.rows()[0]["key"]
    assert block["text"] == f"task {number} 'hog', In[3], line 2: time.sleep"
    assert block["remedy"] == "use `await asyncio.sleep(...)`"


# -- threads, errors, ends -----------------------------------------------------------------------


def test_a_message_from_another_thread_is_served_on_the_loop(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    sender = threading.Thread(target=page.say, kwargs={"op": "visible", "view": "v", "visible": True})
    sender.start()
    sender.join()
    assert page.heard == []
    loop.pass_time(0.01)

    assert page.ops()[0] == "shared"


def test_it_works_in_an_empty_context(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell: contextvars.ContextVar[str] = contextvars.ContextVar("cell", default="none")
    contexts: list[contextvars.Context] = []

    def findings() -> list[Finding]:
        contexts.append(contextvars.copy_context())
        return []

    monkeypatch.setattr(kernel, "findings", findings)
    token = cell.set("this one")
    look(page, loop)
    loop.pass_time(30)
    cell.reset(token)

    assert contexts
    assert {context.get(cell) for context in contexts} == {None}


def test_messages_go_to_the_thread_they_were_sent_to(widget: LoopWidget) -> None:
    assert widget.comm._reply_subshell_for({}, "the sender's") == "the sender's"


def test_an_error_of_its_own_is_logged_once_and_stops_it(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop, caplog: pytest.LogCaptureFixture
) -> None:
    look(page, loop)
    page.ops()
    kernel.error = ValueError("broken")
    with caplog.at_level(logging.ERROR, "loopnb"):
        loop.pass_time(10)
    page.ops()
    look(page, loop)

    assert widget.fault == "ValueError: broken"
    assert len(caplog.records) == 1
    assert [(message["op"], message["why"]) for message in page.heard] == [("end", "fault")]
    assert "ValueError: broken" in page.heard[0]["text"]
    assert tracked.on_cancelled == []


def test_an_error_while_it_is_displayed_does_not_reach_the_cell(
    widget: LoopWidget, kernel: Notebook, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.error = ValueError("broken")

    assert widget._repr_mimebundle_()
    assert widget.fault == "ValueError: broken"
    assert caplog.records


def test_a_closed_loop_is_a_fault_not_an_error_in_the_handler(
    kernel: Notebook, page: FrontEnd, caplog: pytest.LogCaptureFixture
) -> None:
    other = asyncio.new_event_loop()
    widget = LoopWidget(kernel, other)
    other.close()
    page.say(op="resync", view="v")

    assert widget.fault is not None
    assert "closed" in widget.fault
    assert len(caplog.records) == 1
    widget.close()


def test_it_is_displayed_with_a_table_that_needs_no_kernel(widget: LoopWidget, kernel: Notebook) -> None:
    kernel.spawn(ticks(), "<b>new</b>")
    bundle = widget._repr_mimebundle_()
    assert bundle is not None
    data, _ = bundle

    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    assert "&lt;b&gt;new&lt;/b&gt;" in data["text/html"]
    assert "<b>new</b>" in data["text/plain"]


def test_with_ipywidgets_7_it_is_displayed_with_the_table_too(
    widget: LoopWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []

    def display_alone(widget: Widget) -> None:
        shown.append(widget)

    monkeypatch.setattr(Widget, "_ipython_display_", display_alone, raising=False)
    data, _metadata = DisplayFormatter().format(widget)

    assert shown == []
    assert {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"} <= data.keys()


def test_an_ended_widget_says_why_and_keeps_nothing_of_the_session(
    kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    widget = LoopWidget(kernel, loop, clock=loop.time, cpu_clock=loop.time)
    look(page, loop)
    page.ops()
    widget.end("unloaded")
    widget.end("shut down")
    kernel.looks.clear()
    loop.pass_time(60)
    assert [(message["why"], message["text"]) for message in page.heard] == [
        ("unloaded", "loopnb was unloaded")
    ]
    assert kernel.looks == []
    assert kernel.onlookers == []

    page.ops()
    page.say(op="visible", view="v", visible=True)  # a page that was loaded again
    assert page.ops() == ["end"]
    page.reload()
    assert page.state["end"]["why"] == "unloaded"
    reference = weakref.ref(kernel.tracker)
    assert reference() not in gc.get_referents(widget, *gc.get_referents(widget))
    widget.close()


def test_a_widget_that_is_ended_during_a_look_keeps_nothing_of_the_session(
    kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    widget = LoopWidget(kernel, loop, clock=loop.time, cpu_clock=loop.time)
    kernel.spawn_all([nap(100) for _ in range(3_000)], [None] * 3_000)
    page.say(op="visible", view="v", visible=True)
    passes = 0
    while widget._steps is None:
        passes += 1
        assert passes < 10_000
        loop.run_until_complete(asyncio.sleep(0))  # one pass
    look_under_way = weakref.ref(widget._steps)
    widget.end("unloaded")
    gc.collect()

    assert look_under_way() is None
    widget.close()


def test_closing_stops_everything_and_may_be_repeated(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop)
    page.say(op="resync", view="v")
    widget.close()
    widget.close()
    page.ops()
    kernel.looks.clear()
    loop.pass_time(60)

    assert kernel.looks == []
    assert page.ops() == []
    assert not [comm for comm in page.comms if comm.is_open]


def test_no_task_is_kept_alive(widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop) -> None:
    async def fails() -> None:
        await asyncio.sleep(1)
        raise ValueError

    tasks = [kernel.spawn(nap(1)), kernel.spawn(fails())]
    look(page, loop)
    look(page, loop, "w", tab="finished")
    loop.pass_time(3)
    references = [weakref.ref(task) for task in tasks]
    tasks[1].exception()
    kernel.tasks.clear()
    tasks.clear()
    gc.collect()

    assert [reference() for reference in references] == [None, None]


# -- what has ended ----------------------------------------------------------------------------------


def test_failed_tasks_stay_with_their_error_and_come_first(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    async def fails() -> None:
        await asyncio.sleep(2)
        raise ValueError("no such page")

    look(page, loop, tab="finished")
    failing = kernel.spawn(fails(), "bad", cell=3)
    kernel.spawn(nap(3), "good")
    loop.pass_time(5)
    bad, good = page.rows()

    assert (bad["name"], bad["state"], bad["error"]) == ("bad", "raised", "ValueError: no such page")
    assert bad["duration_s"] == pytest.approx(2, abs=SLOW_S)
    assert (good["name"], good["state"], good["error"]) == ("good", "returned", "")
    counts = page.shared["head"]["counts"]
    assert (counts["finished"], counts["failed"]) == (1, 1)
    failing.exception()


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("age", ["odd", "bad", "late", "soon"]),
        ("waited", ["late", "odd", "bad", "soon"]),
        ("waits_for", ["bad", "odd", "soon", "late"]),
        ("name", ["bad", "late", "odd", "soon"]),
        ("cell", ["late", "bad", "soon", "odd"]),
    ],
)
def test_ended_tasks_are_sorted_by_each_column(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop, sort: str, names: list[str]
) -> None:
    async def fails(seconds: float, error: Exception) -> None:
        await asyncio.sleep(seconds)
        raise error

    look(page, loop, tab="finished")
    failing = [
        kernel.spawn(fails(2, ValueError("a")), "bad", 4),
        kernel.spawn(fails(3, ValueError("b")), "odd"),
    ]
    kernel.spawn(nap(1), "soon", cell=4)
    kernel.spawn(nap(5), "late", cell=3)
    loop.pass_time(8)
    page.say(op="query", view="v", query={"tab": "finished", "sort": sort})
    loop.pass_time(0.1)
    assert [row["name"] for row in page.rows()] == names

    page.say(op="query", view="v", query={"tab": "finished", "sort": sort, "desc": True})
    loop.pass_time(0.1)
    assert [row["name"] for row in page.rows()] == names[::-1]
    assert all(task.exception() for task in failing)


def test_ended_tasks_are_described_in_slices_and_only_if_there_are_new_ones(
    widget: LoopWidget,
    kernel: Notebook,
    page: FrontEnd,
    loop: FastLoop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel.spawn_all([nap(0) for _ in range(400)], [None] * 400)
    loop.pass_time(1)
    describe, slices = kernel.tracker.record_ended, [0]

    def noted(ended: EndedTask) -> TaskRecord:
        slices[-1] += 1
        return describe(ended)

    def is_over(_pace: SlicePace) -> bool:
        slices.append(0)
        return True

    monkeypatch.setattr(kernel.tracker, "record_ended", noted)
    monkeypatch.setattr(SlicePace, "is_over", is_over)
    look(page, loop)
    page.say(op="query", view="v", query={"tab": "finished"})
    loop.pass_time(0.5)
    assert page.windows["v"]["total"] == sum(slices) == 400
    assert max(slices) <= 64

    def selects(*_given: object) -> list[TaskRecord]:
        raise AssertionError("the rows are made anew")

    monkeypatch.setattr(Ended, "select", selects)
    loop.pass_time(5)
    assert widget.fault is None


def test_a_task_that_the_history_knew_first_gets_its_instant(kernel: Notebook) -> None:
    ended = Ended(kernel.tracker)
    before = ended.version

    ended.note(1, 2.0)

    assert ended.version != before  # views that show it without its instant get it again


def test_a_task_stays_however_short_it_lived(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    kernel.cell = CellRef("x", 4)
    look(page, loop, tab="finished")
    loop.pass_time(1)
    tasks = [kernel.spawn(fails_at_length(), "boom"), kernel.spawn(nap(0), "quick")]
    kernel.cell = None
    loop.pass_time(3)

    assert [(row["name"], row["state"]) for row in page.rows()] == [("boom", "raised"), ("quick", "returned")]
    assert page.shared["head"]["counts"]["failed"] == 1
    assert tasks[0].exception()


def test_what_ended_before_anybody_looked_is_shown_without_a_duration(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    kernel.spawn(nap(1), "early")
    loop.pass_time(2)
    look(page, loop, tab="finished")
    [row] = [row for row in page.rows() if row["name"] == "early"]

    assert (row["name"], row["state"]) == ("early", "returned")
    assert row["duration_s"] is None


async def fails_at_once() -> None:
    raise ValueError


def test_a_task_that_no_look_has_found_alive_has_its_duration_nearly(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop, tab="finished")
    task = kernel.spawn(fails_at_once(), "quick")
    spawned_at = loop.time()
    loop.pass_time(3)
    [row] = [row for row in page.rows() if row["name"] == "quick"]

    assert row["ended_s"] == pytest.approx(spawned_at, abs=SLOW_S)
    assert row["duration_s"] == pytest.approx(0.0, abs=SLOW_S)
    assert task.exception()


def test_rows_have_the_users_line(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    many = [ticks() for _ in range(20)]  # more than are looked at closely in one look
    kernel.spawn_all([nap(9), *many], ["nap", *map(str, range(20))], cell=3)
    look(page, loop)
    lines = {row["coro"]: row["line"] for row in page.rows()}
    look(page, loop, group=False)
    each = {row["line"] for row in page.rows() if row["coro"] == "ticks"}

    assert lines == {
        "nap": f"In[3]:{nap.__code__.co_firstlineno + 1}: await asyncio.sleep(seconds)",
        "ticks": f"In[3]:{ticks.__code__.co_firstlineno + 1}: await asyncio.sleep(1e9)",
    }
    assert each == {lines["ticks"]}


# -- details, trees, timeline ------------------------------------------------------------------------


async def outer() -> None:
    await asyncio.create_task(ticks(), name="inner")


def end_all(loop: FastLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.pass_time(0)


def test_a_row_that_is_opened_tells_all_that_is_known(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    kernel.spawn(outer(), "outer", cell=3)
    look(page, loop, group=False)
    first, second = (row["number"] for row in page.rows())
    page.say(op="detail", view="v", number=first)
    loop.pass_time(1)
    above = page.last("detail")["detail"]
    page.say(op="detail", view="v", number=second)
    loop.pass_time(1)
    below = page.last("detail")["detail"]

    assert above["row"]["name"] == "outer"
    assert [line["text"] for line in above["chain"]] == [
        "outer()",
        "waits for task inner",
        f"task {second} 'inner'",
    ]
    assert above["chain"][-1]["task"] == second
    assert below["awaited_by"] == [{"number": first, "label": f"task {first} 'outer'"}]
    assert below["parents"][0] == f"task {first} 'outer' (waiting) of In[3]"
    assert below["chain"][-1]["due_s"] > 1e8
    end_all(loop)


def test_details_are_sent_again_only_if_something_has_changed(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    kernel.spawn(ticks())
    look(page, loop)
    page.say(op="detail", view="v", number=page.rows()[0]["number"])
    loop.pass_time(5)
    assert page.ops().count("detail") == 1

    page.say(op="detail", view="v", number=None)
    loop.pass_time(5)

    assert "detail" not in page.ops()


def test_the_details_have_the_blocks_that_the_task_has_made(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    kernel.spawn_all([ticks(), ticks()], ["hog", "other"], cell=3)
    look(page, loop, group=False)
    numbers = {row["name"]: row["number"] for row in page.rows()}
    facts: Any = {"by": "task", "name": "task 'hog'", "call": "time.sleep(5)", "place": "In[3], line 2"}
    kernel.all_blocks = [BLOCK, dataclasses.replace(BLOCK, **facts, task=numbers["hog"])]
    said = []
    for name in ("hog", "other"):
        page.say(op="detail", view="v", number=numbers[name])
        loop.pass_time(1)
        said.append(page.last("detail")["detail"]["blocks"])
    hogs, others = said

    assert len(hogs) == 1
    assert "1.2 s" in hogs[0]
    assert "In[3], line 2" in hogs[0]
    assert others == []


async def fails_at_length() -> None:
    raise ValueError("\N{PILE OF POO}" * 9_000)


async def returns_at_length() -> str:
    return "\N{PILE OF POO}" * 9_000


async def fails_for_a_long_reason() -> None:
    raise ValueError("y" * 20_000 + "the end")


def test_a_long_error_leaves_its_frames_in_sight(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    task = kernel.spawn(fails_for_a_long_reason())
    loop.pass_time(1)
    look(page, loop, tab="finished")
    page.say(op="detail", view="v", number=page.rows()[0]["number"])
    loop.pass_time(1)
    traceback = page.last("detail")["detail"]["traceback"]

    assert "in fails_for_a_long_reason" in traceback
    assert traceback.endswith("the end\n")
    assert max(page.sizes) <= MOST_BYTES
    assert task.exception()


def test_a_traceback_names_cells_and_not_their_temporary_files() -> None:
    cell, module = "/tmp/ipykernel_1/123.py", "/home/me/app.py"
    names: dict[str, Any] = {}
    exec(compile("def inner():\n    raise ValueError('no')", module, "exec"), names)
    exec(compile("\ndef outer():\n    inner()", cell, "exec"), names)
    places = {cell: "In[4], line {}", module: "app.py:{}"}
    with pytest.raises(ValueError, match="no") as caught:
        names["outer"]()
    text = traceback_text(caught.value, lambda filename, line: places.get(filename, "here:{}").format(line))

    assert "  In[4], line 3, in outer" in text
    assert f'  File "{module}", line 2, in inner' in text
    assert cell not in text
    assert text.endswith("ValueError: no\n")


def test_the_details_of_an_ended_task_have_its_outcome(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    failing, good = kernel.spawn(fails_at_length()), kernel.spawn(returns_at_length())
    loop.pass_time(1)
    look(page, loop, tab="finished")
    bad_row, good_row = page.rows()
    page.say(op="detail", view="v", number=bad_row["number"])
    loop.pass_time(1)
    bad = page.last("detail")["detail"]
    page.say(op="detail", view="v", number=good_row["number"])
    loop.pass_time(1)
    result = page.last("detail")["detail"]["result"]

    assert bad["row"]["state"] == "raised"
    assert bad["row"]["error"].startswith("ValueError")
    assert bad["traceback"]
    assert result.startswith("'\N{PILE OF POO}")
    assert max(page.sizes) <= MOST_BYTES
    assert failing.exception()
    assert good.done()


def cancelled_by(page: FrontEnd, loop: FastLoop, number: int) -> str:
    """Return who has cancelled the task, as its details say."""
    page.say(op="detail", view="v", number=number)
    loop.pass_time(1)
    found: str = page.last("detail")["detail"]["cancelled_by"]
    return found


def test_the_details_say_which_line_has_cancelled_the_task(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    async def cancel() -> None:
        task.cancel()

    task = kernel.spawn(ticks(), cell=3)
    look(page, loop)
    [row] = page.rows()
    kernel.spawn(cancel(), cell=4)
    loop.pass_time(1)
    who = cancelled_by(page, loop, row["number"])

    assert task.cancelled()
    assert who.startswith("In[4]:")
    assert who.endswith(": task.cancel()")


async def times_out() -> None:
    async with asyncio.timeout(1):
        await asyncio.sleep(1e9)


async def fails_soon() -> None:
    await asyncio.sleep(1)
    raise ValueError


async def has_children() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(ticks())
        group.create_task(fails_soon())


@pytest.mark.parametrize(
    ("job", "name", "who"),
    [
        (times_out, "times_out", "a timeout"),
        (has_children, "ticks", "its task group, since another task of the group has failed"),
    ],
)
def test_the_details_say_what_has_cancelled_the_task(
    widget: LoopWidget,
    kernel: Notebook,
    page: FrontEnd,
    loop: FastLoop,
    job: Callable[[], Coroutine[Any, Any, None]],
    name: str,
    who: str,
) -> None:
    task = kernel.spawn(job())
    look(page, loop, group=False)
    [row] = [row for row in page.rows() if row["coro"] == name]
    loop.pass_time(2)

    assert isinstance(task.exception(), (TimeoutError, ExceptionGroup))
    assert cancelled_by(page, loop, row["number"]) == who


def test_the_details_say_who_else_has_cancelled_the_task(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    task = kernel.spawn(ticks(), cell=3)
    look(page, loop)
    [row] = page.rows()
    page.say(op="cancel", id="c1", number=row["number"])
    page.say(op="cancel", id="c2", number=row["number"])
    loop.pass_time(1)

    assert task.cancelled()
    assert cancelled_by(page, loop, row["number"]).startswith("a click in the widget")


def test_nobody_is_told_of_cancellations_while_nobody_looks(
    widget: LoopWidget, page: FrontEnd, loop: FastLoop
) -> None:
    assert tracked.on_cancelled == []
    look(page, loop)
    assert len(tracked.on_cancelled) == 1
    page.say(op="visible", view="v", visible=False)
    loop.pass_time(3)

    assert tracked.on_cancelled == []


def test_a_widget_that_ends_is_told_of_no_cancellation(
    kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    widget = LoopWidget(kernel, loop)
    look(page, loop)
    widget.end("unloaded")
    widget.close()
    del widget
    gc.collect()

    assert tracked.on_cancelled == []


@pytest.mark.parametrize("stop", ["hide", "end", "close"])
def test_what_tasks_print_is_noted_only_while_a_view_is_visible(
    kernel: Notebook, page: FrontEnd, loop: FastLoop, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    stream = Stream()
    monkeypatch.setattr("loopnb.widgets.monitor.kernel_streams", lambda: [stream])
    widget = LoopWidget(kernel, loop, clock=loop.time, cpu_clock=loop.time)
    assert stream.echo is None

    async def talk() -> None:
        stream.write("hello\n")
        await asyncio.sleep(1e9)

    look(page, loop)
    task = kernel.spawn(talk())
    assert tracked.has_origin(task)
    page.say(op="detail", view="v", number=task.number)
    loop.pass_time(0.01)
    assert page.last("detail")["detail"]["output"] == ["hello"]
    if stop == "hide":
        page.say(op="visible", view="v", visible=False)
        loop.pass_time(SLOW_S + 0.01)
    elif stop == "end":
        widget.end("unloaded")
    else:
        widget.close()

    assert stream.echo is None
    widget.close()


def test_a_task_that_is_not_known_has_no_details(widget: LoopWidget, page: FrontEnd, loop: FastLoop) -> None:
    look(page, loop)
    page.say(op="detail", view="v", number=12_345)
    loop.pass_time(1)

    assert page.last("detail")["detail"] is None


@pytest.mark.parametrize("kind", ["awaits", "spawned"])
def test_a_tree_shows_who_awaits_and_who_spawned_whom(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop, kind: str
) -> None:
    kernel.spawn(outer(), "outer")
    look(page, loop)
    page.say(op="tree", view="v", kind=kind)
    loop.pass_time(1)
    lines = page.last("tree")["lines"]
    [first] = [line for line in lines if "'outer'" in line["text"]]
    [second] = [line for line in lines if "'inner'" in line["text"]]

    assert second["depth"] == first["depth"] + 1
    assert not first["is_cycle"]
    end_all(loop)


def test_a_tree_marks_circles(widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop) -> None:
    tasks: list[asyncio.Task[None]] = []
    stop = asyncio.Event()

    async def waits(index: int) -> None:
        await asyncio.sleep(1)
        await asyncio.wait([tasks[index], asyncio.create_task(stop.wait())], return_when="FIRST_COMPLETED")

    tasks += kernel.spawn_all([waits(1), waits(0)], ["a", "b"])
    loop.pass_time(2)
    look(page, loop)
    page.say(op="tree", view="v", kind="awaits")
    loop.pass_time(1)

    assert any(line["is_cycle"] for line in page.last("tree")["lines"])
    stop.set()
    loop.pass_time(1)


@pytest.mark.parametrize("method", METHODS)
def test_every_view_shows_tasks_of_a_class_with_a_method_that_raises(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop, method: str
) -> None:
    stop = asyncio.Event()

    async def waits() -> None:
        await stop.wait()

    with awkward(method) as kind:
        task = kind(waits(), loop=loop, name="odd")
        look(page, loop)
        number = kernel.tracker.number_of(task)
        page.say(op="detail", view="v", number=number)
        page.say(op="timeline", view="v", shown=True)
        trees = {}
        for kind_of_tree in ("awaits", "spawned"):
            page.say(op="tree", view="v", kind=kind_of_tree)
            loop.pass_time(2)
            trees[kind_of_tree] = [line["text"] for line in page.last("tree")["lines"]]
        rows, detail = page.rows(), page.last("detail")["detail"]
        page.say(op="cancel", view="v", id="v:1", number=number)
        loop.pass_time(2)
        left = page.rows()
        fault = widget.fault

    assert [row["name"] for row in rows] == ["odd"]
    assert any("Event.wait of stop" in line["text"] for line in detail["chain"])
    assert all(any("'odd'" in line for line in lines) for lines in trees.values())
    assert left == []
    assert fault is None


def test_the_timeline_has_a_bar_for_each_task_in_the_lane_of_its_cell(
    widget: LoopWidget, kernel: Notebook, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop)
    page.say(op="timeline", view="v", shown=True)
    spawned_at = loop.time()
    kernel.spawn(nap(3), "short", cell=3)
    kernel.spawn(ticks(), "long", cell=4)
    loop.pass_time(6)
    timeline = page.timelines["v"]
    bars = {bar["name"]: bar for bar in timeline["bars"].values()}
    assert [lane["lane"] for lane in timeline["lanes"]] == ["In[4]", "In[3]"]
    assert bars["short"]["from_s"] == pytest.approx(spawned_at, abs=0.1)
    assert bars["short"]["to_s"] == pytest.approx(spawned_at + 3, abs=SLOW_S)
    assert (bars["short"]["state"], bars["long"]["to_s"]) == ("returned", None)

    page.say(op="trace", view="v", id="v:7")
    loop.pass_time(1)
    trace = json.loads("".join(message["text"] for message in page.heard if message["op"] == "trace"))
    begins = {event["name"]: event for event in trace["traceEvents"] if event["ph"] == "b"}
    assert begins.keys() == {"short", "long"}


def test_the_file_of_a_timeline_of_many_tasks_is_made_and_sent_in_slices(
    widget: LoopWidget,
    kernel: Notebook,
    page: FrontEnd,
    loop: FastLoop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel.spawn_all([ticks() for _ in range(1_000)], [None] * 1_000, cell=3)
    look(page, loop)
    write, slices = timeline._json, [0]

    def noted(event: dict[str, Any]) -> str:
        slices[-1] += 1
        return write(event)

    def is_over(_pace: SlicePace) -> bool:
        slices.append(0)
        return True

    monkeypatch.setattr(timeline, "_json", noted)
    monkeypatch.setattr(SlicePace, "is_over", is_over)
    page.say(op="trace", view="v", id="v:7")
    loop.pass_time(1)
    pieces = [message for message in page.heard if message["op"] == "trace"]

    assert [message["part"] for message in pieces] == list(range(pieces[0]["parts"]))
    events = json.loads("".join(message["text"] for message in pieces))["traceEvents"]
    assert len([event for event in events if event["ph"] == "b"]) == 1_000
    assert sum(slices) == len(events)
    assert max(slices) <= 300
    assert max(page.sizes) <= MOST_BYTES


def test_a_file_that_is_asked_for_again_while_it_is_sent_is_sent_whole_twice(
    widget: LoopWidget,
    kernel: Notebook,
    page: FrontEnd,
    loop: FastLoop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel.spawn_all([ticks() for _ in range(1_000)], [None] * 1_000, cell=3)
    look(page, loop)
    write, written = timeline._json, [0]

    def ask_again(event: dict[str, Any]) -> str:
        written[0] += 1
        if written[0] == 500:  # of 1,000 and some: the first file is being made
            page.say(op="trace", view="v", id="v:8")
        return write(event)

    monkeypatch.setattr(timeline, "_json", ask_again)
    monkeypatch.setattr(SlicePace, "is_over", lambda _pace: True)
    page.ops()
    page.say(op="trace", view="v", id="v:7")
    loop.pass_time(2 * BEAT_S)

    for request_id in ("v:7", "v:8"):
        pieces = [message for message in page.heard if message.get("id") == request_id]
        assert [message["part"] for message in pieces] == list(range(pieces[0]["parts"]))
        events = json.loads("".join(message["text"] for message in pieces))["traceEvents"]
        assert len([event for event in events if event["ph"] == "b"]) == 1_000
