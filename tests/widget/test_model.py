"""The widget's model on a real loop; only the page at the other end of the comm is a stand-in."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import weakref
from typing import TYPE_CHECKING

import pytest

from loopnb.errors import TaskNotFoundError
from loopnb.records import CellRef, LoopState, Snapshot, TaskRecord
from loopnb.widget.model import BEAT_S, FAST_S, LEASE_S, SLOW_S, SOON_S, LoopWidget
from tests.loops import FastLoop

from .front_end import FrontEnd

if TYPE_CHECKING:
    from collections.abc import Iterator


class Kernel:
    """What a session gives the widget: the tasks that are live, and a way to cancel one."""

    def __init__(self, loop: FastLoop) -> None:
        self.loop = loop
        self.names = {1: "feed"}
        self.cell: CellRef | None = None
        self.samples: list[float] = []
        self.cost_s = 0.0
        self.error: Exception | None = None
        self.threads: set[int] = set()
        self.contexts: list[contextvars.Context] = []

    def snapshot(self) -> Snapshot:
        if self.error:
            raise self.error
        self.samples.append(self.loop.time())
        self.threads.add(threading.get_ident())
        self.contexts.append(contextvars.copy_context())
        self.loop.now += self.cost_s
        state = LoopState("Loop", "running" if self.cell else "idle", "", 1, "handoff", 0, self.cell)
        tasks = (
            TaskRecord(number, name, "tick", "waiting", 0.0, None, "", "", "")
            for number, name in self.names.items()
        )
        return Snapshot("epoch", 0.0, self.loop.time(), state, tuple(tasks))

    def cancel(self, number: int) -> str:
        if number not in self.names:
            raise TaskNotFoundError(str(number), list(self.names.values()))
        self.threads.add(threading.get_ident())
        return f"Cancelled task {self.names.pop(number)!r}."


@pytest.fixture
def loop() -> Iterator[FastLoop]:
    """A loop that waits for nothing, not running yet."""
    loop = FastLoop()
    yield loop
    loop.close()


@pytest.fixture
def kernel(loop: FastLoop) -> Kernel:
    """A session's part."""
    return Kernel(loop)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> FrontEnd:
    """The front end of every comm that is opened."""
    page = FrontEnd()
    monkeypatch.setattr("comm.create_comm", page.create_comm)
    return page


@pytest.fixture
def widget(kernel: Kernel, page: FrontEnd, loop: FastLoop) -> Iterator[LoopWidget]:
    """The widget, displayed nowhere yet."""
    widget = LoopWidget(kernel, loop, clock=loop.time)
    page.state = widget.get_state()["snapshot"]
    yield widget
    widget.close()


def look(page: FrontEnd, loop: FastLoop, view: str = "v") -> None:
    page.say(op="visible", view=view, visible=True)
    loop.pass_time(0)


def test_a_view_can_draw_as_soon_as_it_is_made(widget: LoopWidget, page: FrontEnd) -> None:
    opened = page.comms[-1].opened_with

    assert opened["snapshot"]["tasks"]["1"]["name"] == "feed"
    assert opened["snapshot"] == widget.state


def test_nothing_is_sampled_while_nobody_looks(
    widget: LoopWidget, kernel: Kernel, loop: FastLoop, page: FrontEnd
) -> None:
    kernel.samples.clear()
    loop.pass_time(60)

    assert kernel.samples == []
    assert page.ops() == []


def test_a_visible_view_is_answered_at_once(widget: LoopWidget, page: FrontEnd, loop: FastLoop) -> None:
    look(page, loop)

    assert page.ops() == ["beat"]


def test_a_quiet_loop_is_only_heard_to_beat(
    widget: LoopWidget, kernel: Kernel, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop)
    loop.pass_time(1)
    kernel.samples.clear()
    page.ops()
    loop.pass_time(4 * BEAT_S)

    assert page.ops() == ["beat"] * 4
    assert len(kernel.samples) == 4 * BEAT_S / SLOW_S


def test_changes_travel_as_deltas_and_add_up(
    widget: LoopWidget, kernel: Kernel, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop)
    page.ops()
    for number in range(2, 6):
        kernel.names[number] = f"task-{number}"
        loop.pass_time(SLOW_S)
    del kernel.names[1]
    loop.pass_time(SLOW_S)

    assert page.ops() == ["delta"] * 5
    assert page.state["seq"] == widget.state["seq"] == 5
    assert [row["name"] for row in page.state["tasks"].values()] == list(kernel.names.values())


def test_it_looks_more_often_while_something_changes(
    widget: LoopWidget, kernel: Kernel, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop)
    loop.pass_time(1)
    kernel.names[2] = "new"
    loop.pass_time(SLOW_S)
    changed, following = kernel.samples[-2:]

    assert following - changed == pytest.approx(FAST_S)


def test_costly_samples_are_taken_less_often(
    widget: LoopWidget, kernel: Kernel, page: FrontEnd, loop: FastLoop
) -> None:
    kernel.cost_s = 0.1
    look(page, loop)
    kernel.samples.clear()
    loop.pass_time(10)

    assert len(kernel.samples) * kernel.cost_s <= 0.06 * 10


def test_a_hidden_view_stops_the_sampling(
    widget: LoopWidget, kernel: Kernel, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop, "one")
    look(page, loop, "two")
    page.say(op="visible", view="one", visible=False)
    loop.pass_time(1)
    assert len(kernel.samples) > 3

    page.say(op="visible", view="two", visible=False)
    loop.pass_time(1)
    kernel.samples.clear()
    loop.pass_time(60)

    assert kernel.samples == []


def test_a_view_that_vanished_is_forgotten(
    widget: LoopWidget, kernel: Kernel, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop)
    loop.pass_time(LEASE_S + 1)
    kernel.samples.clear()
    loop.pass_time(60)

    assert kernel.samples == []


def test_a_silent_view_is_not_forgotten_while_a_cell_executes(
    widget: LoopWidget, kernel: Kernel, page: FrontEnd, loop: FastLoop
) -> None:
    kernel.cell = CellRef("x", 4)
    look(page, loop)
    loop.pass_time(5 * LEASE_S)
    kernel.samples.clear()
    loop.pass_time(1)
    assert kernel.samples

    kernel.cell = None
    loop.pass_time(2 * LEASE_S)
    kernel.samples.clear()
    loop.pass_time(1)

    assert kernel.samples == []


def test_two_views_cause_no_more_samples_than_one(
    widget: LoopWidget, kernel: Kernel, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop, "one")
    look(page, loop, "two")
    loop.pass_time(1)
    kernel.samples.clear()
    loop.pass_time(10)

    assert len(kernel.samples) <= 10 / SLOW_S + 1


def test_a_cancel_is_acknowledged_with_its_outcome(
    widget: LoopWidget, kernel: Kernel, page: FrontEnd, loop: FastLoop
) -> None:
    page.say(op="cancel", id="v:1", number=1)
    assert page.heard == []  # the handler has only posted it
    loop.pass_time(0)

    assert page.heard == [{"op": "ack", "id": "v:1", "ok": True, "text": "Cancelled task 'feed'."}]


def test_after_a_cancel_it_looks_again_soon(
    widget: LoopWidget, kernel: Kernel, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop)
    loop.pass_time(1)
    page.ops()
    page.say(op="cancel", id="v:1", number=1)
    loop.pass_time(2 * SOON_S)

    assert page.ops() == ["ack", "delta"]
    assert page.state["tasks"] == {}


def test_a_cancel_that_comes_too_late_says_so(widget: LoopWidget, page: FrontEnd, loop: FastLoop) -> None:
    page.say(op="cancel", id="v:1", number=99)
    loop.pass_time(0)
    [ack] = page.heard

    assert not ack["ok"]
    assert "No live task" in ack["text"]
    assert widget.fault is None


@pytest.mark.parametrize("content", [{"op": "reboot", "id": "v:3"}, {"op": "cancel", "id": "v:3"}])
def test_a_bad_message_is_answered(
    widget: LoopWidget, page: FrontEnd, loop: FastLoop, content: dict[str, object]
) -> None:
    page.say(**content)
    loop.pass_time(0)
    [ack] = page.heard

    assert (ack["op"], ack["id"], ack["ok"]) == ("ack", "v:3", False)
    assert widget.fault is None


def test_a_view_that_missed_something_gets_everything(
    widget: LoopWidget, kernel: Kernel, page: FrontEnd, loop: FastLoop
) -> None:
    kernel.names[2] = "new"
    page.say(op="resync")
    loop.pass_time(0)

    assert page.heard[-1] == {"op": "snapshot", "state": widget.state}
    assert set(widget.state["tasks"]) == {"1", "2"}


def test_a_reloaded_page_gets_the_newest_state(
    widget: LoopWidget, kernel: Kernel, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop)
    kernel.names = {2: "new"}
    loop.pass_time(1)
    page.state = {}
    page.reload()

    assert page.state == widget.state
    assert list(page.state["tasks"]) == ["2"]


def test_nothing_is_taken_from_a_view_that_writes_the_trait(widget: LoopWidget, kernel: Kernel) -> None:
    widget.set_state({"snapshot": {"epoch": "forged"}})

    assert widget.get_state()["snapshot"]["epoch"] == "epoch"


def test_a_message_from_another_thread_is_served_on_the_loop(
    widget: LoopWidget, kernel: Kernel, page: FrontEnd, loop: FastLoop
) -> None:
    sender = threading.Thread(target=page.say, kwargs={"op": "cancel", "id": "v:1", "number": 1})
    sender.start()
    sender.join()
    loop.pass_time(0)

    assert page.heard[0]["ok"]
    assert kernel.threads == {threading.get_ident()}


def test_it_works_in_an_empty_context(
    widget: LoopWidget, kernel: Kernel, page: FrontEnd, loop: FastLoop
) -> None:
    cell: contextvars.ContextVar[str] = contextvars.ContextVar("cell", default="none")
    token = cell.set("this one")
    kernel.contexts.clear()
    look(page, loop)
    loop.pass_time(3)
    cell.reset(token)

    assert {context.get(cell) for context in kernel.contexts} == {None}


def test_messages_go_to_the_thread_they_were_sent_to(widget: LoopWidget) -> None:
    assert widget.comm._reply_subshell_for({}, "the sender's") == "the sender's"


def test_an_error_of_its_own_is_logged_once_and_stops_it(
    widget: LoopWidget, kernel: Kernel, page: FrontEnd, loop: FastLoop, caplog: pytest.LogCaptureFixture
) -> None:
    look(page, loop)
    page.ops()
    kernel.error = ValueError("broken")
    with caplog.at_level(logging.ERROR, "loopnb"):
        loop.pass_time(10)
        look(page, loop)

    assert widget.fault == "ValueError: broken"
    assert len(caplog.records) == 1
    assert page.heard == [{"op": "fault", "text": widget.fault}] * 2  # when it broke, and when asked


def test_an_error_while_it_is_displayed_does_not_reach_the_cell(
    widget: LoopWidget, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.error = ValueError("broken")

    assert widget._repr_mimebundle_()
    assert widget.fault == "ValueError: broken"
    assert caplog.records


def test_a_closed_loop_is_a_fault_not_an_error_in_the_handler(
    widget: LoopWidget, page: FrontEnd, loop: FastLoop, caplog: pytest.LogCaptureFixture
) -> None:
    loop.close()
    page.say(op="resync")

    assert widget.fault is not None
    assert "closed" in widget.fault
    assert len(caplog.records) == 1


def test_it_is_displayed_with_a_table_that_needs_no_kernel(widget: LoopWidget, kernel: Kernel) -> None:
    kernel.names[2] = "<b>new</b>"
    bundle = widget._repr_mimebundle_()
    assert bundle is not None
    data, _ = bundle

    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    assert "&lt;b&gt;new&lt;/b&gt;" in data["text/html"]
    assert "<b>new</b>" in data["text/plain"]


def test_closing_stops_everything_and_may_be_repeated(
    widget: LoopWidget, kernel: Kernel, page: FrontEnd, loop: FastLoop
) -> None:
    look(page, loop)
    page.say(op="resync")
    widget.close()
    widget.close()
    page.ops()
    kernel.samples.clear()
    loop.pass_time(60)

    assert kernel.samples == []
    assert page.ops() == []
    assert not [comm for comm in page.comms if comm.is_open]


def test_no_task_is_kept_alive(page: FrontEnd, loop: FastLoop) -> None:
    class LiveTasks(Kernel):
        def snapshot(self) -> Snapshot:
            self.names = dict(enumerate(sorted(task.get_name() for task in asyncio.all_tasks(loop))))
            return super().snapshot()

    async def main() -> weakref.ref[asyncio.Task[None]]:
        task = asyncio.create_task(asyncio.sleep(1), name="short")
        page.state = shown.get_state()["snapshot"]
        page.say(op="visible", view="v", visible=True)
        await task
        return weakref.ref(task)

    shown = LoopWidget(LiveTasks(loop), loop)
    task = loop.run_until_complete(main())
    gc.collect()

    assert task() is None
    assert shown.state["loop"]["tasks"] > 0
    shown.close()
