"""Nested runs in the callbacks of a GUI toolkit: Tk, on a display that nobody sees."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from ipykernel._version import version_info

from tests.kernel.driver import KernelDriver

if TYPE_CHECKING:
    from collections.abc import Iterator

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
def kernel(tmp_path_factory: pytest.TempPathFactory, display: str) -> Iterator[KernelDriver]:
    with KernelDriver(tmp_path_factory.mktemp("kernel"), env={"DISPLAY": display}) as kernel:
        kernel.run(PREPARE)
        yield kernel


# There a GUI's callback is handled as a part of the cell: no other cell runs before it ends.
@pytest.mark.skipif(version_info < (7,), reason="ipykernel 6 runs no cell during a GUI's callback")
def test_a_callback_of_gui_tk_nests_while_the_kernel_goes_on(kernel: KernelDriver) -> None:
    # ipykernel's own loop for Tk may miss a message and wait for the next: none is sent while it waits.
    kernel.start(
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

    # Tk's own loop is below the callback; only the nested run lets the kernel hear of this.
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
