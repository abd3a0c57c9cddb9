"""Real SIGINT to a real kernel while a cell waits."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from tests.kernel.wire import WaitTimedOutError

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver

#: Cells that say that they wait, then wait for a minute; and what they must end in.
WAITS = {
    "await": ("print('waits', flush=True); await asyncio.sleep(60)", {"CancelledError", "KeyboardInterrupt"}),
    "nested run": ("print('waits', flush=True); asyncio.run(asyncio.sleep(60))", {"KeyboardInterrupt"}),
    "nested run in an await cell": (
        "await asyncio.sleep(0); print('waits', flush=True); asyncio.run(asyncio.sleep(60))",
        {"KeyboardInterrupt"},
    ),
    "aloop": ("%%aloop\nprint('waits', flush=True)\nawait asyncio.sleep(60)", {"KeyboardInterrupt"}),
    "aloop under time": (
        "%%time\n%%aloop\nprint('waits', flush=True)\nawait asyncio.sleep(60)",
        {"KeyboardInterrupt"},
    ),
    "another loop": (
        "print('waits', flush=True); other.run_until_complete(asyncio.sleep(60))",
        {"KeyboardInterrupt"},
    ),
    "another loop in an await cell": (
        "await asyncio.sleep(0); print('waits', flush=True); other.run_until_complete(asyncio.sleep(60))",
        {"KeyboardInterrupt"},
    ),
    "plain code": ("print('waits', flush=True); time.sleep(60)", {"KeyboardInterrupt"}),
}


@pytest.fixture(autouse=True)
def ticker(kernel: KernelDriver) -> None:
    kernel.run("import asyncio, time\nother = asyncio.new_event_loop()\nticks = 0")
    kernel.run(
        "%%aloop -b -n ticker\nwhile True:\n    ticks += 1\n    await asyncio.sleep(0.02)", cell_id="tick"
    )


@pytest.mark.parametrize(("code", "ends_in"), WAITS.values(), ids=WAITS)
def test_an_interrupt_ends_the_cell_and_nothing_else(
    kernel: KernelDriver, code: str, ends_in: set[str]
) -> None:
    cell = kernel.start(code)
    cell.wait_output("waits")
    interrupted_at = time.monotonic()

    kernel.interrupt()

    result = cell.wait()
    # The waits above last a minute: this bound is the requirement, not a measurement.
    assert time.monotonic() - interrupted_at < 5
    assert result.ename in ends_in
    assert "loopnb" not in result.traceback
    kernel.run("before = ticks; await asyncio.sleep(0.2)")
    assert kernel.value("ticks - before") >= 3


def test_a_second_interrupt_ends_a_step_that_blocks(kernel: KernelDriver) -> None:
    kernel.run("async def block():\n    print('waits', flush=True)\n    time.sleep(60)")
    cell = kernel.start("asyncio.run(block())")
    cell.wait_output("waits")

    kernel.interrupt()
    # Two signals that come at once are one to Python. A blocked kernel cannot say that it has seen
    # the first, so the second one is sent until it has had its effect.
    while not cell.is_done:
        kernel.interrupt()
        with contextlib.suppress(WaitTimedOutError):
            cell.wait(0.5)

    assert cell.wait().ename == "KeyboardInterrupt"
    assert kernel.value("ticks") > 0


def test_a_second_interrupt_ends_a_nested_run_that_swallows_the_first(kernel: KernelDriver) -> None:
    kernel.run(
        "async def swallow():\n    try:\n"
        "        print('waits', flush=True)\n        await asyncio.sleep(60)\n"
        "    except asyncio.CancelledError:\n"
        "        print('swallowed', flush=True)\n        await asyncio.sleep(60)"
    )
    cell = kernel.start("asyncio.run(swallow())")
    cell.wait_output("waits")
    kernel.interrupt()
    cell.wait_output("swallowed")

    kernel.interrupt()

    assert cell.wait().ename == "KeyboardInterrupt"


def test_an_interrupt_of_an_idle_kernel_harms_nothing(kernel: KernelDriver) -> None:
    kernel.interrupt()

    kernel.run("before = ticks; await asyncio.sleep(0.2)")
    assert kernel.value("ticks - before") >= 3
