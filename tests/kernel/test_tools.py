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


BELOW_C = {
    "sorted": ("sorted([1, 3, 2], key=nested)", "[3, 2, 1]"),
    "lru_cache": ("__import__('functools').lru_cache(nested)(3)", "-3"),
    "map": ("list(map(nested, range(3)))", "[0, -1, -2]"),
    "pandas": ("__import__('pandas').Series([1, 2]).apply(nested).tolist()", "[-1, -2]"),
    "ctypes": (
        dedented(
            """
            import ctypes
            ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(nested)(5)
            """
        ),
        "-5",
    ),
    "re.sub": (
        dedented(
            """
            import re
            re.sub('[0-9]', lambda m: str(nested(int(m[0]))), 'a1b2')
            """
        ),
        "'a-1b-2'",
    ),
}


@pytest.mark.parametrize(("code", "result"), BELOW_C.values(), ids=BELOW_C)
def test_a_nested_run_below_c_frames_works(kernel: KernelDriver, code: str, result: str) -> None:
    assert kernel.run(code).result == result


def test_nested_runs_below_c_frames_end_in_any_order(kernel: KernelDriver) -> None:
    kernel.run(
        """
        ended = []
        async def work(delay):
            await asyncio.sleep(delay)
            ended.append(delay)
        def wait(delay):
            asyncio.run(work(delay))
            return delay
        async def sorts(delay): sorted([delay], key=wait)
        await asyncio.gather(sorts(0.1), sorts(0.4), sorts(0.2))
        """
    )

    assert kernel.value("ended") == [0.1, 0.2, 0.4]


@pytest.mark.parametrize("magic", ["%prun -q nested(1)", "%timeit -n2 -r1 nested(1)", "%time nested(1)"])
def test_nested_runs_work_under_ipythons_tools(kernel: KernelDriver, magic: str) -> None:
    kernel.run(magic)

    assert kernel.run("nested(2)").result == "-2"


def test_the_profile_of_a_nested_run_has_the_callers_time(kernel: KernelDriver) -> None:
    kernel.run(
        """
        def caller():
            asyncio.run(asyncio.sleep(0.2))
        stats = get_ipython().run_line_magic('prun', '-q -r caller()').stats
        spent = [values[3] for key, values in stats.items() if key[2] == 'caller'][0]
        """
    )

    assert 0.2 <= kernel.value("spent") < 0.4


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
