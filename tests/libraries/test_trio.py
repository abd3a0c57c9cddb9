"""trio's loop inside the notebook's: started by anyio, by IPython, by a cell; and interrupted there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import sniffio

from loopnb import nesting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.driver import KernelDriver


@pytest.fixture
def _nested() -> Iterator[None]:
    nesting.apply()
    yield
    nesting.remove()


async def on_trio() -> str:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0.001)
    return str(sniffio.current_async_library())


@pytest.mark.usefixtures("_nested")
@pytest.mark.parametrize(
    "start", [asyncio.run, lambda coro: anyio.run(lambda: coro)], ids=["asyncio", "anyio"]
)
def test_anyio_runs_trio_inside_a_running_loop(start: Any) -> None:
    async def main() -> tuple[str, str]:
        ran = anyio.run(on_trio, backend="trio")
        await asyncio.sleep(0)  # the loop goes on
        return ran, sniffio.current_async_library()

    assert start(main()) == ("trio", "asyncio")


@pytest.mark.usefixtures("_nested")
def test_trio_inside_trio_is_refused_as_ever() -> None:
    async def again() -> None:
        anyio.run(on_trio, backend="trio")

    async def main() -> None:
        anyio.run(again, backend="trio")

    with pytest.raises(RuntimeError, match="Already running trio"):
        asyncio.run(main())


def test_a_cell_runs_trio_and_later_cells_go_on(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import anyio, asyncio, sniffio
        async def f():
            await anyio.sleep(0.001)
            return sniffio.current_async_library()
        """
    )
    assert kernel.value("anyio.run(f, backend='trio')") == "trio"
    assert kernel.run("await f()").result == "'asyncio'"
    assert (
        kernel.run(
            "async def g(): return anyio.run(f, backend='trio')\nawait asyncio.create_task(g())"
        ).result
        == "'trio'"
    )


@pytest.fixture
def trio_kernel(kernel: KernelDriver) -> Iterator[KernelDriver]:
    """A kernel in which `waits()` waits on trio, and says so."""
    kernel.run(
        """
        import asyncio, trio
        async def waits():
            print('waits')  # unflushed: see WAITS in tests/kernel/test_interrupts.py
            await trio.sleep(60)
        async def starts():
            await asyncio.sleep(0)
            trio.run(waits)
        """
    )
    yield kernel
    kernel.run("%autoawait asyncio")


def assert_trio_and_loop_go_on(kernel: KernelDriver) -> None:
    assert kernel.run("trio.run(trio.sleep, 0) or 'goes on'").result == "'goes on'"
    assert kernel.run("await asyncio.sleep(0, 'goes on')").result == "'goes on'"


def test_a_cell_that_ipython_awaits_on_trio_is_interrupted(trio_kernel: KernelDriver) -> None:
    trio_kernel.run("%autoawait trio")
    cell = trio_kernel.start("await waits()")
    cell.wait_output("waits")
    trio_kernel.interrupt()

    assert cell.wait().ename == "KeyboardInterrupt"
    assert trio_kernel.run("await trio.sleep(0) or 'goes on'").result == "'goes on'"
    trio_kernel.run("%autoawait asyncio")
    assert_trio_and_loop_go_on(trio_kernel)


@pytest.mark.parametrize(
    "code",
    [
        "trio.run(waits)",
        "await starts()",
        "await asyncio.create_task(starts())",
        "asyncio.run(starts())",
        "%aloop starts()",
    ],
)
def test_an_interrupt_ends_trio_where_trio_expects_it(trio_kernel: KernelDriver, code: str) -> None:
    cell = trio_kernel.start(code)
    cell.wait_output("waits")
    trio_kernel.interrupt()

    assert cell.wait().ename == "KeyboardInterrupt"
    assert_trio_and_loop_go_on(trio_kernel)


def test_an_interrupt_ends_trio_that_a_background_task_blocks_the_loop_with(
    trio_kernel: KernelDriver,
) -> None:
    trio_kernel.run("begun = asyncio.Event()")
    background = trio_kernel.start(
        """
        %%aloop -b
        await asyncio.wait_for(begun.wait(), 20)
        trio.run(waits)
        """
    )
    cell = trio_kernel.start("begun.set(); await asyncio.sleep(60)")
    background.wait_output("waits")
    trio_kernel.interrupt()
    background.wait_late("KeyboardInterrupt")
    trio_kernel.interrupt()

    assert cell.wait().ename == "CancelledError"
    assert_trio_and_loop_go_on(trio_kernel)
