"""A kernel whose own loop is uvloop's: it cannot nest, and says so; everything else works."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.cells import dedented
from tests.kernel.conftest import assert_quiet
from tests.kernel.driver import KernelDriver

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("uvloop", reason="uvloop is not installed")

TICKER = dedented(
    """
    async def tick():
        while True:
            ticks.append(1)
            await asyncio.sleep(0.01)
    """
)


@pytest.fixture(scope="module")
def uv(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelDriver]:
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "sitecustomize.py").write_text("import uvloop\nuvloop.install()\n")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    with KernelDriver(folder, env={"PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}) as kernel:
        kernel.run(
            """
            %load_ext loopnb
            import asyncio, loopnb
            ticks = []
            """
        )
        kernel.run(TICKER)
        assert kernel.value("type(asyncio.get_running_loop()).__module__") == "uvloop"
        yield kernel


def test_a_blocking_call_says_why_not_and_what_to_do(uv: KernelDriver) -> None:
    result = uv.execute("asyncio.run(asyncio.sleep(0))")

    assert result.ename == "NestingError"
    assert "uvloop.Loop" in result.evalue
    assert "await" in result.evalue
    assert "loopnb/" not in result.traceback


def test_cells_run_on_the_loop_as_tasks(uv: KernelDriver) -> None:
    result = uv.run(
        """
        %%aloop -n named -t 5 -o out
        await asyncio.sleep(0.01)
        6 * 7
        """
    )

    assert result.result == "42"
    assert uv.value("out") == 42
    uv.run(
        """
        %%aloop -b -n later -o handle
        await asyncio.sleep(0.01)
        'later'
        """
    )
    assert uv.run("await handle").result == "'later'"


def test_a_line_begins_a_background_task(uv: KernelDriver) -> None:
    uv.run("%aloop -b -n line -o handle asyncio.sleep(0.01, 'line')")

    assert uv.run("await handle").result == "'line'"


@pytest.mark.parametrize("line", ["%aloop asyncio.sleep(0)", "%aloop -b -n taken --replace asyncio.sleep(0)"])
def test_a_line_that_would_have_to_nest_says_what_to_do(uv: KernelDriver, line: str) -> None:
    uv.run("taken = asyncio.create_task(asyncio.sleep(60), name='taken')")

    result = uv.execute(line)

    assert uv.value("taken.cancel()"), "nothing was lost"

    assert result.ename == "NestingError"
    assert "uvloop.Loop" in result.evalue
    assert "a plain %%aloop cell." in result.evalue


@pytest.mark.parametrize("make_loop", ["asyncio.SelectorEventLoop", "uvloop.new_event_loop"])
def test_what_belongs_to_a_closed_loop_says_where_it_was_closed(uv: KernelDriver, make_loop: str) -> None:
    closing = uv.run(
        f"""
        import uvloop
        loop = {make_loop}()
        left = loop.create_future()
        loop.close()
        """
    )
    place = f"closed at In[{closing.execution_count}], line 4."

    assert place in uv.execute("await left").traceback
    assert place in uv.execute("loop.call_soon(print)").traceback


def test_background_tasks_are_listed_traced_and_cancelled(uv: KernelDriver) -> None:
    uv.run(
        """
        %%aloop -b -n feed
        await tick()
        """
    )
    uv.run("plain = asyncio.create_task(tick(), name='plain'); await asyncio.sleep(0.05)")

    listed = uv.run("%loopnb tasks").stdout
    assert "feed" in listed
    assert "plain" in listed
    assert "tick()" in uv.run("%loopnb where feed").stdout
    uv.run("%loopnb cancel feed")
    uv.run("%loopnb cancel plain")
    uv.run("await asyncio.wait([plain])")
    assert "No live tasks" in uv.run("%loopnb tasks").stdout


def test_an_interrupt_ends_an_await_and_nothing_else(uv: KernelDriver) -> None:
    uv.run(
        """
        %%aloop -b -n lives
        await tick()
        """
    )
    cell = uv.start(
        """
        print('waits', flush=True)
        await asyncio.sleep(60)
        """
    )
    cell.wait_output("waits")

    uv.interrupt()

    assert cell.wait().ename in {"CancelledError", "KeyboardInterrupt"}
    uv.run(
        """
        before = len(ticks)
        while len(ticks) < before + 3: await asyncio.sleep(0.01)
        """
    )
    uv.run("%loopnb cancel lives")


def test_the_status_and_the_widget_show_the_loop(uv: KernelDriver) -> None:
    assert "Loop" in uv.run("%loopnb").stdout
    assert "uvloop" in uv.run("%loopnb nesting").stdout
    assert uv.run("loopnb.show()").widget_id


def test_a_thread_submits(uv: KernelDriver) -> None:
    assert uv.run("await asyncio.to_thread(loopnb.run, asyncio.sleep(0.01, 'done'))").result == "'done'"


def test_who_blocks_the_loop_is_named(uv: KernelDriver) -> None:
    uv.run("%config LoopNB.blocked_after = 0.1")
    uv.run(
        """
        import time
        from loopnb.session import current

        def block(by):
            # A look may take the frames, and the task only when this step has ended: one look is not enough.
            watch, end = current().watch, time.monotonic() + 20
            while (seen := watch.current()) is None or (seen.by, seen.function) != (by, 'block'):
                assert time.monotonic() < end
                time.sleep(0.01)
            time.sleep(0.3)

        async def hog():
            block('task')

        async def found(by):
            # On a busy machine any other step may last long enough, too.
            def mine(block): return (block.by, block.function) == (by, 'block')
            while not (blocks := [*filter(mine, current().watch.blocks())]):
                await asyncio.sleep(0.01)
            return blocks[-1]
        """
    )
    uv.run("block('cell')")
    number = uv.value("get_ipython().execution_count - 1")
    uv.run("cell = await found('cell')")
    uv.run("await asyncio.create_task(hog(), name='hog')")
    uv.run("task = await found('task')")

    assert uv.value("(cell.name, cell.how)") == (f"In[{number}]", "sleep")
    assert uv.value("(task.name.split()[-1], task.how)") == ("'hog'", "sleep")


def test_unloading_and_the_end_leave_nothing(uv: KernelDriver) -> None:
    uv.run(
        """
        loop = asyncio.get_running_loop()
        %unload_ext loopnb
        stock = asyncio.run.__code__.co_filename
        """
    )
    assert "loopnb" not in uv.value("stock")
    uv.run("%load_ext loopnb")
    uv.run(
        """
        %%aloop -b -n ends
        try:
            await tick()
        finally:
            print('cleaned up')
        """
    )

    assert_quiet(uv.shutdown())
