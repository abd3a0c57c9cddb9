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
"""


@pytest.fixture
def names(kernel: KernelDriver) -> KernelDriver:
    """A kernel in which the definitions of `SETUP` were run."""
    kernel.run(SETUP)
    return kernel


@pytest.fixture
def hasty(names: KernelDriver) -> KernelDriver:
    """The same kernel, which looks at a cell after two tenths of a second and not after one or two."""
    names.run(
        """
        from loopnb.shell import hung_cells
        hung_cells._FIRST_S = hung_cells._NEXT_S = 0.2
        """
    )
    return names


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
    assert text.startswith("deadlock: the cell waits in a nested run for task")
    assert "needs the Lock lock that the cell holds at In[" in text
    assert ", line 4; interrupt the cell" in text
    assert names.value("lock.locked()") is False


@pytest.mark.parametrize(
    "widgets", ["", "import ipywidgets; button, shown = ipywidgets.Button(), loopnb.widget()"]
)
def test_a_cell_that_waits_for_a_queue_which_nobody_fills_is_named(names: KernelDriver, widgets: str) -> None:
    names.run(widgets)
    cell = names.start(
        """
        looks = asyncio.create_task(look())
        jobs = asyncio.Queue()
        await jobs.get()
        """
    )
    cell.wait_output("seen")
    names.interrupt()
    cell.wait()

    (text,) = names.value("seen")
    start, _where, _line = text.partition(" (at In[")
    assert start == "nothing on this loop can wake this task: the cell waits for Queue.get of jobs"


def test_a_cell_that_waits_for_what_a_task_does_later_is_left_in_peace(names: KernelDriver) -> None:
    names.run(
        """
        async def fill():
            await asyncio.sleep(1)
            jobs.put_nowait(loopnb.status().detail)
        jobs = asyncio.Queue()
        """
    )
    result = names.run(
        """
        filler = asyncio.create_task(fill())
        looks = asyncio.create_task(look())
        await jobs.get()
        """
    )
    names.run("looks.cancel();")
    assert result.result == "''"
    assert names.value("seen") == []


def test_a_cell_that_can_never_go_on_says_so_by_itself(hasty: KernelDriver) -> None:
    for code, text in HUNG.items():
        cell = hasty.start(code)
        line = cell.wait_output("LoopNB.on_deadlock")
        hasty.interrupt()
        cell.wait()

        assert text in line
        assert line.count("on_deadlock") == 1


HUNG = {
    """
    async with lock:
        asyncio.run(needs())
    """: "loopnb: deadlock: the cell waits in a nested run for task",
    """
    async def takes(first, second):
        async with first:
            await asyncio.sleep(0)
            async with second:
                pass
    other = asyncio.Lock()
    await asyncio.gather(takes(lock, other), takes(other, lock))
    """: "loopnb: deadlock: task",
    """
    jobs = asyncio.Queue()
    await jobs.get()
    """: "nothing on this loop can wake this task: the cell waits for Queue.get of jobs",
    """
    async def work(jobs):
        await jobs.get()
    await asyncio.gather(work(asyncio.Queue()), work(asyncio.Queue()))
    """: "nothing on this loop can wake this task: task",
    """
    class Crew:
        def __init__(self):
            self.errands = asyncio.Queue()
        async def work(self):
            await self.errands.get()
    crew = Crew()
    await crew.work()
    """: "nothing on this loop can wake this task: the cell waits for Queue.get of self.errands",
}


def test_a_cell_whose_wait_ends_by_itself_or_by_code_that_nobody_sees_says_nothing(
    hasty: KernelDriver,
) -> None:
    hasty.run("import threading")
    for code in HEALTHY:
        ended = hasty.run(code)

        assert "deadlock" not in ended.stderr
        assert "nothing on this loop" not in ended.stderr


HEALTHY = [
    "await asyncio.sleep(0.8)",
    """
    jobs = asyncio.Queue()
    asyncio.get_running_loop().call_later(0.8, jobs.put_nowait, 1)
    await jobs.get()
    """,
    """
    jobs = asyncio.Queue()
    loop = asyncio.get_running_loop()
    threading.Timer(0.8, loop.call_soon_threadsafe, [jobs.put_nowait, 1]).start()
    await jobs.get()
    """,
]


def test_the_setting_keeps_a_hung_cell_quiet(hasty: KernelDriver) -> None:
    hasty.run("%config LoopNB.on_deadlock = 'keep'")
    cell = hasty.start(
        """
        jobs = asyncio.Queue()
        asyncio.get_running_loop().call_later(0.8, print, "told")
        await jobs.get()
        """
    )
    cell.wait_output("told")
    hasty.interrupt()
    ended = cell.wait()
    hasty.run("%config LoopNB.on_deadlock = 'tell'")

    assert "nothing on this loop" not in ended.stderr
