"""The driver itself, on a stock kernel: a test that trusts it may look for faults elsewhere."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kernel.conftest import needs_routed_output, needs_subshells
from tests.kernel.driver import KernelDiedError
from tests.processes import WaitTimedOutError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.conftest import KernelsAhead
    from tests.kernel.driver import KernelDriver


@pytest.fixture(scope="module")
def stock(kernels_ahead: KernelsAhead) -> Iterator[KernelDriver]:
    """Share one kernel without the extension."""
    with kernels_ahead.take() as kernel:
        yield kernel


def test_a_cell_comes_back_with_all_its_output(stock: KernelDriver) -> None:
    result = stock.execute(
        """
        import sys
        from IPython.display import display, HTML
        print("out")
        print("err", file=sys.stderr)
        display(HTML("<b>shown</b>"))
        6 * 7
        """
    )

    assert (result.status, result.stdout, result.stderr, result.result) == ("ok", "out\n", "err\n", "42")
    assert [data["text/html"] for data in result.displays] == ["<b>shown</b>"]
    assert result.execution_count is not None


def test_an_error_is_a_result_and_has_no_colour_codes(stock: KernelDriver) -> None:
    result = stock.execute(
        """
        def f():
            raise ValueError('no')
        f()
        """
    )

    assert (result.status, result.ename, result.evalue) == ("error", "ValueError", "no")
    assert "raise ValueError('no')" in result.traceback
    assert "\x1b" not in result.traceback
    with pytest.raises(AssertionError, match="ValueError"):
        result.expect_ok()


def test_the_kernel_runs_here_and_sees_the_cell_id(stock: KernelDriver) -> None:
    cell_id = "get_ipython().kernel.get_parent()['metadata'].get('cellId')"

    assert stock.value("__import__('sys').executable") == sys.executable
    assert stock.execute(cell_id, cell_id="the-cell").result == "'the-cell'"
    assert stock.execute(cell_id, cell_id="").result == ""


def test_a_value_is_read_outside_any_cell(stock: KernelDriver) -> None:
    before = stock.run("x = {'a': [1]}").execution_count
    assert before is not None

    assert stock.value("x") == {"a": [1]}
    assert stock.run("pass").execution_count == before + 1


def test_interrupt_is_a_real_sigint(stock: KernelDriver) -> None:
    cell = stock.start(
        """
        import time
        def waits():  # between two statements of a cell, IPython would be interrupted
            print('begun')
            [time.sleep(0.1) for _ in range(600)]  # a call that is about to sleep is not interrupted
        waits()
        """
    )
    cell.wait_output("begun")
    stock.interrupt()
    result = cell.wait()

    assert result.ename == "KeyboardInterrupt"
    assert "time.sleep(0.1)" in result.traceback


def test_output_is_seen_while_the_cell_runs(stock: KernelDriver) -> None:
    gate = stock.folder / "gate"
    os.mkfifo(gate)
    cell = stock.start(
        """
        print('waiting')
        print(open('gate').read())
        """
    )

    assert cell.wait_output("waiting\n") == "waiting\n"
    assert not cell.is_done
    gate.write_text("went")
    assert cell.wait().stdout == "waiting\nwent\n"


def test_the_pieces_of_a_stream_are_one_output(stock: KernelDriver) -> None:
    # What the kernel's timer does at any moment, also between the two things that a `print` writes.
    cell = stock.run(
        """
        import sys
        for text in ('one', 'two'): print(text, end='', flush=True)
        print('three', file=sys.stderr, flush=True)
        print('four')
        """
    ).cell

    assert [(m.content["name"], m.content["text"]) for m in cell.outputs] == [
        ("stdout", "onetwo"),
        ("stderr", "three\n"),
        ("stdout", "four\n"),
    ]


@needs_routed_output
def test_late_output_is_told_from_the_rest_and_belongs_to_its_cell(stock: KernelDriver) -> None:
    origin = stock.run(
        """
        import asyncio
        go = asyncio.Event()
        async def later():
            await go.wait()
            print("late")
        task = asyncio.create_task(later())
        print("early")
        """
    ).cell
    assert origin.late_outputs == ()

    trigger = stock.run(
        """
        go.set()
        await task
        """
    )
    assert origin.wait_late("late\n") == "late\n"
    assert origin.stdout == "early\nlate\n"
    assert trigger.stdout == ""


def test_a_comm_goes_both_ways(stock: KernelDriver) -> None:
    stock.run(
        """
        def answer(message):
            return {"echo": message["content"]["data"], "size": len(message["buffers"][0])}
        def opened(comm, message):
            comm.on_msg(lambda m: comm.send(answer(m), buffers=[b"xyz"]))
            comm.send("welcome")
        get_ipython().kernel.comm_manager.register_target("test.echo", opened)
        """
    )
    comm = stock.open_comm("test.echo")
    comm.wait_message(lambda data: data == "welcome")
    comm.send({"n": 1}, buffers=[b"12345"])
    answer = comm.wait_message(lambda data: data != "welcome")

    assert answer.content["data"] == {"echo": {"n": 1}, "size": 5}
    assert answer.buffers == (b"xyz",)
    assert comm.received == ("welcome", {"echo": {"n": 1}, "size": 5})


def test_a_widget_is_reached_by_its_id(stock: KernelDriver) -> None:
    shown = stock.run(
        """
        import ipywidgets
        button = ipywidgets.Button()
        button.on_msg(lambda widget, content, buffers: widget.send({"got": content}))
        display(button)
        """
    )
    comm = stock.comm(shown.widget_id)
    comm.send_custom({"op": "ping"})

    assert comm.messages[0].msg_type == "comm_open"
    comm.wait_message(lambda data: data.get("content") == {"got": {"op": "ping"}})


@needs_subshells
def test_a_subshell_works_while_the_main_shell_is_blocked(stock: KernelDriver) -> None:
    subshell_id = stock.create_subshell()
    blocked = stock.start(
        """
        import threading
        door = threading.Event()
        print('shut')
        door.wait(30)
        """
    )
    blocked.wait_output("shut")

    opened = stock.execute(
        """
        print('opens')
        door.set()
        """,
        subshell_id=subshell_id,
    )
    assert opened.stdout == "opens\n"
    assert blocked.wait().result == "True"


def test_other_requests_are_answered(stock: KernelDriver) -> None:
    answer = stock.ask("complete_request", {"code": "import sy", "cursor_pos": 9})

    assert "sys" in answer["matches"]


def test_a_wait_that_times_out_tells_what_came(stock: KernelDriver) -> None:
    cell = stock.run("print('something else')").cell

    with pytest.raises(WaitTimedOutError, match="something else"):
        cell.wait_output("never printed", timeout=0.01)


def test_restart_is_another_process_and_returns_the_log(stock_kernel: KernelDriver) -> None:
    stock_kernel.run(
        """
        import os
        import sys; print('to the real stderr', file=sys.__stderr__, flush=True)
        x = 1
        """
    )
    first = stock_kernel.process.pid
    log = stock_kernel.restart()

    assert "to the real stderr" in log
    assert stock_kernel.process.pid != first
    assert stock_kernel.execute("x").ename == "NameError"


def test_shutdown_returns_what_the_kernel_said_at_its_end(stock_kernel: KernelDriver) -> None:
    stock_kernel.run(
        """
        import asyncio
        def forget():
            async def forgotten():
                await future
            future = asyncio.get_running_loop().create_future()
            future.add_done_callback(print)
            asyncio.ensure_future(forgotten())
        forget()
        """
    )

    assert "Task was destroyed but it is pending" in stock_kernel.shutdown()
    assert not stock_kernel.is_alive()


def test_a_dead_kernel_ends_every_wait(stock_kernel: KernelDriver) -> None:
    cell = stock_kernel.start(
        """
        import os
        os._exit(3)
        """
    )

    with pytest.raises(KernelDiedError, match="process has ended"):
        cell.wait()
    assert stock_kernel.process.returncode == 3
