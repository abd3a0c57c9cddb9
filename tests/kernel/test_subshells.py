"""What cells do to the loop of the subshell they run in: it goes on, and so does the notebook's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.conftest import assert_quiet, needs_subshells

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        "loop = asyncio.get_running_loop(); loop.call_later(0.05, loop.stop)\n"
        "loop.run_until_complete(asyncio.sleep(60))",
        subshell_id=subshell,
    )

    assert (cell.ename, cell.evalue) == ("RuntimeError", "Event loop stopped before Future completed.")
    assert kernel.execute("1 + 1", subshell_id=subshell).result == "2"


def test_run_forever_lasts_until_stop_wherever_that_comes_from(kernel: KernelDriver, subshell: str) -> None:
    forever = "there = asyncio.get_running_loop(); there.call_later({}); there.run_forever(); 'stopped'"
    cell = kernel.execute(forever.format("0.05, there.stop"), subshell_id=subshell)
    assert cell.result == "'stopped'"

    waits = kernel.start("print('waits', flush=True)\n" + forever.format("60, print"), subshell_id=subshell)
    waits.wait_output("waits")
    # No value: ipykernel mixes those up that cells of two threads have at the same time.
    kernel.run("handle = there.call_soon_threadsafe(there.stop)")

    assert waits.wait().result == "'stopped'"


def test_a_subshell_in_run_forever_keeps_no_kernel_from_ending(fresh_kernel: KernelDriver) -> None:
    cell = fresh_kernel.start(
        "import asyncio\nprint('waits', flush=True)\nasyncio.get_running_loop().run_forever()",
        subshell_id=fresh_kernel.create_subshell(),
    )
    cell.wait_output("waits")

    assert_quiet(fresh_kernel.shutdown())
