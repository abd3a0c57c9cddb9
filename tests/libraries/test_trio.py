"""trio's loop, started by anyio inside the notebook's."""

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
