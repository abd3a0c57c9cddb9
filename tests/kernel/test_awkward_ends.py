"""Cells that end in what would end a loop, and interrupts that come too fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cells import dedented, filled
from tests.kernel.conftest import assert_ended_in, needs_subshells

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver

# As a timeout by `signal.alarm` does it.
ALARM = dedented(
    """
    import signal
    def too_late(*_): raise LookupError('too late')
    signal.signal(signal.SIGALRM, too_late)
    asyncio.get_running_loop().call_soon(signal.setitimer, signal.ITIMER_REAL, 0.05)  # once the cell waits
    """
)
EXITS = dedented(
    """
    async def exits():
        await asyncio.sleep(0.01)
        raise SystemExit(3)
    async def group():
        async with asyncio.TaskGroup() as group:
            group.create_task(exits())
            group.create_task(asyncio.sleep(60))
    """
)
ENDS = {
    "SystemExit": (
        dedented(
            """
            %%aloop
            raise SystemExit(3)
            """
        ),
        "SystemExit",
    ),
    "KeyboardInterrupt": (
        dedented(
            """
            %%aloop
            raise KeyboardInterrupt
            """
        ),
        "KeyboardInterrupt",
    ),
    "GeneratorExit": (
        dedented(
            """
            %%aloop
            raise GeneratorExit
            """
        ),
        "GeneratorExit",
    ),
    "under time": (
        dedented(
            """
            %%time
            %%aloop
            raise SystemExit(3)
            """
        ),
        "SystemExit",
    ),
    "line form": (
        dedented(
            """
            async def f(): raise SystemExit(3)
            %aloop f()
            """
        ),
        "SystemExit",
    ),
    "nested run": (
        dedented(
            """
            async def f(): raise SystemExit(3)
            asyncio.run(f())
            """
        ),
        "SystemExit",
    ),
    "task that a cell awaits": (
        dedented(
            """
            async def f(): raise SystemExit(3)
            await asyncio.create_task(f())
            """
        ),
        "SystemExit",
    ),
    "task that wait_for awaits, nested": (
        filled(
            """
            {}
            asyncio.run(asyncio.wait_for(exits(), 5))
            """,
            EXITS,
        ),
        "SystemExit",
    ),
    "task of a group, nested": (
        filled(
            """
            {}
            asyncio.run(group())
            """,
            EXITS,
        ),
        "SystemExit",
    ),
    "task of a group that a cell awaits": (
        filled(
            """
            {}
            await group()
            """,
            EXITS,
        ),
        "SystemExit",
    ),
    "task of a group that is gathered": (
        filled(
            """
            {}
            await asyncio.gather(group(), asyncio.sleep(60))
            """,
            EXITS,
        ),
        "SystemExit",
    ),
    "signal handler while a cell nests": (
        filled(
            """
            {}
            asyncio.run(asyncio.sleep(60))
            """,
            ALARM,
        ),
        "LookupError",
    ),
    "signal handler while a cell awaits": (
        filled(
            """
            {}
            await asyncio.sleep(60)
            """,
            ALARM,
        ),
        "LookupError",
    ),
    "callback while a cell awaits": (
        dedented(
            """
            def f(): raise SystemExit(3)
            asyncio.get_running_loop().call_soon(f)
            await asyncio.sleep(60)
            """
        ),
        "SystemExit",
    ),
}


@pytest.fixture(autouse=True)
def imports(kernel: KernelDriver) -> None:
    kernel.run("import asyncio, time")


@pytest.mark.parametrize(("code", "ename"), ENDS.values(), ids=ENDS)
def test_it_ends_the_cell_and_not_the_kernel(kernel: KernelDriver, code: str, ename: str) -> None:
    assert_ended_in(kernel.execute(code), ename)

    # Whoever has awaited the task that has raised it raises it once more, and nobody is in its way.
    assert kernel.run("asyncio.run(asyncio.sleep(0.01, 'lives'))").result == "'lives'"
    assert kernel.run("import gc; gc.collect(); await asyncio.sleep(0.01)").stderr == ""


BLOCKS = dedented(
    """
    async def block():
        print('waits', flush=True)
        time.sleep(60)
    async def group():
        async with asyncio.TaskGroup() as group:
            group.create_task(block())
            group.create_task(asyncio.sleep(60))
    """
)


@pytest.mark.parametrize(
    "wait",
    [
        "asyncio.run(asyncio.wait_for(block(), 60))",
        "asyncio.run(group())",
        "await group()",
        "await asyncio.gather(asyncio.wait_for(block(), 60), asyncio.sleep(60))",
    ],
)
def test_interrupts_end_a_task_that_blocks_below_others(kernel: KernelDriver, wait: str) -> None:
    kernel.run(BLOCKS)
    cell = kernel.start(wait)
    cell.wait_output("waits")

    kernel.interrupt_until_done(cell)

    assert cell.wait().ename == "KeyboardInterrupt"
    assert kernel.run("await asyncio.sleep(0.01, 'lives')").result == "'lives'"


@pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt"])
def test_what_would_end_a_loop_goes_to_the_thread_that_waits_for_it(kernel: KernelDriver, error: str) -> None:
    kernel.run(
        f"""
        import loopnb
        async def ends():
            await asyncio.sleep(0.01)
            raise {error}
        def runs():
            try:
                loopnb.run(ends())
            except {error}:
                return 'its own'
        """
    )

    assert kernel.run("await asyncio.to_thread(runs)").result == "'its own'"
    assert kernel.run("await asyncio.sleep(0.01, 'lives')").result == "'lives'"


def test_what_a_thread_runs_is_a_task_like_any_other(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio, loopnb, threading
        async def slow(): await asyncio.sleep(60)
        """
    )
    kernel.run(
        """
        threading.Thread(target=lambda: loopnb.run(slow())).start()
        async def appears():
            while 'slow' not in [task.coro for task in loopnb.tasks()]: await asyncio.sleep(0.01)
        await asyncio.wait_for(appears(), 15)
        """
    )

    names = kernel.value("[task.name for task in loopnb.tasks() if task.coro == 'slow']")
    assert kernel.value("[task.get_name() for task in asyncio.all_tasks()]").count(names[0]) == 1
    kernel.run(f"%loopnb cancel {names[0]}")


@needs_subshells
@pytest.mark.parametrize("run", ["asyncio.run", "loopnb.run"])
def test_what_would_end_a_loop_goes_to_the_subshells_cell(kernel: KernelDriver, run: str) -> None:
    kernel.run(
        """
        import loopnb
        async def exits():
            await asyncio.sleep(0.01)
            raise SystemExit(3)
        """
    )

    result = kernel.execute(f"{run}(exits())", subshell_id=kernel.create_subshell())

    assert result.ename == "SystemExit"
    assert kernel.run("await asyncio.sleep(0.01, 'lives')").result == "'lives'"


def test_a_background_cell_that_exits_is_reported_and_the_kernel_lives(kernel: KernelDriver) -> None:
    cell = kernel.start(
        """
        %%aloop -b
        await asyncio.sleep(0.05)
        raise SystemExit(3)
        """
    )
    cell.wait().expect_ok()

    assert "SystemExit: 3" in cell.wait_output("the background cell ended in")
    assert "loopnb/" not in cell.text
    assert kernel.run("await asyncio.sleep(0, 'lives')").result == "'lives'"


def test_a_nested_runs_exit_is_the_callers_to_catch(kernel: KernelDriver) -> None:
    kernel.run(
        """
        async def exits(): raise SystemExit(5)
        async def catches():
            try:
                asyncio.run(exits())
            except SystemExit as error:
                return error.code
        """
    )

    assert kernel.run("asyncio.run(catches())").result == "5"


@pytest.mark.parametrize(
    "code",
    [
        "await asyncio.sleep(60)",
        dedented(
            """
            %%aloop
            print('waits', flush=True)
            await asyncio.sleep(60)
            """
        ),
        "asyncio.run(asyncio.sleep(60))",
    ],
    ids=["await", "aloop", "nested run"],
)
def test_interrupts_in_quick_succession_end_the_cell_and_not_the_kernel(
    kernel: KernelDriver, code: str
) -> None:
    if "waits" not in code:
        code = f"asyncio.get_running_loop().call_soon(lambda: print('waits', flush=True)); {code}"
    cell = kernel.start(code)
    cell.wait_output("waits")

    for _ in range(4):
        kernel.interrupt()

    assert cell.wait().ename in {"CancelledError", "KeyboardInterrupt"}
    assert kernel.run("asyncio.run(asyncio.sleep(0.01, 'lives'))").result == "'lives'"


@pytest.mark.parametrize(
    "code",
    [
        dedented(
            """
            %%aloop
            print('waits', flush=True)
            [time.sleep(0.1) for _ in range(600)]
            """
        ),
        dedented(
            """
            async def blocks():
                print('waits', flush=True)
                [time.sleep(0.1) for _ in range(600)]
            await asyncio.create_task(blocks())
            """
        ),
    ],
    ids=["aloop", "task that a cell awaits"],
)
def test_code_that_blocks_is_ended(kernel: KernelDriver, code: str) -> None:
    cell = kernel.start(code)
    cell.wait_output("waits")

    kernel.interrupt_until_done(cell)

    assert cell.wait().ename in {"CancelledError", "KeyboardInterrupt"}
    assert kernel.run("asyncio.run(asyncio.sleep(0.01, 'lives'))").result == "'lives'"


def test_aloop_runs_where_ipython_does_not_await(kernel: KernelDriver) -> None:
    kernel.run("get_ipython().autoawait = False")
    try:
        result = kernel.run(
            """
            %%aloop
            await asyncio.sleep(0.01)
            7
            """
        )
        assert result.result == "7"
    finally:
        kernel.run("get_ipython().autoawait = True")


def test_a_name_may_be_given_in_quotes_behind_joined_options(kernel: KernelDriver) -> None:
    kernel.run(
        """
        %%aloop -bn 'two words' -o value
        await asyncio.sleep(0)
        asyncio.current_task().get_name()
        """
    )
    kernel.run("value = await value")

    assert kernel.value("value") == "two words"


def test_a_runner_left_open_is_closed_by_unloading_and_ends_nobodys_tasks(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run(
        """
        import asyncio, loopnb
        task = loopnb.spawn(asyncio.sleep(60))
        runner = asyncio.Runner()
        runner.run(asyncio.sleep(0))
        %unload_ext loopnb
        """
    )

    fresh_kernel.run("runner.close()")

    assert not fresh_kernel.value("task.done()")
