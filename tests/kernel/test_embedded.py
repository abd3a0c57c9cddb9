"""A kernel that a program embeds: it ends when the program says so, and may be started again."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cells import filled
from tests.kernel.driver import KernelDriver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAM = """
import os, sys, threading, time
os.environ.pop("JPY_PARENT_PID", None)  # its watcher can be started only once
from ipykernel.embed import embed_kernel
from ipykernel.kernelapp import IPKernelApp
from traitlets.config import Config
config = Config()
config.IPKernelApp.connection_file = sys.argv[1]
config.InteractiveShellApp.extensions = ["loopnb"]
config.HistoryManager.enabled = False
def say(text):
    print(text, file=sys.__stderr__, flush=True)
{}
"""
#: A cell. In an embedded kernel, functions do not see what a cell has defined.
SPAWNS = """
import asyncio
async def forever(say):
    import asyncio
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.01)
        say("task has tidied up")
task = asyncio.create_task(forever(say))
await asyncio.sleep(0.01)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals end no process in order there")


@pytest.fixture
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], KernelDriver]]:
    """Return a function that starts a program whose last lines are given."""
    drivers: list[KernelDriver] = []

    def start(lines: str) -> KernelDriver:
        script = filled(PROGRAM, lines)
        drivers.append(KernelDriver(tmp_path_factory.mktemp("kernel"), script=script))
        drivers[-1].launch()
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.kill()


STOPS = """
asked = threading.Event()
def stops():
    asked.wait(30)
    {}
threading.Thread(target=stops, daemon=True).start()
embed_kernel(config=config)
say("program goes on")
"""


@pytest.mark.parametrize(
    "stop",
    [
        "app = IPKernelApp.instance(); app.io_loop.add_callback(app.io_loop.stop)",
        "loop = IPKernelApp.instance().io_loop.asyncio_loop; loop.call_soon_threadsafe(loop.stop)",
        "IPKernelApp.instance().io_loop.stop()",
    ],
    ids=["tornado", "asyncio", "other thread"],
)
def test_the_program_stops_its_kernel_in_order(embedded: Callable[[str], KernelDriver], stop: str) -> None:
    kernel = embedded(filled(STOPS, stop))
    kernel.run(SPAWNS)
    kernel.start("asked.set()")

    assert kernel.process.wait(20) == 0
    assert "task has tidied up\nprogram goes on\n" in kernel.log()


def test_a_cell_that_waits_does_not_keep_the_program_from_that(
    embedded: Callable[[str], KernelDriver],
) -> None:
    kernel = embedded(filled(STOPS, "loop = IPKernelApp.instance().io_loop; loop.add_callback(loop.stop)"))
    kernel.start("asked.set(); import asyncio; asyncio.run(asyncio.sleep(60))")

    assert kernel.process.wait(20) == 0
    assert "program goes on" in kernel.log()


@pytest.mark.parametrize(
    "code",
    [
        "loop.stop()",
        "loop.call_soon(loop.stop)",
        "async def stops(loop): loop.stop()\ntask = asyncio.create_task(stops(loop))",
    ],
    ids=["cell", "callback", "task"],
)
def test_a_cell_cannot_stop_the_programs_kernel(embedded: Callable[[str], KernelDriver], code: str) -> None:
    kernel = embedded("embed_kernel(config=config)")
    kernel.run("import asyncio; loop = asyncio.get_running_loop()")

    cell = kernel.start(code)

    cell.wait_output("loop.stop() was ignored")
    assert kernel.run("await asyncio.sleep(0.01, 'goes on')").result == "'goes on'"


def test_sigterm_ends_a_program_whose_kernel_has_ended(embedded: Callable[[str], KernelDriver]) -> None:
    kernel = embedded(
        """
        embed_kernel(config=config)
        say("program goes on")
        time.sleep(60)
        """
    )
    kernel.run(SPAWNS)
    kernel.start("exit")
    kernel.wait_logged("program goes on")
    kernel.process.terminate()

    assert kernel.process.wait(20) == -signal.SIGTERM
    assert "task has tidied up" in kernel.log()


def test_a_second_kernel_ends_in_order_too(embedded: Callable[[str], KernelDriver]) -> None:
    kernel = embedded(
        """
        for _ in range(2):
            embed_kernel(config=config)
            say("program goes on")
        """
    )

    for number in (1, 2):
        kernel.run(SPAWNS)
        assert kernel.run("await asyncio.to_thread(int)").result == "0"
        kernel.run("import loopnb; await asyncio.to_thread(loopnb.tasks)")
        kernel.start("exit")
        kernel.wait_logged("task has tidied up\nprogram goes on\n", number)
    assert kernel.process.wait(20) == 0
