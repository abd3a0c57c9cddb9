"""A GUI toolkit beside the kernel's loop: Tk, on a display that nobody sees; and `%gui asyncio`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.kernel.driver import KernelDriver
from tests.processes import WaitTimedOutError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.zygote import Zygote

PREPARE = """\
%load_ext loopnb
import asyncio, tkinter
async def answer(delay):
    await asyncio.sleep(delay)
    return delay
root = tkinter.Tk()
"""


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """An X server that draws into memory."""
    if shutil.which("Xvfb") is None or importlib.util.find_spec("_tkinter") is None:
        pytest.skip("no Xvfb on PATH, or a Python without tkinter")
    reads, writes = os.pipe()
    command = ["Xvfb", "-displayfd", str(writes), "-nolisten", "tcp"]
    server = subprocess.Popen(
        command, pass_fds=[writes], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(writes)
    try:
        with os.fdopen(reads) as number:
            yield f":{number.readline().strip()}"
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def kernel(
    tmp_path_factory: pytest.TempPathFactory, display: str, zygote: Zygote | None
) -> Iterator[KernelDriver]:
    folder = tmp_path_factory.mktemp("kernel")
    with KernelDriver(folder, env={"DISPLAY": display}, zygote=zygote) as kernel:
        kernel.run(PREPARE)
        yield kernel


def test_a_callback_of_gui_tk_nests_while_the_kernel_goes_on(kernel: KernelDriver) -> None:
    kernel.run(
        """
        %gui tk
        def pressed():
            print('pressed', flush=True)
            print('nested', asyncio.run(asked.wait()), flush=True)
            get_ipython().kernel.eventloop = None
            root.quit()
        asked = asyncio.Event()
        button = tkinter.Button(root, command=pressed)
        _ = root.after(10, button.invoke)
        """
    )
    wait_printed(kernel, "pressed")

    kernel.run("asked.set()")
    wait_printed(kernel, "nested True")
    assert kernel.run("asyncio.run(answer(0.01))").result == "0.01"


def wait_printed(kernel: KernelDriver, text: str) -> None:
    def printed() -> bool | None:
        streams = [m.content["text"] for m in kernel.wire.messages if m.msg_type == "stream"]
        return text in "".join(streams) or None

    kernel.wire.wait_for(printed, 20, f"output of {text!r}")


@pytest.mark.parametrize("enter", ["root.after(0, wait, delay); root.update()", "button(delay).invoke()"])
def test_callbacks_of_tk_that_overlap_return_newest_first_and_nothing_crashes(
    kernel: KernelDriver, enter: str
) -> None:
    # Tcl keeps its calls on a stack of its own: in another order the process would end here.
    kernel.run(
        f"""
        ended = []
        def wait(delay):
            ended.append(asyncio.run(answer(delay)))
        def button(delay):
            return tkinter.Button(root, command=lambda: wait(delay))
        async def task(delay):
            {enter}
        await asyncio.gather(*map(task, (0.05, 0.2, 0.01)))
        """
    )

    assert kernel.value("ended") == [0.01, 0.2, 0.05]


@pytest.fixture
def ticking(kernel: KernelDriver) -> KernelDriver:
    """Choose Tk by `%gui`. `ticked(n)` waits until a window's timer has gone off *n* times more."""
    kernel.run(
        """
        %gui tk
        import loopnb
        ticks = 0
        def tick():
            global ticks
            ticks += 1
            root.after(5, tick)
        async def ticked(n=3):
            end = ticks + n
            while ticks < end:
                await asyncio.sleep(0.001)
            return 'ticked'
        async def waits():
            print(await ticked(), flush=True)
            await asyncio.sleep(60)
        tick()
        """
    )
    return kernel


@pytest.mark.parametrize("wait", ["await ticked()", "%aloop ticked()", "asyncio.run(ticked())"])
def test_windows_live_and_the_loop_turns_while_a_cell_waits(ticking: KernelDriver, wait: str) -> None:
    assert ticking.run(wait).result == "'ticked'"


def test_a_background_task_and_windows_move_between_cells(ticking: KernelDriver) -> None:
    cell = ticking.start(
        """
        %%aloop -b
        await asyncio.sleep(0)
        print(await ticked(), flush=True)
        """
    )

    assert "ticked" in cell.wait_output("ticked")


@pytest.mark.parametrize("wait", ["await waits()", "%aloop waits()", "asyncio.run(waits())"])
def test_an_interrupt_ends_a_cell_beside_windows(ticking: KernelDriver, wait: str) -> None:
    cell = ticking.start(wait)
    cell.wait_output("ticked")
    ticking.interrupt()

    assert cell.wait().ename in {"CancelledError", "KeyboardInterrupt"}
    assert ticking.run("await ticked()").result == "'ticked'"


def test_a_kernel_with_windows_ends_in_order(ticking: KernelDriver) -> None:
    ticking.run(
        """
        %%aloop -b
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            print('ended in order', flush=True)
        """
    )

    log = ticking.shutdown()

    assert not ticking.was_killed, log
    assert "ended in order" in log


def test_switching_the_toolkit_off_lets_its_windows_stand(ticking: KernelDriver) -> None:
    ticking.run("%gui")
    before = ticking.run("await asyncio.sleep(0.05); ticks").result

    assert ticking.run("await asyncio.sleep(0.05); ticks").result == before


def test_unloading_and_loading_leave_the_toolkit_chosen(ticking: KernelDriver) -> None:
    ticking.run("%unload_ext loopnb")
    ticking.start("stock = get_ipython().kernel.enter_eventloop.__module__")
    loads = ticking.start("%load_ext loopnb")
    # ipykernel's own loop may miss messages. It takes them up with the next one that it hears of.
    for _ in range(20):
        with contextlib.suppress(WaitTimedOutError):
            loads.wait(1)
            break
        ticking.start("pass")
    loads.wait().expect_ok()

    assert ticking.value("stock") == "ipykernel.kernelbase"
    assert ticking.run("await ticked()").result == "'ticked'"


def test_a_toolkit_that_stops_the_loop_is_named(ticking: KernelDriver) -> None:
    ticking.run("%gui")
    cell = ticking.start(
        """
        from ipykernel.eventloops import register_integration
        @register_integration('mine')
        def loop_mine(kernel):
            kernel.eventloop = None
        get_ipython().kernel.eventloop = loop_mine
        """
    )

    cell.wait_output("loop_mine() of ipykernel keeps the notebook's loop from turning")


@pytest.mark.parametrize("wait", ["await waits()", "%aloop waits()", "asyncio.run(waits())"])
def test_beside_gui_asyncio_cells_wait_and_are_interrupted(fresh_kernel: KernelDriver, wait: str) -> None:
    fresh_kernel.run("%gui asyncio")
    fresh_kernel.run(
        """
        import asyncio
        ticks = 0
        async def ticks_on():
            global ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)
        ticking = asyncio.create_task(ticks_on())
        async def waits():
            before = ticks
            while ticks == before:
                await asyncio.sleep(0.001)
            print('waits', flush=True)
            await asyncio.sleep(60)
        """
    )
    cell = fresh_kernel.start(wait)
    cell.wait_output("waits")
    fresh_kernel.interrupt()

    assert cell.wait().ename in {"CancelledError", "KeyboardInterrupt"}
    assert fresh_kernel.run("await asyncio.sleep(0.001, 'goes on')").result == "'goes on'"
