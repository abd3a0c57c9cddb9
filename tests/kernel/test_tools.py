"""Nested runs below C code, under IPython's tools, and from libraries with greenlets of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cells import dedented

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver


@pytest.fixture(autouse=True)
def functions(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio
        async def negative(x):
            await asyncio.sleep(0.001)
            return -x
        def nested(x):
            return asyncio.run(negative(x))
        """
    )


def test_a_nested_run_below_pandas_works(kernel: KernelDriver) -> None:
    code = "__import__('pandas').Series([1, 2]).apply(nested).tolist()"

    assert kernel.run(code).result == "[-1, -2]"


@pytest.mark.parametrize("magic", ["%prun -q nested(1)", "%timeit -n2 -r1 nested(1)", "%time nested(1)"])
def test_nested_runs_work_under_ipythons_tools(kernel: KernelDriver, magic: str) -> None:
    kernel.run(magic)

    assert kernel.run("nested(2)").result == "-2"


def test_anyio_runs_inside_a_cell(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import anyio
        async def main():
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 0.01)
            return await anyio.to_thread.run_sync(lambda: 'from a thread')
        """
    )

    assert kernel.run("anyio.run(main)").result == "'from a thread'"
    assert kernel.run("asyncio.run(main())").result == "'from a thread'"


def test_subprocesses_and_threads_work_in_nested_runs(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import sys
        async def child():
            process = await asyncio.create_subprocess_exec(sys.executable, '-c', 'print(7)', stdout=-1)
            return (await process.communicate())[0]
        """
    )

    assert "7" in kernel.run("asyncio.run(child())").result
    assert kernel.run("asyncio.run(asyncio.to_thread(lambda: 8))").result == "8"


@pytest.mark.parametrize(
    "place",
    [
        "{}",
        dedented(
            """
            async def task():
                {}
            asyncio.run(task())
            """
        ),
    ],
    ids=["cell", "task"],
)
def test_playwrights_sync_api_refuses_with_its_reason_and_harms_nothing(
    kernel: KernelDriver, place: str
) -> None:
    kernel.run("from playwright.sync_api import sync_playwright")

    result = kernel.execute(place.format("sync_playwright().start()"))

    assert result.ename == "Error"
    assert "Please use the Async API instead" in result.evalue
    assert kernel.run("nested(2)").result == "-2"


def test_a_debugger_lands_in_the_users_frame(kernel: KernelDriver) -> None:
    kernel.run(
        """
        async def fails(wanted):
            raise ValueError(wanted)
        """
    )
    kernel.execute("asyncio.run(fails('seen'))")

    kernel.run(
        """
        import sys, traceback
        tb = sys.last_value.__traceback__
        frames = [frame.name for frame in traceback.extract_tb(tb)]
        while tb.tb_next: tb = tb.tb_next
        wanted = tb.tb_frame.f_locals['wanted']
        """
    )

    assert kernel.value("wanted") == "seen"
    assert kernel.value("frames")[-1] == "fails"
    assert not {"wait", "_park", "run_nested"} & set(kernel.value("frames"))
