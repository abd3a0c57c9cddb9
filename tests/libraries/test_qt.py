"""Qt's windows beside the kernel's loop, on a screen in memory. `tests/kernel/test_gui.py` tests Tk's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.driver import KernelDriver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.zygote import Zygote

PREPARE = """
%load_ext loopnb
%gui qt5
import asyncio
from PyQt5 import QtCore
ticks = 0
def tick():
    global ticks
    ticks += 1
timer = QtCore.QTimer()
timer.timeout.connect(tick)
timer.start(5)
async def ticked(n=3):
    end = ticks + n
    while ticks < end:
        await asyncio.sleep(0.001)
    return 'ticked'
async def waits():
    print(await ticked(), flush=True)
    await asyncio.sleep(60)
"""


@pytest.fixture(scope="module")
def module_qt_kernel(
    tmp_path_factory: pytest.TempPathFactory, zygote: Zygote | None
) -> Iterator[KernelDriver]:
    """Start a kernel with Qt that the tests of this module share."""
    folder = tmp_path_factory.mktemp("kernel")
    env = {"QT_QPA_PLATFORM": "offscreen", "XDG_RUNTIME_DIR": str(folder)}
    with KernelDriver(folder, env=env, zygote=zygote) as kernel:
        kernel.run(PREPARE)
        yield kernel


@pytest.fixture
def qt_kernel(module_qt_kernel: KernelDriver) -> KernelDriver:
    """Lend the kernel to one test."""
    return module_qt_kernel


@pytest.mark.parametrize("wait", ["await ticked()", "%aloop ticked()", "asyncio.run(ticked())"])
def test_qt_and_the_loop_turn_while_a_cell_waits(qt_kernel: KernelDriver, wait: str) -> None:
    assert qt_kernel.run(wait).result == "'ticked'"


def test_a_background_task_and_qt_move_between_cells(qt_kernel: KernelDriver) -> None:
    cell = qt_kernel.start(
        """
        %%aloop -b
        print(await ticked(), flush=True)
        """
    )

    assert "ticked" in cell.wait_output("ticked")


@pytest.mark.parametrize("wait", ["await waits()", "%aloop waits()", "asyncio.run(waits())"])
def test_an_interrupt_ends_a_cell_beside_qt(qt_kernel: KernelDriver, wait: str) -> None:
    cell = qt_kernel.start(wait)
    cell.wait_output("ticked")
    qt_kernel.interrupt()

    assert cell.wait().ename in {"CancelledError", "KeyboardInterrupt"}
    assert qt_kernel.run("await ticked()").result == "'ticked'"


def test_qt_deletes_what_is_to_be_deleted_later(qt_kernel: KernelDriver) -> None:
    qt_kernel.run(
        """
        deleted = asyncio.Event()
        thing = QtCore.QObject()
        thing.destroyed.connect(lambda *_: deleted.set())
        thing.deleteLater()
        """
    )

    assert qt_kernel.run("await asyncio.wait_for(deleted.wait(), 20)").result == "True"


def test_a_slot_that_nests_gets_its_result_while_the_kernel_goes_on(qt_kernel: KernelDriver) -> None:
    qt_kernel.run(
        """
        begun, asked, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()
        def nests():
            begun.set()
            asyncio.run(asked.wait())
            answered.set()
        """
    )
    qt_kernel.run("QtCore.QTimer.singleShot(0, nests); await asyncio.wait_for(begun.wait(), 20)")
    qt_kernel.run("asked.set()")

    assert qt_kernel.run("await asyncio.wait_for(answered.wait(), 20)").result == "True"


def test_a_kernel_with_qt_ends_in_order(qt_kernel: KernelDriver) -> None:
    qt_kernel.run(
        """
        %%aloop -b
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            print('ended in order', flush=True)
        """
    )

    log = qt_kernel.shutdown()

    assert not qt_kernel.was_killed, log
    assert "ended in order" in log
