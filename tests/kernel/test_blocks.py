"""Blocks in a real kernel: cells, tasks, callbacks of widgets, `input()`, a debugger, the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cells import dedented

if TYPE_CHECKING:
    from tests.gates import Gate
    from tests.kernel.driver import KernelDriver

BLOCK = dedented(
    """
    import asyncio, os, time, loopnb
    from loopnb.session import current

    def block():
        watch, end = current().watch, time.monotonic() + 20
        while (seen := watch.current()) is None or seen.function != 'block':
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(0.2)  # for longer than what the same step does besides may take

    async def hog():
        block()

    async def last(function='block'):
        # On a busy machine any other step may last long enough, too.
        while not (blocks := [b for b in current().watch.blocks() if b.function == function]):
            await asyncio.sleep(0.01)
        return blocks[-1]
    """
)


@pytest.fixture(autouse=True)
def blocking(kernel: KernelDriver) -> None:
    """Define what blocks, and count 0.1 s as a block."""
    kernel.run("%reload_ext loopnb")
    kernel.run("%config LoopNB.blocked_after = 0.1")
    kernel.run(BLOCK)


def last(kernel: KernelDriver) -> tuple[str, str, str, bool]:
    """Return who has blocked last: what it is, its name, where, and whether it is an alarm."""
    kernel.run("found = await last()")
    found: tuple[str, str, str, bool] = kernel.value("(found.by, found.name, found.place, found.is_alarm)")
    return found


def test_a_cell_is_named_by_its_number(kernel: KernelDriver) -> None:
    kernel.run("block()")
    number = kernel.value("get_ipython().execution_count - 1")

    by, name, _place, is_alarm = last(kernel)
    assert (by, name, is_alarm) == ("cell", f"In[{number}]", False)


def test_a_coroutine_that_a_cell_awaits_is_an_alarm_of_that_cell(kernel: KernelDriver) -> None:
    kernel.run("await hog()")
    number = kernel.value("get_ipython().execution_count - 1")

    by, name, _place, is_alarm = last(kernel)
    assert (by, name, is_alarm) == ("cell", f"In[{number}]", True)


@pytest.mark.parametrize("code", ["asyncio.run(hog())", "%aloop -b hog()", "loopnb.spawn(hog())"])
def test_a_task_is_named_with_its_number(kernel: KernelDriver, code: str) -> None:
    kernel.run(code)

    by, name, place, is_alarm = last(kernel)
    assert (by, is_alarm) == ("task", True)
    assert name.startswith("task ")
    assert any(line in place for line in (", line 8", ", line 9"))


def test_a_nested_run_that_waits_is_none(kernel: KernelDriver) -> None:
    kernel.run(
        """
        async def markers(count):
            before = current().watch.pace().total.count
            while current().watch.pace().total.count < before + count:
                await asyncio.sleep(0.01)
        asyncio.run(markers(3))
        """
    )

    assert kernel.value("[str(block) for block in current().watch.blocks() if block.lasted_s > 0.6]") == []


def test_the_callback_of_a_widget_is_named(kernel: KernelDriver) -> None:
    kernel.run(
        """
        handled = asyncio.Event()
        def on_click(message):
            block()
            handled.set()
        def opened(comm, message):
            comm.on_msg(on_click)
        get_ipython().kernel.comm_manager.register_target('clicks', opened)
        """
    )
    comm = kernel.open_comm("clicks")
    comm.send("click")
    kernel.run("await handled.wait()")

    by, name, _place, is_alarm = last(kernel)
    assert (by, name, is_alarm) == ("callback", "callback on_click()", True)


@pytest.mark.parametrize("code", ["input('name? ')", "__import__('pdb').set_trace()"])
def test_a_question_to_the_user_is_none(kernel: KernelDriver, code: str) -> None:
    kernel.run("import pdb")  # which on a busy machine takes longer than a block
    cell = kernel.start(
        f"""
        import threading
        def say():
            time.sleep(1.5)
            print("this long", flush=True)
        threading.Thread(target=say).start()
        {code}
        """,
        allow_stdin=True,
    )
    cell.wait_output("this long")
    cell.answer("continue")
    cell.wait().expect_ok()

    assert kernel.value("[str(block) for block in current().watch.blocks() if block.lasted_s > 1]") == []


def test_a_message_that_waits_is_noted(kernel: KernelDriver, gate: Gate) -> None:
    cell = kernel.start(
        f"""
        def waits():
            print("begun", flush=True)
            while not {gate} or current().watch.current() is None or not current().watch.has_messages():
                time.sleep(0.01)
            time.sleep(0.5)  # so the watchdog has waited for a quarter of a second
        waits()
        """
    )
    cell.wait_output("begun")
    waits = kernel.start("pass")
    gate.open()
    cell.wait().expect_ok()
    waits.wait().expect_ok()
    kernel.run("found = await last('waits')")

    assert kernel.value("found.kept.messages")


def test_unloading_ends_the_thread(unloaded_kernel: KernelDriver) -> None:
    names = unloaded_kernel.value("[t.name for t in __import__('threading').enumerate()]")

    assert "loopnb watchdog" not in names
