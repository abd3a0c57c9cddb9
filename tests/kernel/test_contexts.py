"""Context variables that one cell sets hold in the next, whatever kind of cell it is; tasks keep copies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cells import dedented

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver

SETS = {
    "plain": "token = who.set('cell')",
    "await": dedented(
        """
        await asyncio.sleep(0)
        token = who.set('cell')
        """
    ),
    "await, set deeper": "token = await set_it('cell')",
    "await, nested": dedented(
        """
        await asyncio.sleep(0)
        asyncio.run(asyncio.sleep(0.001))
        token = who.set('cell')
        asyncio.run(asyncio.sleep(0.001))
        """
    ),
    "magic": dedented(
        """
        %%aloop
        token = await set_it('cell')
        """
    ),
}
READS = {
    "plain": "found = who.get()",
    "await": "found = await get_it()",
    "magic": dedented(
        """
        %%aloop
        found = await get_it()
        """
    ),
    "run": "found = asyncio.run(get_it())",
}


@pytest.fixture(autouse=True)
def _variable(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio, loopnb
        from contextvars import ContextVar
        who = ContextVar("who", default="nobody")
        async def set_it(value):
            await asyncio.sleep(0)
            return who.set(value)
        async def get_it():
            await asyncio.sleep(0)
            return who.get()
        """
    )


@pytest.mark.parametrize("sets", SETS.values(), ids=list(SETS))
def test_what_a_cell_sets_holds_in_later_ones(kernel: KernelDriver, sets: str) -> None:
    kernel.run(sets)
    for reads in READS.values():
        kernel.run("found = None")
        kernel.run(reads)
        assert kernel.value("found") == "cell", reads


@pytest.mark.parametrize("sets", SETS.values(), ids=list(SETS))
@pytest.mark.parametrize(
    "resets",
    [
        "who.reset(token)",
        """
        await asyncio.sleep(0)
        who.reset(token)
        """,
        """
        %%aloop
        await asyncio.sleep(0)
        who.reset(token)
        """,
    ],
    ids=["plain", "await", "%%aloop"],
)
def test_its_token_can_be_reset_in_later_ones(kernel: KernelDriver, sets: str, resets: str) -> None:
    kernel.run(sets)
    kernel.run(resets)
    kernel.run("found = who.get()")

    assert kernel.value("found") == "nobody"


def test_a_background_task_keeps_its_copy_and_what_it_sets_to_itself(kernel: KernelDriver) -> None:
    kernel.run("await set_it('before')")
    kernel.run(
        """
        %%aloop -b -n keeps
        go = asyncio.Event()
        await go.wait()
        seen = who.get()
        who.set("task")
        """
    )
    kernel.run("await set_it('after')")
    kernel.run(
        """
        go.set()
        while "seen" not in globals(): await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        found = who.get()
        """
    )

    assert kernel.value("seen, found") == ("before", "after")


def test_output_goes_to_the_cell_that_makes_it(kernel: KernelDriver) -> None:
    first = kernel.start(
        """
        go = asyncio.Event()
        task = asyncio.create_task(asyncio.sleep(0.05)); await asyncio.sleep(0)
        print('one')
        """
    )
    first.wait()
    second = kernel.start(
        """
        async def late():
            await go.wait()
            print("late")
        left = asyncio.create_task(late())
        await asyncio.sleep(0)
        print("two")
        """
    )
    second.wait()
    third = kernel.run("go.set(); await left; print('three')")

    assert (first.stdout, third.stdout) == ("one\n", "three\n")
    second.wait_late("late")


def test_a_comm_message_while_a_cell_waits_leaves_the_cell_its_output(kernel: KernelDriver) -> None:
    kernel.run(
        """
        clicked = asyncio.Event()
        loop = asyncio.get_running_loop()
        def opened(comm, message):
            @comm.on_msg
            def clicks(message):
                who.set("comm")
                loop.call_soon_threadsafe(clicked.set)
        get_ipython().kernel.comm_manager.register_target("clicks", opened)
        """
    )
    comm = kernel.open_comm("clicks")
    cell = kernel.start(
        """
        print("waits", flush=True)
        await clicked.wait()
        print("clicked", who.get())
        """
    )
    cell.wait_output("waits")
    comm.send({})
    cell.wait()

    assert "clicked nobody" in cell.stdout


def test_with_nest_asyncio_cells_keep_to_copies_and_work(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run("import asyncio")
    fresh_kernel.run("%loopnb nesting nest-asyncio")
    result = fresh_kernel.run(
        """
        await asyncio.sleep(0)
        asyncio.run(asyncio.sleep(0.001, 7))
        """
    )

    assert result.result == "7"


def test_a_cell_whose_task_is_cancelled_after_its_last_await_gets_its_reply(kernel: KernelDriver) -> None:
    # An interrupt may come that late, too. Without loopnb the kernel sends no reply, and no idle status.
    cell = kernel.run(
        """
        import asyncio
        await asyncio.sleep(0)
        asyncio.current_task().cancel()
        'ended'
        """
    )

    assert cell.result == "'ended'"
    assert kernel.run("await asyncio.sleep(0, 'goes on')").result == "'goes on'"


def test_a_cell_that_awaited_and_nested_is_freed(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio, gc, weakref
        await asyncio.sleep(0)
        ended = weakref.ref(asyncio.current_task())
        asyncio.run(asyncio.sleep(0))
        """
    )

    assert kernel.value("(gc.collect(), ended() is None)[1]")
