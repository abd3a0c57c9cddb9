"""A caller that holds a lock which the nested coroutine needs is named; `tests/kernel` interrupts one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.shells import Notebook

SETUP = """
lock = asyncio.Lock()
async def needs():
    async with lock:
        return 1
async def look():
    while not loopnb.status().detail:
        await asyncio.sleep(0)
class Owner:
    def __init__(self):
        self.inner = lock
    async def hold(self):
        async with self.inner:
            asyncio.run(needs())
"""


@pytest.fixture
def names(notebook: Notebook) -> Notebook:
    """A notebook in which the definitions of `SETUP` were run."""
    notebook.run(SETUP)
    return notebook


def test_a_tasks_deadlock_is_named_and_ends_with_it(
    names: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    names.run("holder = asyncio.create_task(Owner().hold(), name='keeper')")
    names.run("await look()")
    names.run("%loopnb")
    shown = capsys.readouterr().out
    assert "deadlock: " in shown
    assert "'keeper'" in shown

    names.run("holder.cancel(); await asyncio.wait([holder])")
    names.run("%loopnb")
    assert names.value("holder").cancelled()
    assert names.value("lock").locked() is False
    assert "deadlock" not in capsys.readouterr().out


def test_a_lock_that_somebody_else_holds_is_no_deadlock(names: Notebook) -> None:
    names.run(
        """
        told = asyncio.Event()
        async def other():
            async with lock:
                await told.wait()
        async def tell():
            await asyncio.sleep(0)
            needing = [task for task in loopnb.tasks() if task.coro == 'needs']
            told.set()
            return loopnb.status().detail, [task.state for task in needing], lock.locked()
        """
    )
    names.run(
        """
        o = asyncio.create_task(other())
        await asyncio.sleep(0)
        t = asyncio.create_task(tell())
        asyncio.run(needs())
        """
    )

    assert names.value("t").result() == ("", ["waiting"], True)


@pytest.mark.parametrize("command", ["cancel t1", "cancel --all"])
@pytest.mark.parametrize("wait", ["others[index]", "asyncio.gather(others[index])"])
def test_what_the_doctor_says_ends_a_circle_of_tasks(notebook: Notebook, wait: str, command: str) -> None:
    """`task.cancel()` goes round such a circle, and raises RecursionError."""
    notebook.run(
        f"""
        import asyncio, loopnb
        async def wait_for(index):
            await asyncio.sleep(0)
            await {wait}
        others = [asyncio.create_task(wait_for(index), name=f"t{{index}}") for index in (1, 2, 0)]
        while not (found := loopnb.diagnose()):
            await asyncio.sleep(0)
        """
    )
    assert [finding.code for finding in notebook.value("found")] == ["deadlock"]
    assert "'%loopnb cancel " in notebook.value("found")[0].remedy

    notebook.run(f"%loopnb {command}")
    notebook.run("ended, left = await asyncio.wait(others, timeout=20)")

    assert not notebook.value("left")
    assert all(task.cancelled() for task in notebook.value("ended"))
    notebook.run("found = loopnb.diagnose()")
    assert notebook.value("found") == []
