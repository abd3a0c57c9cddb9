"""Loops that are not the notebook's: uvloop's, and those of the kernel's own threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.conftest import needs_subshells

if TYPE_CHECKING:
    from tests.kernel.driver import Comm, KernelDriver

UVLOOP = {
    "uvloop.run": "uvloop.run(kind())",
    "new loop": "uvloop.new_event_loop().run_until_complete(kind())",
    "runner": "asyncio.Runner(loop_factory=uvloop.new_event_loop).run(kind())",
}


@pytest.mark.parametrize("call", UVLOOP.values(), ids=UVLOOP)
@pytest.mark.parametrize("prefix", ["pass", "await asyncio.sleep(0)"], ids=["plain cell", "await cell"])
def test_uvloop_runs_in_a_cell_as_without_a_kernel(kernel: KernelDriver, call: str, prefix: str) -> None:
    kernel.run(
        """
        import asyncio, uvloop
        async def kind():
            return type(asyncio.get_running_loop()).__module__
        """
    )

    kernel.run(
        f"""
        {prefix}
        result = {call}
        """
    )

    assert kernel.value("result") == "uvloop"
    assert kernel.run("await asyncio.sleep(0.01, 'goes on')").result == "'goes on'"


OTHER = {
    "asyncio": "asyncio.new_event_loop().run_until_complete(waits())",
    "uvloop": "uvloop.run(waits())",
}


@pytest.mark.parametrize("call", OTHER.values(), ids=OTHER)
@pytest.mark.parametrize("prefix", ["pass", "await asyncio.sleep(0)"], ids=["plain cell", "await cell"])
def test_an_interrupt_ends_another_loop_and_the_status_names_who_set_the_kernels_aside(
    kernel: KernelDriver, call: str, prefix: str
) -> None:
    kernel.run(
        """
        import asyncio, loopnb, uvloop
        async def waits():
            print(loopnb.status())
            print('waits')
            await asyncio.sleep(60)
        """
    )

    cell = kernel.start(
        f"""
        {prefix}
        {call}
        """
    )
    cell.wait_output("waits")
    kernel.interrupt()

    result = cell.wait()
    assert result.ename in {"KeyboardInterrupt", "CancelledError"}
    assert f"set aside by In[{result.execution_count}], line 2" in result.stdout
    assert kernel.run("asyncio.run(asyncio.sleep(0.01, 'goes on'))").result == "'goes on'"


RUNNERS = {
    "asyncio": "asyncio.Runner(loop_factory=asyncio.new_event_loop).run(tidies())",
    "uvloop": "uvloop.run(tidies())",
}


@pytest.mark.parametrize("call", RUNNERS.values(), ids=RUNNERS)
@pytest.mark.parametrize("prefix", ["pass", "await asyncio.sleep(0)"], ids=["plain cell", "await cell"])
def test_a_runner_with_another_loop_cancels_its_task_when_interrupted(
    kernel: KernelDriver, call: str, prefix: str
) -> None:
    kernel.run(
        """
        import asyncio, uvloop
        async def tidies():
            try:
                print('waits', flush=True)
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(0.001)
                print('tidied')
                raise
        """
    )

    cell = kernel.start(
        f"""
        {prefix}
        {call}
        """
    )
    cell.wait_output("waits")
    kernel.interrupt()

    assert cell.wait().ename == "KeyboardInterrupt"
    assert "tidied" in cell.stdout
    waiting = kernel.start("print('again', flush=True); await asyncio.sleep(60)")
    waiting.wait_output("again")
    kernel.interrupt()
    assert waiting.wait().ename in {"KeyboardInterrupt", "CancelledError"}


@pytest.mark.parametrize("call", ["asyncio.run({})", "asyncio.get_running_loop().run_until_complete({})"])
def test_nesting_inside_uvloop_is_refused_with_a_reason(kernel: KernelDriver, call: str) -> None:
    call = call.format("asyncio.sleep(0)")
    kernel.run(
        f"""
        import asyncio, uvloop
        async def nests():
            {call}
        """
    )

    result = kernel.execute("uvloop.run(nests())")

    assert result.ename == "NestingError"
    assert "uvloop.Loop" in result.evalue
    assert "await" in result.evalue


def test_unloading_takes_uvloops_methods_back(stock_kernel: KernelDriver) -> None:
    stock_kernel.run(
        """
        import uvloop
        before = dict(vars(uvloop.Loop)), uvloop.run.__code__
        """
    )

    stock_kernel.run(
        """
        %load_ext loopnb
        %unload_ext loopnb
        """
    )

    assert stock_kernel.value("dict(vars(uvloop.Loop)) == before[0] and uvloop.run.__code__ is before[1]")


SUBSHELL_CALLS = {"asyncio.run": "asyncio.run(which())", "loopnb.run": "loopnb.run(which())"}


@needs_subshells
@pytest.mark.parametrize("call", SUBSHELL_CALLS.values(), ids=SUBSHELL_CALLS)
def test_a_blocking_call_in_a_subshell_runs_on_the_notebooks_loop(kernel: KernelDriver, call: str) -> None:
    kernel.run(
        """
        import asyncio, loopnb
        main_loop = asyncio.get_running_loop()
        async def which():
            await asyncio.sleep(0.01)
            return asyncio.get_running_loop()
        """
    )
    subshell = kernel.create_subshell()

    cell = kernel.execute(f"print({call} is main_loop)", subshell_id=subshell)

    assert cell.stdout == "True\n"


@needs_subshells
def test_a_subshell_goes_on_with_its_messages_while_a_blocking_call_waits(
    kernel: KernelDriver, clicks: Comm
) -> None:
    subshell = kernel.create_subshell()

    cell = kernel.start(
        "print('waits', flush=True); asyncio.run(asyncio.wait_for(clicked.wait(), 20)); print('clicked')",
        subshell_id=subshell,
    )
    cell.wait_output("waits")
    clicks.send({}, subshell_id=subshell)

    cell.wait().expect_ok()
    assert "clicked" in cell.stdout
