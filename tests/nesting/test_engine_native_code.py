"""Native code below a nested run that keeps a stack of its own, and insists on an order of returns."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from tests.processes import run_script

if TYPE_CHECKING:
    from collections.abc import Callable

# pybind11 keeps the calls into an extension on a stack of its own, per thread; optree is such an extension.
BELOW_PYBIND11 = """
import asyncio, sys
import loopnb.nesting, optree
loopnb.nesting.apply(order=sys.argv[1])
_, tree = optree.tree_flatten([0, 0])

def wait(delay):
    asyncio.run(asyncio.sleep(delay))
    return delay

async def task(delay):
    await asyncio.sleep(0)
    return tree.unflatten(map(wait, [delay, delay]))

async def main():
    return await asyncio.gather(*map(task, (0.01, 0.05, 0.002)))

print(asyncio.run(main()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="what an abort looks like differs there")
def test_waits_below_pybind11_that_end_in_any_order_abort_the_process() -> None:
    # Nothing can tell such frames. If this fails, they have become harmless, and README.md is to say so.
    ran = run_script(BELOW_PYBIND11, "any")

    assert ran.returncode < 0
    assert "loader_life_support" in ran.stderr


def test_waits_below_pybind11_are_safe_when_the_newest_ends_first() -> None:
    ran = run_script(BELOW_PYBIND11, "lifo")

    assert ran.stdout == "[[0.01, 0.01], [0.05, 0.05], [0.002, 0.002]]\n", ran.stderr


@pytest.fixture
def from_tk(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], Any]:
    """Return what calls a function the way that Tk calls a callback; without a display there is no Tk."""
    tkinter = ModuleType("tkinter")
    exec("def mainloop(callback): return callback()", vars(tkinter))
    monkeypatch.setitem(sys.modules, "tkinter", tkinter)
    mainloop: Callable[[Callable[[], Any]], Any] = tkinter.mainloop
    return mainloop


def test_waits_below_tk_end_newest_first_and_the_others_in_any_order(
    from_tk: Callable[[Callable[[], Any]], Any],
) -> None:
    ended: list[str] = []

    def nests(name: str, delay: float) -> None:
        asyncio.run(asyncio.sleep(delay))
        ended.append(name)

    async def task(name: str, delay: float) -> None:
        await asyncio.sleep(0)
        nests(name, delay)

    async def below_tk(name: str, delay: float) -> None:
        await asyncio.sleep(0)
        from_tk(lambda: nests(name, delay))

    async def main() -> None:
        await asyncio.gather(
            below_tk("tk older", 0.01), below_tk("tk newer", 0.05), task("newest", 0.2), task("free", 0.02)
        )

    asyncio.run(main())
    assert ended == ["free", "tk newer", "tk older", "newest"]


def test_a_stop_ends_the_wait_of_a_callback_below_tk_and_those_above_it(
    from_tk: Callable[[Callable[[], Any]], Any],
) -> None:
    loop = asyncio.new_event_loop()
    futures = [loop.create_future() for _ in range(2)]
    ended: list[str] = []

    def nests(number: int) -> None:
        try:
            loop.run_until_complete(futures[number])
        except RuntimeError as error:
            ended.append(f"{number}: {error}")

    async def task() -> None:
        from_tk(lambda: nests(1))

    loop.call_soon(lambda: from_tk(lambda: nests(0)))
    loop.call_soon(loop.create_task, task())
    loop.call_later(0.02, loop.stop)
    loop.run_forever()
    loop.close()

    assert ended == [f"{number}: Event loop stopped before Future completed." for number in (1, 0)]
