"""What `%loopnb blocks`, `lag`, `watch`, the status and the lists of tasks say of a blocked loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from loopnb.session import current

if TYPE_CHECKING:
    from tests.shells import Notebook

HOG = """
    import time
    import loopnb
    from loopnb.session import current

    def block():
        watch, end = current().watch, time.monotonic() + 20
        # On a busy machine any other step may last long enough, too.
        while (seen := watch.current()) is None or (seen.function, seen.how) != ('block', 'sleep'):
            assert time.monotonic() < end
            time.sleep(0.01)

    async def hog():
        block()

    async def over():
        import asyncio
        while not [b for b in current().watch.blocks() if b.function == 'block' and b.is_over]:
            await asyncio.sleep(0.01)
    """


@pytest.fixture
def hogging(notebook: Notebook) -> Notebook:
    """Lend a notebook in which 0.1 s are a block, and `hog()` is one."""
    notebook.run("%config LoopNB.blocked_after = 0.1")
    notebook.run(HOG)
    return notebook


def out(notebook: Notebook, capsys: pytest.CaptureFixture[str], code: str) -> str:
    """Run a cell and return what it printed."""
    capsys.readouterr()
    notebook.run(code)
    return capsys.readouterr().out


def test_nothing_has_blocked_yet(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.run("%config LoopNB.blocked_after = 1000")

    assert out(notebook, capsys, "%loopnb blocks") == "Nothing has blocked the loop.\n"


def test_a_task_that_blocks_is_named_everywhere(
    hogging: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    hogging.run(
        """
        task = loopnb.spawn(hog(), name="hog")
        await task
        await over()
        """
    )
    (block,) = [block for block in current().watch.blocks() if block.by == "task"]
    count = hogging.shell.execution_count - 1

    blocks = out(hogging, capsys, "%loopnb blocks")
    assert f"'hog' of In[{count}] blocked the loop" in blocks
    assert "sleeps in time.sleep() at block() In[" in blocks
    assert "instead: use `await asyncio.sleep(...)`" in blocks
    assert f"{block.place}, once" in blocks
    assert f"'hog' of In[{count}] blocked the loop" in out(hogging, capsys, "%loopnb")
    assert "blocked the loop 0." in out(hogging, capsys, "%loopnb where hog")
    assert "blocked the loop 0." in out(hogging, capsys, "%loopnb tasks --finished")
    hogging.run("(row,) = loopnb.tasks(finished=True).filter(name='hog')")
    assert hogging.value("row").blocked_s == block.lasted_s


def test_a_cell_that_blocks_is_a_notice_without_advice(
    hogging: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    hogging.run("block()")
    count = hogging.shell.execution_count - 1
    hogging.run("await over()")

    blocks = out(hogging, capsys, "%loopnb blocks")
    assert f"  In[{count}] blocked the loop" in blocks
    assert "instead: use `await asyncio.sleep" not in blocks


def test_lag_has_percentiles_and_shares(hogging: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    hogging.run(
        """
        import asyncio
        while current().watch.pace().total.count < 4 or current().watch.pace().shares is None:
            await asyncio.sleep(0.01)
        """
    )
    text = out(hogging, capsys, "%loopnb lag")

    assert text.splitlines()[0].split() == ["lag", "p50", "p99", "max"]
    assert "last 60 s" in text
    assert "your code" in text
    assert "'%loopnb watch on' counts them" in text


def test_watch_says_its_price_and_who_was_busy(hogging: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Nothing has been sampled" in out(hogging, capsys, "%loopnb watch")
    assert "up to 1 %" in out(hogging, capsys, "%loopnb watch on")
    hogging.run(
        """
        async def work():
            while not any("worker" in row.name for row in current().watch.busy().tasks):
                sum(range(10_000))
                await asyncio.sleep(0)
        import asyncio
        await loopnb.spawn(work(), name="worker")
        """
    )

    assert "per second" in out(hogging, capsys, "%loopnb lag")
    text = out(hogging, capsys, "%loopnb watch off")
    assert "'worker'" in text
    assert " work\n" in text
    assert not current().watch.is_busy_watched
    assert "'worker'" in out(hogging, capsys, "%loopnb watch")


@pytest.mark.parametrize("line", ["blocks all", "lag 5", "watch maybe"])
def test_bad_input_is_told(notebook: Notebook, line: str) -> None:
    error = notebook.error(f"%loopnb {line}")

    assert "takes" in str(error)


def test_switched_off_it_says_so(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.run("%config LoopNB.blocked_after = 0")

    assert not current().watch.is_on
    assert "LoopNB.blocked_after is 0" in out(notebook, capsys, "%loopnb blocks")
    assert "LoopNB.blocked_after is 0" in out(notebook, capsys, "%loopnb lag")
    assert "LoopNB.blocked_after is 0" in str(notebook.error("%loopnb watch on"))
    notebook.run("%config LoopNB.blocked_after = 0.5")
    assert current().watch.is_on
