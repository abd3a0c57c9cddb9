"""The widget in a real kernel, through a real comm; a stand-in for the page plays its view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient import NotebookClient

from loopnb.widgets import protocol
from tests.cells import dedented
from tests.kernel.conftest import assert_quiet, needs_subshells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.gates import Gate
    from tests.kernel.driver import Comm, KernelDriver

TICKER = """
    import asyncio, os, time, loopnb
    async def tick():
        while True:
            await asyncio.sleep(0.01)
    ticker = asyncio.create_task(tick(), name='ticker')
    """


class Page:
    """One visible view of the widget in a kernel.

    Args:
        comm: The widget's comm. The tests of a kernel share it: what was sent before is of no concern here.
    """

    def __init__(self, comm: Comm) -> None:
        self.comm = comm
        self._begin = len(comm.messages)
        self.subshell_id: str | None = None
        self._requests = 0

    def say(self, op: str, **content: Any) -> str:
        """Send a message, and return its id."""
        self._requests += 1
        request_id = f"v:{self._requests}"
        message = {"op": op, "id": request_id, "view": "v", **content}
        self.comm.send_custom(message, subshell_id=self.subshell_id)
        return request_id

    def heard(self) -> list[dict[str, Any]]:
        """Return the custom messages so far."""
        received = self.comm.received[self._begin :]
        return [data["content"] for data in received if data and data.get("method") == "custom"]

    def wait(self, wanted: Callable[[dict[str, Any]], object], after: int = 0) -> dict[str, Any]:
        """Return the first message that satisfies *wanted*, after so many messages (see `count`)."""

        def is_wanted(data: Any) -> bool:
            return data.get("method") == "custom" and bool(wanted(data["content"]))

        message = self.comm.wait_message(is_wanted, after=max(after, self._begin))
        found: dict[str, Any] = message.content["data"]["content"]
        return found

    def wait_op(self, op: str, after: int = 0, **fields: Any) -> dict[str, Any]:
        """Return the first message with that op and these fields."""
        return self.wait(lambda message: message["op"] == op and fields.items() <= message.items(), after)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows as they are now."""
        window: Any = None
        for message in self.heard():
            if message["op"] == "window":
                window = protocol.apply_window(window, message)
        return [] if window is None else [window["rows"][key] for key in window["keys"]]

    def head(self) -> dict[str, Any]:
        """Return the header as it is now."""
        shared: Any = None
        for message in self.heard():
            if message["op"] == "shared":
                shared = message["shared"]
            elif message["op"] in {"head", "beat", "block"} and shared is not None:
                shared = protocol.apply_shared(shared, message) or shared
        return {} if shared is None else dict(shared["head"])

    def wait_rows(self, wanted: Callable[[list[dict[str, Any]]], object]) -> list[dict[str, Any]]:
        """Wait until the rows satisfy *wanted*, and return them."""
        self.wait(lambda _message: wanted(self.rows()))
        return self.rows()

    def wait_number(self, name: str) -> int:
        """Wait until a row shows the task of that name, and return its number."""
        rows = self.wait_rows(lambda rows: any(row["name"] == name for row in rows))
        [number] = [row["number"] for row in rows if row["name"] == name]
        return int(number)

    @property
    def count(self) -> int:
        """How many messages there were, to give as *after*."""
        return len(self.comm.messages)


@pytest.fixture
def page(kernel: KernelDriver) -> Iterator[Page]:
    """Show the widget, with a task to look at."""
    kernel.run(TICKER)
    page = Page(kernel.comm(kernel.run("loopnb.show()").widget_id))
    page.say("visible", visible=True, query={})
    page.wait_rows(lambda rows: any(row["name"] == "ticker" for row in rows))
    yield page
    page.say("visible", visible=False)
    kernel.run("ticker.cancel();")


def test_a_cell_that_awaits_is_said_to_run(kernel: KernelDriver, page: Page, gate: Gate) -> None:
    # The ticker may be about to step when a look is made.
    page.wait(lambda _message: page.head().get("text") in {"idle", "1 task runs"})
    after = page.count
    waiting = kernel.start(f"while not {gate}: await asyncio.sleep(0.05)")
    runs = page.wait(lambda message: str(message.get("head", {}).get("text", "")).startswith("In["), after)
    gate.open()

    assert runs["head"]["text"] == f"In[{waiting.wait().expect_ok().execution_count}] runs"
    page.wait(lambda _message: page.head()["cell"] is None, after)


def test_a_cell_that_blocks_is_named_while_it_does(kernel: KernelDriver, page: Page, gate: Gate) -> None:
    after = page.count
    blocking = kernel.start(
        f"""
        x = 1
        while not {gate}: time.sleep(0.2)
        """
    )
    blocks = page.wait(lambda message: message["op"] == "block" and message["block"], after)
    gate.open()
    number = blocking.wait().expect_ok().execution_count
    page.wait_op("block", after, block=None)

    assert blocks["block"]["text"] == f"In[{number}], line 2: time.sleep"
    assert blocks["clock_s"] - blocks["block"]["since_s"] > 0.3  # a short one is not told


def test_a_task_that_blocks_is_named_with_the_remedy(kernel: KernelDriver, page: Page, gate: Gate) -> None:
    after = page.count
    kernel.run(
        f"""
        async def hog():
            await asyncio.sleep(0.1)
            while not {gate}: time.sleep(0.2)
        hogging = asyncio.create_task(hog(), name='hog');
        """
    )
    block = page.wait(lambda message: message["op"] == "block" and message["block"], after)["block"]
    gate.open()

    assert "'hog'" in block["text"]
    assert block["text"].endswith("line 3: time.sleep")
    assert block["task"] == kernel.value(
        "[t.number for t in loopnb.tasks(finished=True) if t.name == 'hog'][0]"
    )
    assert "asyncio.sleep" in block["remedy"]


def test_a_click_while_a_cell_awaits_or_nests_is_served_at_once(kernel: KernelDriver, page: Page) -> None:
    for name, cell in {"first": "await waits", "second": "asyncio.run(asyncio.wait([waits]))"}.items():
        kernel.run(f"waits = asyncio.create_task(asyncio.sleep(60), name={name!r});")
        running = kernel.start(cell)
        number = page.wait_number(name)
        after = page.count
        request_id = page.say("cancel", number=number)
        ack = page.wait_op("ack", after, id=request_id, final=True)
        running.wait()

        assert (ack["ok"], ack["final"], ack["text"]) == (True, True, f"cancelled {name}")


@needs_subshells
def test_a_click_while_a_cell_blocks_is_acknowledged_and_done_when_it_yields(
    kernel: KernelDriver, page: Page, gate: Gate
) -> None:
    page.subshell_id = kernel.create_subshell()
    [ticker] = [row for row in page.rows() if row["name"] == "ticker"]
    after = page.count
    cell = kernel.start(
        f"""
        print('blocks', flush=True)
        while not {gate}: time.sleep(0.2)
        """
    )
    cell.wait_output("blocks")
    request_id = page.say("cancel", number=ticker["number"])
    noted = page.wait_op("ack", after, id=request_id)
    gate.open()
    number = cell.wait().expect_ok().execution_count or 0
    done = page.wait_op("ack", after, id=request_id, final=True)
    page.wait_rows(lambda rows: all(row["name"] != "ticker" for row in rows))

    assert (noted["final"], noted["text"]) == (False, f"will be cancelled when In[{number}] yields")
    assert (done["ok"], done["text"]) == (True, "cancelled ticker")


@needs_subshells
def test_the_status_stays_busy_after_a_click_while_a_cell_runs(
    kernel: KernelDriver, page: Page, gate: Gate
) -> None:
    subshell_id = kernel.create_subshell()
    cell = kernel.start(
        f"""
        print('blocks', flush=True)
        while not {gate}: time.sleep(0.2)
        """
    )
    cell.wait_output("blocks")
    sent = page.comm.send_custom({"op": "cancel", "id": "v:9", "number": 0}, subshell_id=subshell_id)
    sent.wait_idle()

    def states_after() -> list[tuple[str, str]]:
        statuses = [m for m in kernel.wire.messages if m.channel == "iopub" and m.msg_type == "status"]
        states = [(m.content["execution_state"], m.parent_id) for m in statuses]
        return states[states.index(("idle", sent.msg_id)) + 1 :]

    cell.wait_for(states_after, "status after the click")
    gate.open()
    cell.wait().expect_ok()

    assert states_after()[0] == ("busy", cell.msg_id)


@needs_subshells
def test_the_status_is_idle_in_the_end_if_the_cell_ends_while_a_subshell_says_that_it_runs(
    kernel: KernelDriver, page: Page
) -> None:
    subshell_id = kernel.create_subshell()
    kernel.run(
        """
        import threading
        publish, found, told = get_ipython().kernel._publish_status, threading.Event(), threading.Event()
        def publish_late(status, channel, parent=None):
            is_main = threading.current_thread() is threading.main_thread()
            if parent and not is_main:  # the thread has found that the cell runs
                found.set()
                told.wait(20)
            publish(status, channel, parent)
            if status == 'idle' and is_main and found.is_set():
                told.set()
        get_ipython().kernel._publish_status = publish_late
        """
    )
    cell = kernel.start(
        """
        print('blocks', flush=True)
        found.wait(20)
        """
    )
    cell.wait_output("blocks")
    page.comm.send_custom({"op": "cancel", "id": "v:9", "number": 0}, subshell_id=subshell_id)
    cell.wait().expect_ok()

    def states_after_late_busy() -> list[str]:
        statuses = [m for m in kernel.wire.messages if m.channel == "iopub" and m.msg_type == "status"]
        states = [(m.content["execution_state"], m.parent_id) for m in statuses]
        states = states[states.index(("idle", cell.msg_id)) + 1 :]
        late = ("busy", cell.msg_id)
        return [state for state, _parent in states[states.index(late) + 1 :]] if late in states else []

    after = cell.wait_for(states_after_late_busy, "status after the late one")
    kernel.run("del get_ipython().kernel._publish_status")

    assert after == ["idle"]


def test_the_details_say_that_a_command_or_a_line_has_cancelled_a_task(
    kernel: KernelDriver, page: Page
) -> None:
    kernel.run(
        """
        first, second = (asyncio.create_task(asyncio.sleep(99), name=name) for name in ("first", "second"))
        """
    )
    page.say("query", query={"group": False})
    rows = page.wait_rows(lambda rows: {"first", "second"} <= {row["name"] for row in rows})
    numbers = {row["name"]: row["number"] for row in rows}
    kernel.run("%loopnb cancel first")
    kernel.run("second.cancel();")
    said = []
    for name in ("first", "second"):
        after = page.count
        page.say("detail", number=numbers[name])
        said.append(page.wait_op("detail", after, number=numbers[name])["detail"]["cancelled_by"])

    assert said[0].startswith("%loopnb cancel at In[")
    assert said[1].startswith("In[")
    assert said[1].endswith(", line 1: second.cancel();")


def test_the_details_show_the_last_lines_that_a_task_has_printed(kernel: KernelDriver, page: Page) -> None:
    kernel.run(
        """
        import sys
        async def talk(name):
            for step in range(30):
                print(name, step)
            sys.stderr.write(f'{name} has a <b>warning</b>\\n')
            await asyncio.sleep(99)
        talking = [asyncio.create_task(talk(name), name=name) for name in ('loud', 'louder')]
        """
    )
    page.say("query", query={"group": False})
    rows = page.wait_rows(lambda rows: {"loud", "louder"} <= {row["name"] for row in rows})
    numbers = {row["name"]: row["number"] for row in rows}
    after = page.count
    page.say("detail", number=numbers["loud"])
    lines = page.wait_op("detail", after, number=numbers["loud"])["detail"]["output"]
    kernel.run("talking[0].cancel(); talking[1].cancel();")
    ended = page.wait(
        lambda message: message["op"] == "detail" and message["detail"]["row"]["state"] == "cancelled", after
    )["detail"]

    assert lines == [*(f"loud {step}" for step in range(11, 30)), "loud has a <b>warning</b>"]
    assert ended["output"] == lines


def test_unloading_leaves_a_view_that_says_so(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run(TICKER)
    page = Page(fresh_kernel.comm(fresh_kernel.run("loopnb.show()").widget_id))
    page.say("visible", visible=True, query={})
    page.wait_op("window")
    fresh_kernel.run("%unload_ext loopnb")
    end = page.wait_op("end")
    assert (end["why"], end["text"]) == ("unloaded", "loopnb was unloaded")
    assert "comm_close" not in [message.msg_type for message in page.comm.messages]

    after = page.count
    page.say("visible", visible=True, query={})
    assert page.wait_op("end", after)["why"] == "unloaded"
    fresh_kernel.run("%load_ext loopnb")
    again = fresh_kernel.run("loopnb.show()").widget_id
    assert again != page.comm.comm_id


@pytest.mark.parametrize("restart", [True, False], ids=["restart", "shutdown"])
def test_the_kernels_end_is_said(fresh_kernel: KernelDriver, restart: bool) -> None:
    fresh_kernel.run("import loopnb")
    page = Page(fresh_kernel.comm(fresh_kernel.run("loopnb.show()").widget_id))
    page.say("visible", visible=True, query={})
    page.wait_op("window")
    log = fresh_kernel.restart() if restart else fresh_kernel.shutdown()

    [end] = [message for message in page.heard() if message["op"] == "end"]
    assert end["why"] == ("restarted" if restart else "shut down")
    assert_quiet(log)


def test_the_widget_is_returned_without_being_shown(kernel: KernelDriver) -> None:
    kernel.run("import loopnb")
    cell = kernel.run("shown = loopnb.widget(height=300, group=False)")
    assert not cell.displays
    assert kernel.value("shown is loopnb.widget(height=300, group=False)")
    assert kernel.value("shown is not loopnb.widget()")
    assert kernel.value("shown.get_state()['options']") == {"height": 300, "group": False}
    assert kernel.execute("loopnb.show(height=3)").ename == "ValueError"


def test_the_table_is_stored_again_when_a_cell_has_changed_what_it_says(
    kernel: KernelDriver, page: Page
) -> None:
    def sent(msg_type: str) -> list[dict[str, Any]]:
        return [message.content for message in kernel.wire.messages if message.msg_type == msg_type]

    kernel.run("loopnb.show()")
    table, view = sent("display_data")[-2:]
    assert set(table["data"]) == {"text/html", "text/plain"}
    assert view["data"].keys() == {"application/vnd.jupyter.widget-view+json", "text/plain"}
    assert view["data"]["text/plain"] == ""

    before = len(sent("update_display_data"))

    def updates() -> list[dict[str, Any]]:
        return sent("update_display_data")[before:]

    kernel.run("named = asyncio.create_task(asyncio.sleep(60), name='named');")
    page.wait(lambda _message: any("named" in update["data"]["text/html"] for update in updates()))

    assert {update["transient"]["display_id"] for update in updates()} == {table["transient"]["display_id"]}

    kernel.run("named.cancel();")


def test_a_notebook_that_a_program_runs_keeps_the_table_alone(tmp_path: Path) -> None:
    sources = ["%load_ext loopnb", dedented(TICKER), "loopnb.show()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    [output] = notebook.cells[-1].outputs

    assert set(output.data) == {"text/html", "text/plain"}
    assert "ticker" in output.data["text/html"]
    assert "As of " in output.data["text/plain"]
