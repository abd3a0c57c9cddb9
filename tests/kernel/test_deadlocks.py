"""A caller that holds a lock which the nested coroutine needs: it can be ended, and is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver

SETUP = """\
import asyncio, loopnb
lock = asyncio.Lock()
seen = []

async def needs():
    async with lock:
        return 1

async def look():
    while not (text := loopnb.status().detail):
        await asyncio.sleep(0.01)
    seen.append(text)
    print('seen', flush=True)

class Owner:
    def __init__(self):
        self.inner = lock

    async def hold(self):
        async with asyncio.timeout(10), self.inner:
            asyncio.run(needs())
"""


@pytest.fixture
def names(kernel: KernelDriver) -> KernelDriver:
    """A kernel in which the definitions of `SETUP` were run."""
    kernel.run(SETUP)
    return kernel


def test_a_cells_deadlock_is_named_and_ends_with_an_interrupt(names: KernelDriver) -> None:
    cell = names.start(
        """
        looks = asyncio.create_task(look())
        async with lock:
            print('held')
            asyncio.run(needs())
        """
    )
    cell.wait_output("seen")
    names.interrupt()
    assert cell.wait().ename in {"KeyboardInterrupt", "CancelledError"}

    (text,) = names.value("seen")
    assert text.startswith("deadlock: the cell holds a Lock since In[")
    assert ", line 2 and waits in a nested run for task" in text
    assert names.value("lock.locked()") is False


def test_a_tasks_deadlock_is_named_and_ends_with_its_timeout(names: KernelDriver) -> None:
    names.run("looks = asyncio.create_task(look())")
    names.run("holder = asyncio.create_task(Owner().hold(), name='keeper')")
    names.run("while not seen: await asyncio.sleep(0.01)")
    assert "'keeper'" in names.run("%loopnb").stdout

    names.run("holder.cancel(); await asyncio.wait([holder])")
    assert names.value("lock.locked()") is False
    assert "deadlock" not in names.run("%loopnb").stdout


def test_a_lock_that_somebody_else_holds_is_no_deadlock(names: KernelDriver) -> None:
    names.run(
        """
        async def other():
            async with lock:
                await asyncio.sleep(0.2)
        async def tell():
            await asyncio.sleep(0.05)
            return loopnb.status().detail
        """
    )
    names.run("o = asyncio.create_task(other()); t = asyncio.create_task(tell()); asyncio.run(needs())")

    assert names.value("t.result()") == ""
