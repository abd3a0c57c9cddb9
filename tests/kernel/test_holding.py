"""`loopnb.hold()` and `release()` in cells of a real kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver

MANAGER = """
import asyncio, loopnb
from contextlib import asynccontextmanager
said = []
@asynccontextmanager
async def opened(name):
    async with asyncio.timeout(60):  # only the task that has entered it can leave it
        said.append(f"+{name}")
        try:
            yield name
        finally:
            await asyncio.sleep(0)
            said.append(f"-{name}")
            print(f"left {name}", flush=True)
"""


@pytest.fixture(autouse=True)
def _manager(kernel: KernelDriver) -> None:
    kernel.run(MANAGER)


def test_entered_in_one_cell_and_left_in_another(kernel: KernelDriver) -> None:
    assert kernel.run("held = await loopnb.hold(opened('a')); held").result == "'a'"
    assert "held by In[" in kernel.run("%loopnb tasks").stdout
    kernel.run("await loopnb.release(held)")

    assert kernel.value("said") == ["+a", "-a"]


@pytest.mark.parametrize("cell_id", ["again", ""], ids=["with id", "without id"])
def test_run_again_a_cell_releases_what_it_held(kernel: KernelDriver, cell_id: str) -> None:
    for _ in range(2):
        kernel.run("await loopnb.hold(opened('a'))", cell_id=cell_id)

    assert kernel.value("said") == ["+a", "-a", "+a"]
    kernel.run("loopnb.run(loopnb.release('a'))")


def test_run_again_a_cell_says_what_it_waits_for(kernel: KernelDriver) -> None:
    cell = """
    group = await loopnb.hold(asyncio.TaskGroup(), name="group")
    waits = group.create_task(asyncio.sleep(60))
    """
    kernel.run(cell, cell_id="again")
    again = kernel.start(cell, cell_id="again")
    again.wait_output("waiting for what was held as 'group'")
    kernel.interrupt()
    again.wait()
    kernel.run("earlier = waits")
    kernel.run(cell, cell_id="again")

    assert kernel.value("(earlier.cancelled(), waits.done())") == (True, False)
    kernel.run("_ = waits.cancel()")
    kernel.run("await loopnb.release(group)")


def test_cancelled_by_name_it_is_left_in_order(kernel: KernelDriver) -> None:
    kernel.run("loopnb.run(loopnb.hold(opened('a'), name='mine'))")
    kernel.run("%loopnb cancel mine")
    kernel.run("while len(said) < 2: await asyncio.sleep(0.001)")

    assert kernel.value("said") == ["+a", "-a"]


def test_asyncio_run_does_not_call_it_a_leftover(kernel: KernelDriver) -> None:
    result = kernel.run("asyncio.run(loopnb.hold(opened('a')))")

    assert (result.result, result.stderr) == ("'a'", "")
    kernel.run("await loopnb.release('a')")


def test_what_fails_inside_is_said_in_its_cell(kernel: KernelDriver) -> None:
    cell = kernel.start("group = await loopnb.hold(asyncio.TaskGroup(), name='group')")
    cell.wait()
    kernel.run(
        """
        async def fails(): 1 / 0
        _ = group.create_task(fails())
        """
    )

    cell.wait_late("held as 'group' is gone: ExceptionGroup")
    result = kernel.execute("await loopnb.release(group)")
    assert result.ename == "NotHeldError"


def test_an_interrupt_ends_the_entering(kernel: KernelDriver) -> None:
    kernel.run(
        """
        @asynccontextmanager
        async def slow():
            print("enters", flush=True)
            await asyncio.sleep(60)
            yield
        """
    )
    cell = kernel.start("await loopnb.hold(slow(), name='slow')")
    cell.wait_output("enters")
    kernel.interrupt()

    assert cell.wait().ename in {"CancelledError", "KeyboardInterrupt"}
    assert kernel.value("len(loopnb.tasks().filter(name='slow'))") == 0


def test_the_cancel_scope_error_names_hold(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import anyio
        scope = anyio.create_task_group()
        _ = await asyncio.create_task(scope.__aenter__())
        """
    )
    result = kernel.execute("await scope.__aexit__(None, None, None)")

    assert "loopnb.hold" in result.traceback


def test_shutdown_releases_the_newest_first(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run(MANAGER)
    fresh_kernel.run("for name in 'abc': await loopnb.hold(opened(name))")
    log = fresh_kernel.shutdown()

    left = [line for line in log.splitlines() if line.startswith("left ")]
    assert left == ["left c", "left b", "left a"]
    assert "did not end" not in log
