"""Real SIGINT to a real kernel while a cell waits."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.cells import below, dedented, filled
from tests.kernel.conftest import assert_ended_in, needs_subshells
from tests.kernel.driver import KernelDriver
from tests.kernel.requests import Cell, Request
from tests.processes import WaitTimedOutError

if TYPE_CHECKING:
    from pathlib import Path

#: Cells that say that they wait, then wait for a minute; and what they must end in. Those that sleep do so in
#: slices: an interrupt that comes just before `time.sleep` makes its system call does not end that call.
#: Plain cells don't flush: Python's own handler raises there. If it does so while `Event.wait`, in which a
#: flush ends, takes its lock back, then the cell ends in a RuntimeError (a race of CPython's `threading`).
WAITS = {
    "await": ("print('waits', flush=True); await asyncio.sleep(60)", {"CancelledError", "KeyboardInterrupt"}),
    "plain code in an await cell": (
        "await asyncio.sleep(0); print('waits', flush=True); [time.sleep(0.1) for _ in range(600)]",
        {"KeyboardInterrupt"},
    ),
    # IPython compiles the last expression after the rest has run, this one for some 20 ms. Before the cell
    # begins, IPython makes a list of its tokens, and CPython 3.12.1 copies the whole line for each. In a
    # single line that would take 2 GB and seconds, and more for the traceback.
    "an await cell between two statements": (
        filled(
            """
            await asyncio.sleep(0); print('waits', flush=True)
            [time.sleep(0.1) for _ in range(600)] + [
                {}
            ]
            """,
            "\n".join(["time," * 100] * 150),
        ),
        {"KeyboardInterrupt"},
    ),
    "nested run": ("print('waits'); asyncio.run(asyncio.sleep(60))", {"KeyboardInterrupt"}),
    "nested run in an await cell": (
        "await asyncio.sleep(0); print('waits', flush=True); asyncio.run(asyncio.sleep(60))",
        {"KeyboardInterrupt"},
    ),
    "aloop": (
        dedented(
            """
            %%aloop
            print('waits', flush=True)
            await asyncio.sleep(60)
            """
        ),
        {"KeyboardInterrupt"},
    ),
    "aloop under time": (
        dedented(
            """
            %%time
            %%aloop
            print('waits', flush=True)
            await asyncio.sleep(60)
            """
        ),
        {"KeyboardInterrupt"},
    ),
    "another loop": (
        "print('waits'); other.run_until_complete(asyncio.sleep(60))",
        {"KeyboardInterrupt"},
    ),
    "another loop in an await cell": (
        "await asyncio.sleep(0); print('waits', flush=True); other.run_until_complete(asyncio.sleep(60))",
        {"KeyboardInterrupt"},
    ),
    "code that collects garbage all the time": (
        "import gc; print('waits'); [gc.collect() for _ in range(6000)]",
        {"KeyboardInterrupt"},
    ),
    "plain code": (
        "print('waits'); [time.sleep(0.1) for _ in range(600)]",
        {"KeyboardInterrupt"},
    ),
}


TICKS_GO_ON = """
    before = ticks
    async def has_ticked():
        while ticks < before + 3: await asyncio.sleep(0.01)
    await asyncio.wait_for(has_ticked(), 20)
    """


@pytest.fixture(autouse=True)
def ticker(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio, loopnb, time
        other = asyncio.new_event_loop()
        ticks = 0
        """
    )
    kernel.run(
        """
        %%aloop -b -n ticker
        while True:
            ticks += 1
            await asyncio.sleep(0.02)
        """,
        cell_id="tick",
    )


@pytest.mark.parametrize(("code", "ends_in"), WAITS.values(), ids=WAITS)
def test_an_interrupt_ends_the_cell_and_nothing_else(
    kernel: KernelDriver, code: str, ends_in: set[str]
) -> None:
    cell = kernel.start(code)
    cell.wait_output("waits")

    kernel.interrupt()

    result = cell.wait()  # the waits above last a minute
    assert_ended_in(result, *ends_in)
    assert "loopnb" not in result.traceback
    kernel.run(TICKS_GO_ON)


@pytest.mark.parametrize("magic", ["", "%%aloop", "%%aloop --fresh"])
def test_an_interrupt_is_not_raised_where_an_await_cell_flushes_its_output(
    kernel: KernelDriver, magic: str
) -> None:
    # The thread that sends output interrupts the main thread, which waits for it.
    kernel.run(
        """
        import signal, sys, threading
        main = threading.get_ident()
        def interrupts():
            while sys._current_frames()[main].f_code is not threading.Condition.wait.__code__:
                time.sleep(0.01)
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.1)
        """
    )

    result = kernel.execute(
        below(
            magic,
            """
            await asyncio.sleep(0)
            sys.stdout.pub_thread.schedule(interrupts)
            sys.stdout.flush()
            [time.sleep(0.1) for _ in range(600)]
            """,
        )
    )

    assert result.ename == "KeyboardInterrupt"
    assert "iostream.py" not in result.traceback  # sent again, it may be raised as soon as the flush returns
    kernel.run(TICKS_GO_ON)


def test_a_second_interrupt_ends_a_step_that_blocks(kernel: KernelDriver) -> None:
    kernel.run(
        """
        async def block():
            print('waits', flush=True)
            [time.sleep(0.1) for _ in range(600)]
        """
    )
    cell = kernel.start("asyncio.run(block())")
    cell.wait_output("waits")

    kernel.interrupt()
    kernel.interrupt_until_done(cell)

    assert cell.wait().ename == "KeyboardInterrupt"
    assert kernel.value("ticks") > 0


@pytest.mark.parametrize("code", ["await waits_beside()", "asyncio.run(waits_beside())"])
def test_a_second_interrupt_ends_a_callback_that_blocks(kernel: KernelDriver, code: str) -> None:
    kernel.run(
        """
        def block():
            print('waits', flush=True)
            [time.sleep(0.1) for _ in range(600)]

        async def waits_beside():
            asyncio.get_running_loop().call_soon(block)
            await asyncio.sleep(600)
        """
    )
    cell = kernel.start(code)
    cell.wait_output("waits")

    kernel.interrupt()
    kernel.interrupt_until_done(cell)

    assert cell.wait().ename == "KeyboardInterrupt"
    assert kernel.value("ticks") > 0


def test_a_second_interrupt_ends_a_nested_run_that_swallows_the_first(kernel: KernelDriver) -> None:
    kernel.run(
        """
        async def swallow():
            try:
                print('waits', flush=True)
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                print('swallowed', flush=True)
                await asyncio.sleep(60)
        """
    )
    cell = kernel.start("asyncio.run(swallow())")
    cell.wait_output("waits")
    kernel.interrupt()
    cell.wait_output("swallowed")

    kernel.interrupt()

    assert cell.wait().ename == "KeyboardInterrupt"


def test_an_interrupt_of_an_idle_kernel_harms_nothing(kernel: KernelDriver) -> None:
    kernel.interrupt()

    kernel.run(TICKS_GO_ON)


# Says that it waits when the step has ended: an interrupt that hits the step is raised there, and swallowed.
SWALLOWS = dedented(
    """
    import loopnb
    async def swallow(what=asyncio.CancelledError, swallowed=0):
        while True:
            try:
                asyncio.get_running_loop().call_soon(print, f'waits {swallowed}\\n')
                await asyncio.sleep(60)
            except what:
                swallowed += 1
    async def named(coro):
        asyncio.current_task().set_name('stays')
        await coro
    """
)
STUBBORN = {
    "await": "await swallow({})",
    "await a task": "await asyncio.create_task(swallow({}), name='stays')",
    "%%aloop": below("%%aloop -n stays", "await swallow({})"),
    "%%aloop below %%time": below("%%time", "%aloop -n stays swallow({})"),
    "asyncio.run": "asyncio.run(named(swallow({})))",
    "loopnb.run": "loopnb.run(named(swallow({})))",
    "loopnb.run in time": "loopnb.run(named(swallow({})), timeout=50)",
}


@pytest.mark.parametrize("code", ["await both()", "asyncio.run(both())"])
def test_an_interrupt_ends_tasks_that_wait_for_each_other(kernel: KernelDriver, code: str) -> None:
    kernel.run(
        """
        async def gathers(tasks, other):
            await asyncio.gather(tasks[other])
        async def both():
            tasks = {}
            tasks["a"] = asyncio.create_task(gathers(tasks, "b"), name="stays a")
            tasks["b"] = asyncio.create_task(gathers(tasks, "a"), name="stays b")
            asyncio.get_running_loop().call_later(0.1, print, "waits")
            await asyncio.gather(*tasks.values())
        """
    )
    cell = kernel.start(code)
    cell.wait_output("waits")
    kernel.interrupt()

    assert_ended_in(cell.wait(), "CancelledError", "KeyboardInterrupt")
    assert kernel.value("[task.name for task in loopnb.tasks() if task.name.startswith('stays')]") == []


@pytest.mark.parametrize("code", STUBBORN.values(), ids=STUBBORN)
def test_a_second_interrupt_ends_what_swallows_the_first(kernel: KernelDriver, code: str) -> None:
    kernel.run(SWALLOWS)
    cell = kernel.start(code.format(""))
    cell.wait_output("waits 0")
    kernel.interrupt()
    cell.wait_output("waits 1")

    kernel.interrupt()

    result = cell.wait()
    assert result.ename == "KeyboardInterrupt" or "KeyboardInterrupt" in result.cell.text
    assert kernel.value("[task.name for task in loopnb.tasks() if task.coro in ('swallow', 'named')]") == []
    assert kernel.value("1 + 1") == 2


def test_a_gather_that_a_second_interrupt_leaves_is_not_reported(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import gc
        may_end = asyncio.Event()

        async def lingers():
            print("waits", flush=True)  # not before: the cell would be interrupted where it does not wait yet
            try:
                await asyncio.sleep(600)
            finally:
                print("first", flush=True)
                await may_end.wait()

        async def gathers():
            global lingering
            lingering = [asyncio.create_task(lingers()) for _ in range(2)]
            await asyncio.gather(*lingering)
        """
    )
    cell = kernel.start("await gathers()")
    cell.wait_output("waits")

    kernel.interrupt()
    cell.wait_output("first")
    kernel.interrupt_until_done(cell)
    later = kernel.run(
        """
        may_end.set()
        await asyncio.wait(lingering)
        await asyncio.sleep(0)
        gc.collect()
        await asyncio.sleep(0)
        """
    )

    assert "never retrieved" not in cell.text + later.cell.text + kernel.log()


@pytest.mark.parametrize("code", [STUBBORN["%%aloop"], STUBBORN["loopnb.run"]], ids=["%%aloop", "loopnb.run"])
def test_a_task_that_swallows_everything_is_left_by_the_third_interrupt_and_named(
    kernel: KernelDriver, code: str
) -> None:
    kernel.run(SWALLOWS)
    cell = kernel.start(code.format("BaseException"))
    cell.wait_output("waits 0")
    for number in (1, 2):
        kernel.interrupt()
        cell.wait_output(f"waits {number}")

    kernel.interrupt()

    assert cell.wait().ename == "KeyboardInterrupt"
    cell.wait_output("not ended yet: 'stays'. '%loopnb tasks' shows what they wait for")


def test_what_ends_at_once_when_a_callback_interrupts_is_not_named(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio
        def interrupt(): raise KeyboardInterrupt
        """
    )

    cell = kernel.start(
        """
        asyncio.get_running_loop().call_later(0.05, interrupt)
        asyncio.run(asyncio.sleep(60))
        """
    )

    assert cell.wait().ename == "KeyboardInterrupt"
    kernel.run("await asyncio.sleep(0.3)")
    assert "has ended" not in cell.stderr


def test_a_blocking_task_that_is_interrupted_shows_the_users_frames_only(kernel: KernelDriver) -> None:
    cell = kernel.start(
        """
        async def block():
            print('waits', flush=True)
            [time.sleep(0.1) for _ in range(600)]
        asyncio.create_task(block())
        await asyncio.sleep(60)
        """
    )
    cell.wait_output("waits")

    kernel.interrupt_until_done(cell)

    result = cell.wait()
    assert result.ename == "KeyboardInterrupt"
    assert "[time.sleep(0.1) for _ in range(600)]" in result.traceback
    assert "loopnb/" not in result.traceback
    assert "base_events.py" not in result.traceback


# It says so once it waits. An interrupt that comes before leaves the task alone that it has just spawned.
SAYS_THAT_IT_WAITS = """
    import functools
    asyncio.get_running_loop().call_later(0.05, functools.partial(print, 'waits', flush=True))
    {}
    """
LOOKS_ON = dedented(
    """
    async def looks_on(task):
        await task
    """
)
AWAITS_OTHERS = {
    "await": "print('waits', flush=True); await handle",
    "gather": "print('waits', flush=True); await asyncio.gather(asyncio.sleep(60), handle)",
    "own task that awaits it": dedented(
        """
        async def watch():
            print('waits', flush=True)
            await handle
        await asyncio.create_task(watch())
        """
    ),
    "nested run": dedented(
        """
        async def watch():
            print('waits', flush=True)
            await handle
        asyncio.run(watch())
        """
    ),
    "aloop": dedented(
        """
        %%aloop
        print('waits', flush=True)
        await handle
        """
    ),
    **{
        name: filled(SAYS_THAT_IT_WAITS, code)
        for name, code in {
            "wait_for": "await asyncio.wait_for(handle, 50)",
            "wait_for in a nested run": "asyncio.run(asyncio.wait_for(handle, 50))",
            "wait_for in a gather": "await asyncio.gather(asyncio.wait_for(handle, 50), asyncio.sleep(60))",
            "gather in a wait_for": "await asyncio.wait_for(asyncio.gather(handle, asyncio.sleep(60)), 50)",
            "gather in a gather": "await asyncio.gather(asyncio.gather(handle), asyncio.sleep(60))",
            "a task in a wait_for": "await asyncio.wait_for(asyncio.create_task(looks_on(handle)), 50)",
            "a TaskGroup": dedented(
                """
                async with asyncio.TaskGroup() as group:
                    group.create_task(looks_on(handle))
                    group.create_task(asyncio.sleep(60))
                """
            ),
            "wait": "await asyncio.wait([handle])",
        }.items()
    },
}


@pytest.mark.parametrize("code", AWAITS_OTHERS.values(), ids=AWAITS_OTHERS)
def test_an_interrupt_spares_a_background_task_that_the_cell_awaits(kernel: KernelDriver, code: str) -> None:
    kernel.run(LOOKS_ON)
    kernel.run(
        """
        %%aloop -b -n background -o handle
        await asyncio.sleep(60)
        """,
        cell_id="background",
    )
    cell = kernel.start(code)
    cell.wait_output("waits")

    kernel.interrupt()

    result = cell.wait()
    assert result.ename in {"CancelledError", "KeyboardInterrupt"}
    assert not kernel.value("handle.done()")
    # What the cell has spawned for its wait is over.
    assert kernel.value(f"len(loopnb.tasks().filter(cell={result.execution_count}))") == 0


def test_an_interrupt_cancels_what_the_cell_has_spawned_for_its_wait(kernel: KernelDriver) -> None:
    cell = kernel.start(
        """
        async def sleeper():
            asyncio.get_running_loop().call_soon(print, 'waits')  # once both have begun
            await asyncio.sleep(60)
        own = [asyncio.create_task(sleeper()) for _ in range(2)]
        await asyncio.gather(*own)
        """
    )
    cell.wait_output("waits")

    kernel.interrupt()

    assert cell.wait().ename in {"CancelledError", "KeyboardInterrupt"}
    assert kernel.value("[task.cancelled() for task in own]") == [True, True]


def test_an_interrupt_while_a_run_begins_shows_none_of_our_errors(stock_kernel: KernelDriver) -> None:
    # The task of the cell that loads is untracked, as every cell's is on ipykernel 6: its origin is
    # made when it first spawns. The interrupt comes in there, out of C code that adds no frame.
    stock_kernel.run(
        """
        import asyncio, functools, itertools, loopnb.session, operator, signal, time
        once = functools.partial(signal.raise_signal, signal.SIGINT)
        clock = map(operator.call, itertools.chain([once], itertools.repeat(time.monotonic))).__next__
        """
    )

    result = stock_kernel.execute(
        """
        %load_ext loopnb
        loopnb.session.current().tracker.clock = clock
        asyncio.run(asyncio.sleep(60))
        """
    )

    assert result.ename == "KeyboardInterrupt"
    assert "asyncio.run(asyncio.sleep(60))" in result.traceback
    assert "AttributeError" not in result.traceback


@needs_subshells
@pytest.mark.parametrize("call", ["await asyncio.sleep(0.3, 'ended')", "asyncio.run(waits())"])
def test_an_interrupt_while_a_subshell_waits_harms_nothing(kernel: KernelDriver, call: str) -> None:
    kernel.run(
        """
        async def waits():
            return await asyncio.sleep(0.3, 'ended')
        """
    )
    cell = kernel.start(filled(SAYS_THAT_IT_WAITS, call), subshell_id=kernel.create_subshell())
    cell.wait_output("waits")

    kernel.interrupt()

    assert cell.wait().result == "'ended'"
    assert kernel.run("await asyncio.sleep(0, 'goes on')").result == "'goes on'"


#: Between the end of a cell, where its output is flushed, and its reply, the kernel sleeps if this is not 0.
#: The cell itself cannot say that it has ended: what it says may be sent before.
SLEEPS_BEFORE_REPLIES = dedented(
    """
    class Sleep(float):
        def __bool__(self):
            print('ended', flush=True)
            return True
    usual = get_ipython().kernel._execute_sleep; get_ipython().kernel._execute_sleep = Sleep(1)
    """
)


def test_an_interrupt_that_comes_too_late_does_not_cost_the_reply(kernel: KernelDriver) -> None:
    kernel.run(SLEEPS_BEFORE_REPLIES)
    cell = kernel.start("pass")
    cell.wait_output("ended")

    kernel.interrupt()

    cell.wait().expect_ok()
    assert kernel.run("get_ipython().kernel._execute_sleep = usual; 1 + 1").result == "2"


def test_so_it_is_in_a_kernel_that_loads_by_configuration(tmp_path: Path) -> None:
    with KernelDriver(tmp_path, arguments=["--InteractiveShellApp.extensions=['loopnb']"]) as configured:
        configured.run(SLEEPS_BEFORE_REPLIES)
        cell = configured.start("pass")
        cell.wait_output("ended")

        configured.interrupt()

        cell.wait().expect_ok()


BLANK_WAITS = {
    "nested run": "asyncio.run(asyncio.sleep(60))",
    "another loop": "asyncio.new_event_loop().run_until_complete(asyncio.sleep(60))",
}


@pytest.mark.parametrize("code", BLANK_WAITS.values(), ids=BLANK_WAITS)
def test_a_blank_cell_that_a_cell_runs_does_not_cost_it_its_interrupts(
    kernel: KernelDriver, code: str
) -> None:
    cell = kernel.start(
        f"""
        import asyncio
        get_ipython().run_cell('')
        print('waits')
        {code}
        """
    )
    cell.wait_output("waits")

    kernel.interrupt()

    assert cell.wait().ename == "KeyboardInterrupt"


REQUESTS: dict[str, dict[str, Any]] = {
    "comm_msg": {"comm_id": "1", "data": {}},
    "complete_request": {"code": "waits.", "cursor_pos": 6},
    "execute_request": {
        "code": "", "silent": True, "store_history": False, "allow_stdin": False,
        "user_expressions": {"value": "waits()"},
    },
}  # fmt: skip


@pytest.mark.parametrize("request_type", REQUESTS)
@pytest.mark.parametrize("code", BLANK_WAITS.values(), ids=BLANK_WAITS)
def test_what_the_kernel_calls_outside_cells_can_be_interrupted_where_it_waits(
    kernel: KernelDriver, request_type: str, code: str
) -> None:
    kernel.run(
        f"""
        import asyncio
        class Waits:
            def __call__(self, *_):
                print('waits', flush=True); {code}
            def __dir__(self):
                self(); return []
        waits = Waits()
        get_ipython().kernel.comm_manager.register_target('waits', lambda comm, _: comm.on_msg(waits))
        """
    )
    opening = {"comm_id": "1", "target_name": "waits", "data": {}}
    Request(kernel.wire, kernel.wire.send("shell", "comm_open", opening)).wait_idle()
    msg_id = kernel.wire.send("shell", request_type, REQUESTS[request_type])
    asked = Cell(kernel.wire, msg_id, request_type, "")
    asked.wait_output("waits")

    # It has yet to begin waiting when it says so, and other handlers stand until it does.
    while asked.idle is None:
        kernel.interrupt()
        with contextlib.suppress(WaitTimedOutError):
            asked.wait_idle(0.5)

    assert kernel.run("1 + 1").result == "2"


def test_a_handler_of_messages_that_the_kernel_calls_can_be_interrupted(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import time
        def blocks(comm, message):
            print('waits', flush=True)
            for _ in range(600): time.sleep(0.1)
        get_ipython().kernel.comm_manager.register_target('blocks', blocks)
        """
    )
    content = {"comm_id": "1", "target_name": "blocks", "data": {}}
    opened = Cell(kernel.wire, kernel.wire.send("shell", "comm_open", content), "comm_open", "")
    opened.wait_output("waits")

    kernel.interrupt()

    assert kernel.run("1 + 1").result == "2"


def test_a_handler_that_the_cell_has_installed_is_called_during_its_nested_run(kernel: KernelDriver) -> None:
    cell = kernel.start(
        """
        import signal
        hits = []
        signal.signal(signal.SIGINT, lambda *_: hits.append(1))
        async def until():
            while not hits: await asyncio.sleep(0.01)
            return 'called'
        asyncio.get_running_loop().call_soon(lambda: print('waits', flush=True))
        asyncio.run(until())
        """
    )
    cell.wait_output("waits")

    kernel.interrupt()

    assert cell.wait().expect_ok().result == "'called'"


BLOCKERS = dedented(
    """
    async def block(i):
        print('go', i, flush=True)
        [time.sleep(0.1) for _ in range(600)]
    """
)


@pytest.mark.parametrize(
    "code",
    [
        "await asyncio.gather(block(0), block(1))",
        below("%%aloop", "await asyncio.gather(block(0), block(1))"),
        dedented(
            """
            async with asyncio.TaskGroup() as group:
                [group.create_task(block(i)) for i in range(2)]
            """
        ),
        dedented(
            """
            blocking = [asyncio.create_task(block(i)) for i in range(2)]
            await blocking[1]
            """
        ),
        dedented(
            """
            blocking = asyncio.create_task(block(0))
            while True: await asyncio.sleep(0)
            """
        ),
        dedented(
            """
            blocking = asyncio.create_task(block(0))
            while True: await asyncio.sleep(0.001)
            """
        ),
    ],
)
def test_interrupts_end_a_cell_with_several_tasks_that_block(kernel: KernelDriver, code: str) -> None:
    kernel.run(BLOCKERS)
    cell = kernel.start(code)
    cell.wait_output("go 0")
    kernel.interrupt_until_done(cell)

    assert cell.wait().ename in {"KeyboardInterrupt", "CancelledError"}
    assert kernel.value("1 + 1") == 2


@pytest.mark.parametrize(
    "code",
    [
        "await asyncio.gather(block(0), theirs)",
        "await asyncio.gather(asyncio.gather(block(0), theirs), asyncio.sleep(60))",
        dedented(
            """
            async with asyncio.TaskGroup() as group:
                group.create_task(block(0))
                await theirs
            """
        ),
    ],
)
def test_a_task_that_blocks_ends_beside_another_cells_that_lives_on(kernel: KernelDriver, code: str) -> None:
    kernel.run(BLOCKERS)
    kernel.run("theirs = asyncio.create_task(asyncio.sleep(60))")
    cell = kernel.start(code)
    cell.wait_output("go 0")
    kernel.interrupt_until_done(cell)

    assert cell.wait().ename == "KeyboardInterrupt"
    assert kernel.value("theirs.done()") is False
    kernel.run("theirs.cancel()")


GROUPS = {
    "in its body": """
        child = group.create_task(relay(says=True))
        await asyncio.sleep(60)
        """,
    "at its end": "child = group.create_task(relay(says=True))",
    "with a child that somebody else has spawned": """
        child = group.create_task(relay())
        await asyncio.sleep(0)
        spawn = lambda: group.create_task(relay(says=True))
        loop.call_soon_threadsafe(contextvars.Context().run, spawn)
        await asyncio.sleep(60)
        """,
}


@pytest.mark.parametrize("is_nested", [False, True])
@pytest.mark.parametrize("body", GROUPS.values(), ids=GROUPS)
def test_an_interrupt_spares_what_a_groups_children_await_of_another_cell(
    kernel: KernelDriver, body: str, is_nested: bool
) -> None:
    kernel.run(
        """
        import contextvars
        loop = asyncio.get_running_loop()
        theirs = asyncio.create_task(asyncio.sleep(60))
        async def relay(says=False):
            if says: print('waits', flush=True)
            return await theirs
        """
    )
    code = filled("async with asyncio.TaskGroup() as group:\n    {}", body)
    if is_nested:
        main = """
            async def main():
                global child
                {}
            asyncio.run(main())
            """
        code = filled(main, code)
    cell = kernel.start(code)
    cell.wait_output("waits")

    kernel.interrupt()

    assert cell.wait().ename in {"CancelledError", "KeyboardInterrupt"}
    assert kernel.value("(child.done(), theirs.done())") == (True, False)
    kernel.run("theirs.cancel()")


def test_a_background_cell_of_the_same_cell_lives_on(kernel: KernelDriver) -> None:
    cell = kernel.start(
        """
        handle = %aloop -b asyncio.sleep(60)
        print('waits', flush=True)
        await handle
        """
    )
    cell.wait_output("waits")
    kernel.interrupt()

    assert cell.wait().ename in {"CancelledError", "KeyboardInterrupt"}
    assert kernel.value("handle.done()") is False
    kernel.run("handle.cancel()")


BEGINNINGS = {
    "plain": "ran = True",
    "await": "ran = True; await asyncio.sleep(0)",
    "%%aloop": below("%%aloop", "ran = True"),
    "asyncio.run": "ran = True; asyncio.run(asyncio.sleep(0))",
}


@pytest.mark.parametrize("place", ["input transformer", "event"])
@pytest.mark.parametrize("code", BEGINNINGS.values(), ids=BEGINNINGS)
def test_an_interrupt_before_the_first_statement_ends_the_cell(
    kernel: KernelDriver, code: str, place: str
) -> None:
    kernel.run(
        f"""
        import signal
        def interrupt_once(lines=None):
            if lines is None or any('# the cell' in line for line in lines):
                shell.input_transformers_cleanup[:] = transformers
                if interrupt_once in shell.events.callbacks['pre_execute']:
                    shell.events.unregister('pre_execute', interrupt_once)
                signal.raise_signal(signal.SIGINT)
            return lines
        ran, shell = False, get_ipython()
        transformers = list(shell.input_transformers_cleanup)
        if {place == "event"}:
            shell.events.register('pre_execute', interrupt_once)
        else:
            shell.input_transformers_cleanup.insert(0, interrupt_once)
        """
    )

    result = kernel.execute(below(code, "# the cell"))

    assert result.ename == "KeyboardInterrupt"
    assert "Error in callback" not in result.stdout + result.stderr
    assert "loopnb" not in result.traceback
    assert kernel.value("ran") is False
    kernel.run(TICKS_GO_ON)


@pytest.mark.parametrize("place", ["input transformer", "event"])
@pytest.mark.parametrize("code", BEGINNINGS.values(), ids=BEGINNINGS)
def test_more_interrupts_end_what_hangs_before_the_first_statement(
    kernel: KernelDriver, code: str, place: str
) -> None:
    kernel.run(
        f"""
        import time
        def hangs(lines=None):
            if lines is None or any('# the cell' in line for line in lines):
                if hangs in shell.events.callbacks['pre_execute']:
                    shell.events.unregister('pre_execute', hangs)
                print('hangs', flush=True)
                for _ in range(600): time.sleep(0.1)
            return lines
        ran, shell = False, get_ipython()
        if {place == "event"}:
            shell.events.register('pre_execute', hangs)
        else:
            shell.input_transformers_cleanup.insert(0, hangs)
        """
    )
    cell = kernel.start(below(code, "# the cell"))
    cell.wait_output("hangs")

    kernel.interrupt_until_done(cell)

    assert cell.wait().ename == "KeyboardInterrupt"
    kernel.run("if hangs in shell.input_transformers_cleanup: shell.input_transformers_cleanup.remove(hangs)")
    assert kernel.value("ran") is False
    kernel.run(TICKS_GO_ON)


@needs_subshells
def test_the_end_of_a_subshells_cell_does_not_begin_the_cell_of_the_main_shell(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import signal, threading
        shell, has_ended, ran = get_ipython(), threading.Event(), False
        def interrupt_once(lines):
            if any('# the cell' in line for line in lines):
                shell.input_transformers_cleanup.remove(interrupt_once)
                print('waits', flush=True)
                has_ended.wait(30)
                signal.raise_signal(signal.SIGINT)
            return lines
        def note_end(result):
            if result.info.raw_cell.startswith('pass'):
                shell.events.unregister('post_run_cell', note_end)
                has_ended.set()
        shell.input_transformers_cleanup.insert(0, interrupt_once)
        shell.events.register('post_run_cell', note_end)
        """
    )
    cell = kernel.start("ran = True  # the cell")
    cell.wait_output("waits")
    kernel.execute("pass", subshell_id=kernel.create_subshell())

    assert cell.wait().ename == "KeyboardInterrupt"
    assert kernel.value("ran") is False


@needs_subshells
@pytest.mark.parametrize("code", ["", "asyncio.run(asyncio.sleep(0.1))"], ids=["plain", "nested run"])
def test_an_idle_kernel_ignores_interrupts_after_a_subshells_cell(kernel: KernelDriver, code: str) -> None:
    kernel.run(
        """
        import threading
        may_end = threading.Event()
        """
    )
    cell = kernel.start(
        f"""
        print('waits', flush=True)
        may_end.wait(30)
        {code}
        """
    )
    cell.wait_output("waits")
    kernel.execute("may_end.set()", subshell_id=kernel.create_subshell())
    cell.wait().expect_ok()

    kernel.interrupt()

    assert kernel.value("1 + 1") == 2
    kernel.run(TICKS_GO_ON)


#: Under the name of its file, the first and the last thing that a TaskGroup does when its block has failed.
INTERRUPTS_GROUPS = dedented(
    """
    import asyncio, functools, signal
    def interrupting(stock):
        @functools.wraps(stock)
        def call(self, *args, **options):
            asyncio.TaskGroup._abort = stock
            signal.raise_signal(signal.SIGINT)
            return stock(self, *args, **options)
        return call
    asyncio.TaskGroup._abort = interrupting(asyncio.TaskGroup._abort)
    """
)


@pytest.mark.parametrize("magic", ["", "%%aloop"])
def test_a_second_interrupt_while_a_group_ends_its_children_leaves_none(
    kernel: KernelDriver, magic: str
) -> None:
    kernel.run(f"exec(compile({INTERRUPTS_GROUPS!r}, asyncio.taskgroups.__file__, 'exec'))")

    result = kernel.execute(
        below(
            magic,
            """
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(asyncio.sleep(600), name='child')
                await asyncio.sleep(0)
                raise KeyboardInterrupt
            """,
        )
    )

    assert result.ename in {"CancelledError", "KeyboardInterrupt"}
    kernel.run("await asyncio.sleep(0.05)")
    assert kernel.value("'child' in [task.name for task in loopnb.tasks()]") is False
    kernel.run(TICKS_GO_ON)


#: Under the name of its file, what `gather` calls for each child.
INTERRUPTS_GATHER = dedented(
    """
    import signal
    def interrupt_when_a_child_is_made(loop):
        stock = loop.create_task
        def create_task(*args, **options):
            loop.create_task = stock
            task = stock(*args, **options)
            signal.raise_signal(signal.SIGINT)
            return task
        loop.create_task = create_task
    """
)


@pytest.mark.parametrize("magic", ["", "%%aloop"])
def test_an_interrupt_while_gather_makes_its_children_leaves_none(kernel: KernelDriver, magic: str) -> None:
    kernel.run(f"exec(compile({INTERRUPTS_GATHER!r}, asyncio.tasks.__file__, 'exec'))")
    kernel.run(
        """
        async def child():
            await asyncio.sleep(600)
        """
    )

    result = kernel.execute(
        below(
            magic,
            """
            await asyncio.sleep(0)
            interrupt_when_a_child_is_made(asyncio.get_running_loop())
            await asyncio.gather(child(), child(), child())
            """,
        )
    )

    assert result.ename in {"CancelledError", "KeyboardInterrupt"}
    kernel.run("await asyncio.sleep(0.05)")
    assert kernel.value("any('child' in repr(task) for task in asyncio.all_tasks())") is False
    kernel.run(TICKS_GO_ON)


@pytest.mark.parametrize("magic", ["", "%%aloop"])
def test_an_interrupt_while_another_is_handled_is_not_raised_there(kernel: KernelDriver, magic: str) -> None:
    # The first comes while a group ends its children, and asks the loop. What the second would raise there
    # would keep the first from asking: later cells would wait for its answer, and lose their interrupts.
    kernel.run(
        """
        import signal, threading
        loop = asyncio.get_running_loop()
        def call_soon_threadsafe(*args, **options):
            if threading.current_thread() is threading.main_thread() and 'call_soon_threadsafe' in vars(loop):
                del loop.call_soon_threadsafe
                signal.raise_signal(signal.SIGINT)
            return type(loop).call_soon_threadsafe(loop, *args, **options)
        """
    )
    kernel.run(f"exec(compile({INTERRUPTS_GROUPS!r}, asyncio.taskgroups.__file__, 'exec'))")

    kernel.execute(
        below(
            magic,
            """
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(600), name='child')
                await asyncio.sleep(0)
                loop.call_soon_threadsafe = call_soon_threadsafe
                raise KeyboardInterrupt
            """,
        )
    )
    cell = kernel.start(
        """
        print('waits', flush=True)
        asyncio.run(asyncio.sleep(600))
        """
    )
    cell.wait_output("waits")
    kernel.interrupt()

    assert cell.wait().ename == "KeyboardInterrupt"
    assert kernel.value("'call_soon_threadsafe' in vars(loop)") is False
    assert kernel.value("'child' in [task.name for task in loopnb.tasks()]") is False


@pytest.mark.parametrize("magic", ["", "%%aloop"])
def test_an_interrupt_of_a_task_that_blocks_when_its_cell_has_just_ended_ends_no_kernel(
    kernel: KernelDriver, magic: str
) -> None:
    kernel.run(
        """
        import signal
        async def blocks():
            await cell_ends.wait()
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
                time.sleep(0.15)
        cell_ends = asyncio.Event()
        """
    )

    kernel.run(
        below(
            magic,
            """
            blocking = asyncio.create_task(blocks())
            await asyncio.sleep(0)
            cell_ends.set()
            """,
        )
    )

    assert kernel.value("isinstance(blocking.exception(), KeyboardInterrupt)") is True
    kernel.run(TICKS_GO_ON)


#: No code of a cell's, where an interrupt would be raised.
INTERRUPTS_ONCE = dedented(
    """
    import signal
    class InterruptsOnce:
        def visit(self, tree):
            get_ipython().ast_transformers.remove(self)
            signal.raise_signal(signal.SIGINT)
            return tree
    """
)


@pytest.mark.parametrize("magic", ["", "%%aloop"])
def test_an_interrupt_just_before_a_step_that_blocks_ends_an_await_cell(
    kernel: KernelDriver, magic: str
) -> None:
    # The callback runs in the same pass of the loop as the step, so the loop has no time to answer.
    result = kernel.execute(
        below(
            magic,
            """
            import signal
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
            await asyncio.sleep(0)
            [time.sleep(0.1) for _ in range(600)]
            """,
        )
    )

    assert result.ename == "KeyboardInterrupt"
    kernel.run(TICKS_GO_ON)


@pytest.mark.parametrize("magic", ["", "%%aloop"])
def test_an_interrupt_that_a_step_has_raised_does_not_cancel_its_cleanup(
    kernel: KernelDriver, magic: str
) -> None:
    result = kernel.execute(
        below(
            magic,
            """
            import signal
            async def other():
                signal.raise_signal(signal.SIGINT)
            other_task = asyncio.create_task(other())
            try:
                await asyncio.sleep(0)
                [time.sleep(0.1) for _ in range(600)]
            finally:
                await asyncio.sleep(0.1)
                print('cleaned')
            """,
        )
    )

    assert result.ename == "KeyboardInterrupt"
    assert "cleaned" in result.stdout
    kernel.run(TICKS_GO_ON)


def test_an_interrupt_just_before_a_statement_that_blocks_ends_an_await_cell(kernel: KernelDriver) -> None:
    kernel.run(
        f"""
        exec({INTERRUPTS_ONCE!r})
        get_ipython().ast_transformers.append(InterruptsOnce())
        """
    )

    result = kernel.execute("[time.sleep(0.1) for _ in range(600)]; await asyncio.sleep(0)")

    assert result.ename == "KeyboardInterrupt"
    assert kernel.value("1 + 1") == 2


ERRORS = {
    "plain": "raise Interrupts",
    "await": "await fails()",
    "%%aloop": below("%%aloop", "await fails()"),
    "asyncio.run": "asyncio.run(fails())",
}


@pytest.mark.parametrize("code", ERRORS.values(), ids=ERRORS)
def test_an_interrupt_in_the_str_of_a_cells_error_costs_no_reply(kernel: KernelDriver, code: str) -> None:
    # IPython calls it where it shows the error, and where it stores it; the kernel for its reply.
    kernel.run(
        """
        import signal

        class Interrupts(Exception):
            def __str__(self):
                calls.append(sys._getframe(1).f_code.co_name)
                if len(calls) - 1 in interrupted:
                    signal.raise_signal(signal.SIGINT)
                return "text"

        async def fails():
            await asyncio.sleep(0)
            raise Interrupts

        import sys
        """
    )

    def calls_interrupted_at(*numbers: int) -> list[str]:
        kernel.run(f"calls, interrupted = [], {numbers}")
        assert kernel.execute(code).ename in {"Interrupts", "KeyboardInterrupt"}
        return list(kernel.value("calls"))

    calls = calls_interrupted_at()
    for number in range(len(calls)):
        calls_interrupted_at(number)
    calls_interrupted_at(*range(2 * len(calls)))

    assert calls[-1] == "do_execute"
    kernel.run(TICKS_GO_ON)


#: Under this name code counts as its caller's, here as IPython's or as that of the library of its attributes.
LATE = dedented(
    """
    import signal
    shell = get_ipython()
    def interrupt_at_event():
        shell.events.unregister("post_execute", interrupt_at_event)
        signal.raise_signal(signal.SIGINT)
    def interrupt_at_change(change):
        shell.payload_manager.unobserve(interrupt_at_change, "_payload")
        signal.raise_signal(signal.SIGINT)
    """
)
LATE_PLACES = {
    "event": "shell.events.register('post_execute', interrupt_at_event)",
    "attribute": """
        shell.payload_manager.write_payload({"source": "a test"})
        shell.payload_manager.observe(interrupt_at_change, "_payload")
        """,
}


@pytest.mark.parametrize("place", LATE_PLACES.values(), ids=LATE_PLACES)
@pytest.mark.parametrize("code", ["", "await asyncio.sleep(0)"], ids=["plain", "await"])
def test_an_interrupt_in_ipythons_code_after_a_cell_does_not_cost_the_reply(
    kernel: KernelDriver, code: str, place: str
) -> None:
    kernel.run(f"exec(compile({LATE!r}, '<string>', 'exec'))")

    result = kernel.execute(below(dedented(place), code))

    assert result.status == "ok"
    assert "Error in callback" not in result.stdout + result.stderr
    kernel.run(TICKS_GO_ON)


#: Interrupts IPython when it has called what is named in `interrupted`; in its own code, as above.
INTERRUPTED_CALLS = dedented(
    """
    import signal
    from IPython.core import interactiveshell
    shell = get_ipython()
    interrupted, ends = [], []
    def check(name):
        if name in interrupted:
            interrupted.remove(name)
            signal.raise_signal(signal.SIGINT)
    def interrupting(owner, name):
        stock = getattr(owner, name)
        def call(*args, **options):
            try:
                return stock(*args, **options)
            finally:
                check(name)
        setattr(owner, name, call)
    def interrupting_async(owner, name):
        stock = getattr(owner, name)
        async def call(*args, **options):
            try:
                return await stock(*args, **options)
            finally:
                check(name)
        setattr(owner, name, call)
    interrupting(shell, "_run_cell")
    interrupting(interactiveshell, "ExecutionInfo")
    interrupting_async(shell, "run_ast_nodes")
    shell.events.register("post_execute", lambda: ends.append("executed"))
    shell.events.register("post_run_cell", lambda result: ends.append(type(result.error_in_exec).__name__))
    """
)


@pytest.mark.parametrize(
    ("names", "ends_in"),
    [
        (["_run_cell"], "NoneType"),
        (["run_ast_nodes"], "KeyboardInterrupt"),
        (["run_ast_nodes", "ExecutionInfo"], "KeyboardInterrupt"),
    ],
    ids=["between the cell and the events", "after the last statement", "and where a result is made of that"],
)
def test_the_events_of_a_cells_end_are_fired_once_if_ipython_is_interrupted_there(
    stock_kernel: KernelDriver, names: list[str], ends_in: str
) -> None:
    stock_kernel.run(f"exec(compile({INTERRUPTED_CALLS!r}, '<string>', 'exec'))")
    stock_kernel.run("%load_ext loopnb")
    stock_kernel.run("import asyncio, loopnb")

    cell = stock_kernel.start(
        f"""
        interrupted += {names}
        ends.clear()
        'ended'
        """,
        stop_on_error=False,
    )

    result = cell.wait()
    assert result.result == "'ended'"
    assert (result.ename or "NoneType") == ends_in
    asked = ["executed"]  # by the request that asks
    assert stock_kernel.value("ends") == ["executed", ends_in, *asked]
    assert stock_kernel.value("(interrupted, loopnb.session.current().cell)") == ([], None)
    stock_kernel.run("asyncio.run(asyncio.sleep(0))")


@pytest.mark.parametrize(
    ("code", "names"),
    [("", ["run_ast_nodes", "ExecutionInfo"]), ("await asyncio.sleep(0)", ["run_ast_nodes"])],
    ids=["plain", "await"],
)
@pytest.mark.parametrize("inner", ["'inner'", "1 / 0"], ids=["succeeded", "failed"])
def test_a_cell_that_is_interrupted_in_ipythons_code_does_not_end_as_a_cell_that_it_has_run(
    stock_kernel: KernelDriver, code: str, names: list[str], inner: str
) -> None:
    stock_kernel.run(f"exec(compile({INTERRUPTED_CALLS!r}, '<string>', 'exec'))")
    stock_kernel.run(
        """
        def check(name):
            if name in interrupted:
                interrupted.remove(name)
                raise KeyboardInterrupt
        """
    )
    stock_kernel.run("%load_ext loopnb")
    stock_kernel.run("import asyncio")

    outer = dedented(
        f"""
        inner = shell.run_cell({inner!r})
        interrupted += {names}
        """
    )

    cell = stock_kernel.start(below(outer, code), stop_on_error=False)

    assert cell.wait().ename == "KeyboardInterrupt"
    assert stock_kernel.value("type(inner.error_in_exec).__name__") == (
        "NoneType" if inner == "'inner'" else "ZeroDivisionError"
    )
    stock_kernel.run("asyncio.run(asyncio.sleep(0))")


def test_an_interrupt_in_a_callback_from_before_loading_is_too_late(stock_kernel: KernelDriver) -> None:
    stock_kernel.run(f"exec(compile({LATE!r}, '<string>', 'exec'))")

    result = stock_kernel.execute(
        """
        shell.events.register('post_execute', interrupt_at_event)
        %load_ext loopnb
        """
    )

    assert result.status == "ok"
    assert "Error in callback" not in result.stdout + result.stderr


def test_a_cells_code_finds_sigint_and_wakeup_descriptor_as_in_stock(kernel: KernelDriver) -> None:
    # Else `trio` and `asyncio.Runner` would not guard themselves, or would warn.
    kernel.run("import signal")

    kernel.run("is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler")
    kernel.run("descriptor = signal.set_wakeup_fd(-1)")

    assert kernel.value("(is_default, descriptor)") == (True, -1)


def test_a_signal_handler_of_the_loop_leaves_interrupts_alone_when_it_goes(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import signal, threading
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, print)
        loop.remove_signal_handler(signal.SIGUSR1)
        """
    )
    # A thread takes the signal, so the main thread's call goes on: as if it came just before the call.
    result = kernel.execute(
        """
        def interrupts():
            time.sleep(0.1)
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        threading.Thread(target=interrupts).start()
        time.sleep(60)
        """
    )

    assert result.ename == "KeyboardInterrupt"


@pytest.mark.parametrize(
    "code",
    [
        dedented(
            """
            %%time
            %%aloop -n orphan
            await asyncio.sleep(60)
            """
        ),
        "loopnb.run(orphan())",
    ],
    ids=["aloop", "loopnb.run"],
)
def test_an_interrupt_between_the_birth_of_a_run_and_its_wait_leaves_no_task(
    kernel: KernelDriver, code: str
) -> None:
    kernel.run(
        """
        from loopnb.session import Session
        stock = Session.spawn
        def spawn(self, coro, **options):
            Session.spawn = stock
            stock(self, coro, **options)
            raise KeyboardInterrupt
        Session.spawn = spawn
        async def orphan():
            await asyncio.sleep(60)
        """
    )

    result = kernel.execute(code)

    assert "KeyboardInterrupt" in result.cell.text
    kernel.run("await asyncio.sleep(0.05)")
    assert kernel.value("any('orphan' in repr(task) for task in asyncio.all_tasks())") is False
