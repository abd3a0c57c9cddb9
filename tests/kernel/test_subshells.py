"""What cells do to the loop of the subshell they run in: it goes on, and so does the notebook's."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cells import below, dedented
from tests.kernel.conftest import assert_quiet, needs_subshells
from tests.kernel.driver import END_WITHIN_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kernel.driver import KernelDriver

pytestmark = needs_subshells


@pytest.fixture
def subshell(kernel: KernelDriver) -> Iterator[str]:
    """Make a subshell of the kernel, and delete it: the kernel stops its loop then."""
    kernel.run("import asyncio")
    subshell_id = kernel.create_subshell()
    yield subshell_id
    kernel.ask("delete_subshell_request", {"subshell_id": subshell_id}, channel="control")
    assert subshell_id not in kernel.ask("list_subshell_request", {}, channel="control")["subshell_id"]


@pytest.mark.parametrize("call", ["stop", "close"])
def test_what_would_end_its_loop_only_warns(kernel: KernelDriver, subshell: str, call: str) -> None:
    cell = kernel.execute(f"asyncio.get_running_loop().{call}()", subshell_id=subshell)

    assert f"In[{cell.execution_count}], line 1: loop.{call}() was ignored" in cell.stderr
    assert kernel.execute("1 + 1", subshell_id=subshell).result == "2"
    assert kernel.value("1 + 1") == 2


def test_a_stop_ends_the_run_that_is_nested_there(kernel: KernelDriver, subshell: str) -> None:
    cell = kernel.execute(
        """
        loop = asyncio.get_running_loop(); loop.call_later(0.05, loop.stop)
        loop.run_until_complete(asyncio.sleep(60))
        """,
        subshell_id=subshell,
    )

    assert (cell.ename, cell.evalue) == ("RuntimeError", "Event loop stopped before Future completed.")
    assert kernel.execute("1 + 1", subshell_id=subshell).result == "2"


def test_run_forever_lasts_until_stop_wherever_that_comes_from(kernel: KernelDriver, subshell: str) -> None:
    forever = """
        there = asyncio.get_running_loop(); there.call_later({})
        print('waits', flush=True)
        there.run_forever(); 'stopped'
        """
    cell = kernel.execute(forever.format("0.05, there.stop"), subshell_id=subshell)
    assert cell.result == "'stopped'"

    waits = kernel.start(forever.format("60, print"), subshell_id=subshell)
    waits.wait_output("waits")
    # No value: ipykernel mixes those up that cells of two threads have at the same time.
    kernel.run("handle = there.call_soon_threadsafe(there.stop)")

    assert waits.wait().result == "'stopped'"


def test_a_stop_from_another_thread_is_no_other(kernel: KernelDriver, subshell: str) -> None:
    kernel.execute("there = asyncio.get_running_loop();", subshell_id=subshell)
    kernel.run("there.stop(); there.close()")
    waits = kernel.start(
        """
        there.call_soon(print, 'waits')  # once it runs
        there.run_forever(); 'stopped'
        """,
        subshell_id=subshell,
    )
    waits.wait_output("waits")
    kernel.execute("there.stop()")

    assert waits.wait().result == "'stopped'"


def test_a_run_forever_after_a_stop_lasts_for_one_pass(kernel: KernelDriver, subshell: str) -> None:
    cell = kernel.execute(
        "loop = asyncio.get_running_loop(); loop.stop(); loop.run_forever(); 'one pass'", subshell_id=subshell
    )

    assert cell.result == "'one pass'"


WAITS = {
    "asyncio.run": "asyncio.run(asyncio.sleep(60))",
    "loopnb.run": "loopnb.run(asyncio.sleep(60))",
    "run_until_complete": "asyncio.get_running_loop().run_until_complete(asyncio.sleep(60))",
    "run_forever": "asyncio.get_running_loop().run_forever()",
    # The kernel has looked for nested runs by then, and has not yet stopped the subshell's loop.
    "a run begun as the kernel begins to end": (
        "time.sleep(0.05); asyncio.get_running_loop().run_until_complete(asyncio.sleep(60))"
    ),
    "a run begun while the kernel ends": "time.sleep(0.3); asyncio.run(asyncio.sleep(60))",
}
ENDS: dict[str, Callable[[KernelDriver], object]] = {
    "shutdown": lambda kernel: kernel.shutdown(),
    "exit()": lambda kernel: kernel.start("exit()"),
    "SIGTERM": lambda kernel: os.kill(kernel.process.pid, signal.SIGTERM),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_subshells_that_wait_keep_no_kernel_from_ending(
    fresh_kernel: KernelDriver, end: Callable[[KernelDriver], object]
) -> None:
    fresh_kernel.run(
        """
        import asyncio, loopnb, signal, time
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, loop.stop)
        """
    )
    subshells = [fresh_kernel.create_subshell() for _ in WAITS]
    for code, subshell in zip(WAITS.values(), subshells, strict=True):
        cell = fresh_kernel.start(below("print('waits', flush=True)", code), subshell_id=subshell)
        cell.wait_output("waits")

    end(fresh_kernel)

    assert fresh_kernel.process.wait(END_WITHIN_S) == 0
    assert_quiet(fresh_kernel.log())


LATE = {
    "blocks": "time.sleep(1.5)",
    "awaits": "await asyncio.sleep(1.5)",
}


@pytest.mark.parametrize("cleanup", LATE.values(), ids=LATE)
def test_a_subshell_whose_cell_ends_late_still_gets_its_output_out(
    fresh_kernel: KernelDriver, cleanup: str
) -> None:
    # ipykernel closes the channel for output before it ends subshells: a cell that printed then waited for
    # ever, or aborted the process.
    fresh_kernel.run(
        f"""
        %config LoopNB.shutdown_grace = 0.1
        import asyncio, time

        async def ends_late():
            print("waits", flush=True)
            try:
                await asyncio.sleep(60)
            finally:
                {cleanup}
                print("late", flush=True)
        """
    )
    subshell = fresh_kernel.create_subshell()
    cell = fresh_kernel.start(
        "asyncio.get_running_loop().run_until_complete(ends_late())", subshell_id=subshell
    )
    cell.wait_output("waits")
    queued = fresh_kernel.start("print('ran')", subshell_id=subshell)

    log = fresh_kernel.shutdown()

    assert fresh_kernel.process.wait(END_WITHIN_S) == 0
    assert "late" in cell.stdout
    assert cell.reply is not None
    assert cell.reply.content["ename"] == "CancelledError"
    assert "ran" not in queued.text
    assert f"what runs in subshell-{subshell} did not end" in log
    assert_quiet(log)


def test_reloading_in_a_subshell_is_refused_and_loses_nothing(kernel: KernelDriver, subshell: str) -> None:
    result = kernel.execute("%reload_ext loopnb", subshell_id=subshell)

    assert "loopnb cannot be unloaded" in result.evalue
    assert kernel.run("asyncio.run(asyncio.sleep(0, 'nests'))").result == "'nests'"


RUNS = {
    "loopnb.run": "loopnb.run(begins())",
    "%aloop": "%aloop begins()",
    "%%aloop": dedented(
        """
        %%aloop
        await begins()
        """
    ),
    "%%aloop -b": dedented(
        """
        %%aloop -b
        await begins()
        """
    ),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("engine", ["off", "nest-asyncio"])
def test_a_run_in_a_subshell_without_an_engine_there_is_refused_before_it_begins(
    kernel: KernelDriver, subshell: str, engine: str, run: str
) -> None:
    kernel.run(
        """
        import loopnb
        begun = []
        async def begins():
            begun.append(True)
            await asyncio.sleep(60)
        """
    )
    kernel.run(f"%loopnb nesting {engine}")

    refused = kernel.execute(run, subshell_id=subshell)
    in_thread = kernel.execute(
        "await asyncio.to_thread(loopnb.run, asyncio.sleep(0, 'in a thread'))", subshell_id=subshell
    )
    kernel.run("await asyncio.sleep(0)")  # the loop turns, and would begin what was sent to it
    kernel.run("%loopnb nesting handoff")

    assert refused.ename == "NestingError"
    assert "'%loopnb nesting handoff'" in refused.evalue
    assert "asyncio.to_thread(loopnb.run, coro)" in refused.evalue
    assert "never awaited" not in refused.stderr
    assert in_thread.result == "'in a thread'"
    assert kernel.value("begun") == []


def test_the_engine_is_chosen_from_a_subshell_for_the_notebooks_loop(
    kernel: KernelDriver, subshell: str
) -> None:
    chosen = kernel.execute("%loopnb nesting off", subshell_id=subshell)
    refused = kernel.execute("asyncio.run(asyncio.sleep(0, 'ran'))")
    kernel.execute("%loopnb nesting handoff", subshell_id=subshell).expect_ok()

    assert "engine  off" in chosen.stdout
    assert refused.ename == "RuntimeError"
    assert kernel.value("asyncio.run(asyncio.sleep(0, 'ran'))") == "ran"
