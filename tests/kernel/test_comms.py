"""Comm messages that come while a cell waits: a widget's click or change, for instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cells import dedented, filled
from tests.kernel.requests import joined

if TYPE_CHECKING:
    from tests.kernel.driver import Cell, Comm, KernelDriver

WAITS = {
    "nested run": "asyncio.run(got.wait())",
    "nested run in a task": dedented(
        """
        async def nests(): asyncio.run(got.wait())
        await asyncio.create_task(nests())
        """
    ),
    "await": "await got.wait()",
    "%%aloop": dedented(
        """
        %%aloop
        await got.wait()
        """
    ),
}
THEN = """
{}
print('after')
display('too')
"""


@pytest.fixture
def comm(kernel: KernelDriver) -> Comm:
    """Open a comm whose messages end the wait of a cell."""
    kernel.run(
        """
        import asyncio, signal, threading, time
        from IPython.display import display
        got = asyncio.Event()
        count = 0
        def received(message):
            global count
            count += 1
            print('handled')
            display('shown')
            got.set()
        def opened(comm, message):
            comm.on_msg(received)
        get_ipython().kernel.comm_manager.register_target('clicks', opened)
        """
    )
    return kernel.open_comm("clicks")


def statuses(cell: Cell) -> list[str]:
    return [m.content["execution_state"] for m in cell.messages if m.msg_type == "status"]


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_message_is_handled_and_answered_for_while_a_cell_waits(
    kernel: KernelDriver, comm: Comm, wait: str
) -> None:
    cell = kernel.start(filled(THEN, wait))
    sent = comm.send({})
    cell.wait().expect_ok()

    sent.wait_idle()
    assert [m.msg_type for m in joined(sent.messages)] == ["status", "stream", "display_data", "status"]
    assert cell.text == "after\n'too'\n"
    # Front ends show the last status they got: the cell's.
    assert statuses(cell) == ["busy", "busy", "idle"]


def test_messages_are_handled_in_the_order_they_came(kernel: KernelDriver, comm: Comm) -> None:
    kernel.run(
        """
        order = []
        def received(message):
            order.append(message['content']['data'])
            if len(order) == 6: got.set()
        def opened(comm, message):
            comm.on_msg(received)
        get_ipython().kernel.comm_manager.register_target('ordered', opened)
        """
    )
    cell = kernel.start(
        """
        await asyncio.sleep(0)
        asyncio.run(got.wait())
        """
    )
    ordered = kernel.open_comm("ordered")
    for number in range(6):
        ordered.send(number)
    cell.wait().expect_ok()

    assert kernel.value("order") == [0, 1, 2, 3, 4, 5]


def test_a_cell_behind_it_still_waits_its_turn(kernel: KernelDriver, comm: Comm) -> None:
    first = kernel.start(
        """
        asyncio.run(got.wait())
        print(f'first, {count}')
        count = 'first has ended'
        """
    )
    second = kernel.start("print(f'second, {count}')")
    comm.send({})

    assert first.wait().stdout == "first, 1\n"
    assert second.wait().stdout == "second, first has ended\n"


def test_a_handler_that_fails_or_nests_leaves_the_cell_alone(kernel: KernelDriver, comm: Comm) -> None:
    kernel.run(
        """
        handlers = iter([lambda: 1 / 0, lambda: asyncio.run(asyncio.sleep(0.01)), got.set])
        def opened(comm, message):
            comm.on_msg(lambda message: next(handlers)())
        get_ipython().kernel.comm_manager.register_target('awkward', opened)
        """
    )
    awkward = kernel.open_comm("awkward")
    cell = kernel.start(
        """
        print('waits')
        asyncio.run(got.wait())
        print('after')
        """
    )
    cell.wait_output("waits")
    sent = [awkward.send({}) for _ in range(3)]
    cell.wait().expect_ok()

    for request in sent:
        request.wait_idle()
    assert cell.text == "waits\nafter\n"


def test_a_thread_shows_in_the_cell_that_waits_whatever_was_handled_meanwhile(
    kernel: KernelDriver, comm: Comm
) -> None:
    kernel.run(
        """
        def late():
            while not count: time.sleep(0.001)
            display('from the thread')
        """
    )
    cell = kernel.start(
        """
        thread = threading.Thread(target=late); thread.start()
        asyncio.run(got.wait()); asyncio.run(asyncio.to_thread(thread.join))
        """
    )
    comm.send({})
    cell.wait().expect_ok()

    assert cell.text == "'from the thread'\n"


def test_an_interrupt_after_a_message_ends_the_cell_and_sigint_is_as_it_was(
    kernel: KernelDriver, comm: Comm
) -> None:
    kernel.run("before = signal.getsignal(signal.SIGINT)")
    cell = kernel.start(
        """
        print('waits')
        asyncio.run(asyncio.sleep(30))
        """
    )
    cell.wait_output("waits")
    comm.send({}).wait_idle()
    kernel.interrupt()

    assert cell.wait().ename == "KeyboardInterrupt"
    assert kernel.run("signal.getsignal(signal.SIGINT) is before").result == "True"


def test_a_slider_goes_on_after_a_change_during_a_nested_run(kernel: KernelDriver, comm: Comm) -> None:
    shown = kernel.run(
        """
        import ipywidgets
        slider = ipywidgets.IntSlider()
        slider.observe(lambda change: got.set(), 'value')
        slider
        """
    )
    slider = kernel.comm(shown.widget_id)
    cell = kernel.start(
        """
        asyncio.run(got.wait())
        slider.value
        """
    )
    changed = slider.send({"method": "update", "state": {"value": 7}, "buffer_paths": []})

    assert cell.wait().result == "7"
    changed.wait_idle()  # until it has come, the front end keeps later changes to itself


def test_a_message_is_handled_in_the_very_cell_that_loads(stock_kernel: KernelDriver) -> None:
    stock_kernel.run(
        """
        import asyncio
        got = asyncio.Event()
        def opened(comm, message):
            comm.on_msg(lambda message: got.set())
        get_ipython().kernel.comm_manager.register_target('clicks', opened)
        """
    )
    comm = stock_kernel.open_comm("clicks")
    cell = stock_kernel.start(
        """
        %load_ext loopnb
        print('waits')
        asyncio.run(got.wait())
        """
    )
    cell.wait_output("waits")
    comm.send({})

    cell.wait().expect_ok()
