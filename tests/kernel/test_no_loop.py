"""`%%noloop` and `with loopnb.noloop():` in cells of a real kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cells import dedented

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver

#: What asks whether a loop runs, and refuses; and a coroutine.
LIBRARY = dedented(
    """
    import asyncio, loopnb
    async def answer():
        await asyncio.sleep(0.01)
        return 42
    def run_sync():
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            loop = asyncio.get_event_loop_policy().get_event_loop()
            return loop.run_until_complete(answer())
        raise RuntimeError("Runner.run_sync() cannot be called when an event loop is already running.")
    """
)


@pytest.fixture(autouse=True)
def _library(kernel: KernelDriver) -> None:
    kernel.run(LIBRARY)


def test_a_library_that_refuses_works_below_the_magic(kernel: KernelDriver) -> None:
    assert (
        kernel.run(
            """
        %%noloop
        run_sync()
        """
        ).result
        == "42"
    )


def test_its_refusal_names_the_magic(kernel: KernelDriver) -> None:
    reply = kernel.execute("run_sync()")

    assert "%%noloop" in reply.traceback


def test_background_tasks_go_on_and_see_the_loop(kernel: KernelDriver) -> None:
    kernel.run(
        """
        %%aloop -b -n ticker
        seen = set()
        while True:
            seen.add(asyncio.get_running_loop() is asyncio.current_task().get_loop())
            await asyncio.sleep(0.001)
        """
    )
    kernel.run("seen.clear()")
    kernel.run(
        """
        %%noloop
        run_sync(); inside = set(seen)
        """
    )

    assert kernel.value("inside, seen") == ({True}, {True})
    kernel.run("%loopnb cancel ticker")


def test_a_block_in_an_await_cell(kernel: KernelDriver) -> None:
    kernel.run(
        """
        await asyncio.sleep(0)
        with loopnb.noloop():
            found = run_sync(), loopnb.run(answer())
        await asyncio.sleep(0)
        """
    )

    assert kernel.value("found") == (42, 42)


def test_line_magics_work_below_it(kernel: KernelDriver) -> None:
    assert (
        kernel.run(
            """
        %%noloop
        %aloop answer()
        """
        ).result
        == "42"
    )


def test_tasks_spawned_below_it_are_tracked_with_their_cell(kernel: KernelDriver) -> None:
    kernel.run(
        """
        %%noloop
        async def spawns():
            global left
            left = asyncio.create_task(asyncio.sleep(9), name="left")
        asyncio.run(spawns())
        """
    )
    kernel.run("found = loopnb.tasks().filter(name='left')[0].cell; left.cancel()")

    assert kernel.value("found.execution_count == get_ipython().execution_count - 2")


@pytest.mark.parametrize(
    "waits", ["asyncio.run(asyncio.sleep(60))", "[__import__('time').sleep(0.1) for _ in range(600)]"]
)
def test_an_interrupt_ends_the_cell(kernel: KernelDriver, waits: str) -> None:
    cell = kernel.start(
        f"""
        %%noloop
        print("waits")
        {waits}
        """
    )
    cell.wait_output("waits")
    kernel.interrupt()

    assert cell.wait().ename == "KeyboardInterrupt"
    assert kernel.run("await answer()").result == "42"


@pytest.mark.parametrize(
    "opens",
    [
        "block.__enter__()",
        """
        await asyncio.sleep(0)
        block.__enter__()
        """,
        """
        %%aloop
        await asyncio.sleep(0)
        block.__enter__()
        """,
    ],
    ids=["plain", "await", "%%aloop"],
)
def test_a_block_that_is_never_left_ends_with_its_cell(kernel: KernelDriver, opens: str) -> None:
    kernel.run("block = loopnb.noloop()")
    kernel.run(opens)

    assert kernel.run("asyncio.get_running_loop().is_running()").result == "True"
    kernel.run("block.__exit__(None, None, None)")
    assert kernel.run("await answer()").result == "42"


@pytest.mark.parametrize(
    "waits",
    [
        "asyncio.run_coroutine_threadsafe(answer(), loop).result(30)",
        "loop.call_later(0.01, loop.stop); loop.run_forever(); 42",
    ],
)
def test_other_ways_to_wait_for_the_loop_nest_below_it(kernel: KernelDriver, waits: str) -> None:
    kernel.run("loop = asyncio.get_running_loop()")
    result = kernel.run(
        f"""
        %%noloop
        {waits}
        """
    )

    assert result.result == "42"


def test_loopnb_can_be_loaded_again_below_it(kernel: KernelDriver) -> None:
    kernel.run(
        """
        %%noloop
        %reload_ext loopnb
        """
    )

    assert kernel.run("asyncio.run(answer())").result == "42"


def test_an_await_is_refused_before_anything_runs(kernel: KernelDriver) -> None:
    kernel.run("ran = False")
    reply = kernel.execute(
        """
        %%noloop
        ran = True
        await answer()
        """
    )

    assert reply.ename == "UsageError"
    assert kernel.value("ran") is False


def test_an_error_shows_the_users_frames_alone(kernel: KernelDriver) -> None:
    reply = kernel.execute(
        """
        %%noloop
        1 / 0
        """
    )
    text = reply.traceback

    assert reply.ename == "ZeroDivisionError"
    assert "source.py" not in text
    assert "no_loop.py" not in text


def test_the_traceback_of_an_error_begins_with_the_magic(kernel: KernelDriver) -> None:
    reply = kernel.execute(
        """
        %%noloop
        x = 1
        1 / x.imag
        """
    )

    assert reply.ename == "ZeroDivisionError"
    assert "# %%noloop" in reply.traceback
    assert reply.traceback.count("1 / x.imag") == 2
