"""What tasks put out goes to the cell that spawned them, also when another cell runs by then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kernel.driver import Cell, KernelDriver

OUTPUTS = {
    "print": ("print('late')", "stream"),
    "standard error": ("sys.stderr.write('late')", "stream"),
    "display": ("display('late')", "display_data"),
    "picture": (
        "publish_display_data({'image/png': b'bytes', 'text/plain': 'late'}, transient={'display_id': 'a'})",
        "display_data",
    ),
    "update": ("shown.update('late')", "update_display_data"),
    "cleared": ("clear_output()", "clear_output"),
    "traceback": ("get_ipython().showtraceback((ValueError, ValueError('late'), None))", "error"),
    "failure": ("1 / 0", "error"),
    "from a thread": ("await asyncio.to_thread(display, 'late')", "display_data"),
}


@pytest.fixture(autouse=True)
def imports(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio, sys
        from IPython.display import clear_output, display, publish_display_data
        go = asyncio.Event()
        """
    )


def types_of(cell: Cell) -> list[str]:
    return [message.msg_type for message in cell.late_outputs]


@pytest.mark.parametrize(("code", "msg_type"), OUTPUTS.values(), ids=OUTPUTS)
def test_output_of_a_background_cell_goes_to_that_cell(
    kernel: KernelDriver, code: str, msg_type: str
) -> None:
    cell = kernel.run(
        f"""
        %%aloop -b -o handle
        shown = display('early', display_id=True)
        await go.wait()
        {code}
        """
    ).cell
    before = len(cell.outputs)

    other = kernel.run(
        """
        go.set()
        await asyncio.wait([handle])
        """
    ).cell

    cell.wait_for(lambda: types_of(cell) == [msg_type], "late output")
    assert len(cell.outputs) == before + 1
    assert [message.msg_type for message in other.outputs] == ["execute_result"]


@pytest.mark.parametrize(
    "spawn",
    [
        "task = asyncio.create_task(later())",
        "asyncio.get_running_loop().call_later(0, lambda: asyncio.ensure_future(later()))",
        "await asyncio.sleep(0); task = asyncio.create_task(later())",
        "asyncio.run(asyncio.sleep(0)); task = asyncio.create_task(later())",
    ],
    ids=["task", "callback", "await cell", "after a nested run"],
)
def test_output_of_a_plain_task_goes_to_the_cell_that_spawned_it(kernel: KernelDriver, spawn: str) -> None:
    kernel.run(
        """
        async def later():
            await go.wait()
            print('printed')
            display('shown')
            done.set()
        """
    )
    kernel.run("done = asyncio.Event()")
    cell = kernel.run(spawn).cell

    other = kernel.run(
        """
        go.set()
        await done.wait();
        """
    ).cell

    assert cell.wait_late("shown") == "printed\n'shown'\n"
    assert "printed" not in other.text
    assert "shown" not in other.text


def test_what_the_next_cell_shows_after_a_nested_run_is_its_own(kernel: KernelDriver) -> None:
    kernel.run(
        """
        %%aloop -b -o handle
        await go.wait()
        display('background')
        """
    )

    cell = kernel.run(
        """
        go.set()
        asyncio.run(asyncio.wait([handle]))
        display('mine')
        1 / 1
        """
    ).cell

    assert cell.text == "'mine'\n1.0\n"


def test_a_thread_shows_in_the_newest_cell_as_without_loopnb(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import threading
        hear = threading.Event()
        def wait(): hear.wait(30); display('from the thread')
        thread = threading.Thread(target=wait); thread.start()
        """
    )

    cell = kernel.run("hear.set(); thread.join()").cell

    assert cell.text == "'from the thread'\n"


def test_tasks_of_the_very_cell_that_loads_show_there(stock_kernel: KernelDriver) -> None:
    cell = stock_kernel.run(
        """
        %load_ext loopnb
        import asyncio
        go = asyncio.Event()
        async def later():
            await go.wait()
            display('late')
        task = asyncio.create_task(later())
        """
    ).cell

    other = stock_kernel.run(
        """
        go.set()
        await task
        """
    ).cell

    assert cell.wait_late("late") == "'late'\n"
    assert other.outputs == ()


def test_after_unloading_output_goes_where_the_kernel_sends_it(stock_kernel: KernelDriver) -> None:
    stock_kernel.run("%load_ext loopnb")
    stock_kernel.run("%unload_ext loopnb")

    cell = stock_kernel.run(
        """
        display('shown')
        1 / 1
        """
    ).cell

    assert cell.text == "'shown'\n1.0\n"
    assert stock_kernel.execute("1 / 0").cell.text.count("ZeroDivisionError") == 2
