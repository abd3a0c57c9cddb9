"""`%%aloop --fresh`: a cell on a loop of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cells import below, dedented, filled
from tests.kernel.conftest import assert_ended_in, needs_subshells

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver


@pytest.fixture(autouse=True)
def imports(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio, loopnb, threading, time
        value = None
        kernels = asyncio.get_running_loop()
        """
    )


def goes_on(kernel: KernelDriver) -> bool:
    """Run something on the kernel's loop."""
    return kernel.run("await asyncio.sleep(0, asyncio.get_running_loop() is kernels)").result == "True"


def test_it_runs_on_a_loop_of_its_own_which_is_closed_afterwards(kernel: KernelDriver) -> None:
    cell = kernel.run(
        """
        %%aloop --fresh
        await asyncio.sleep(0.01)
        value = asyncio.get_running_loop()
        6
        """
    )

    assert cell.result == "6"
    assert kernel.value("value is not kernels and value.is_closed()")
    assert goes_on(kernel)


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("%aloop --fresh asyncio.sleep(0.01, 'a value')", "'a value'"),
        (
            dedented(
                """
                %%time
                %%aloop --fresh
                await asyncio.sleep(0.01, 'a value')
                """
            ),
            "'a value'",
        ),
        (
            dedented(
                """
                %%aloop --fresh
                x = %sx echo shell
                await asyncio.sleep(0)
                x[0]
                """
            ),
            "'shell'",
        ),
        (
            dedented(
                """
                %%aloop --fresh
                await asyncio.sleep(0, 6);
                """
            ),
            "",
        ),
        (
            dedented(
                """
                %%aloop --fresh -n mine
                asyncio.current_task().get_name()
                """
            ),
            "'mine'",
        ),
        (
            dedented(
                """
                %%aloop --fresh
                asyncio.run(asyncio.sleep(0.01, 'nested'))
                """
            ),
            "'nested'",
        ),
        (
            dedented(
                """
                %%aloop --fresh
                %aloop --fresh asyncio.sleep(0.01, 'another')
                """
            ),
            "'another'",
        ),
        (
            dedented(
                """
                %%aloop --fresh
                len(asyncio.all_tasks())
                """
            ),
            "1",
        ),
    ],
)
def test_it_is_a_cell_like_others(kernel: KernelDriver, cell: str, shown: str) -> None:
    assert kernel.run(cell).result == shown


@pytest.mark.parametrize("code", ["%aloop asyncio.sleep(0)", "%%aloop\\nawait asyncio.sleep(0)"])
def test_inside_it_the_persistent_loop_cannot_be_waited_for(kernel: KernelDriver, code: str) -> None:
    kernel.run(
        f"""
        %%aloop --fresh
        value = get_ipython().run_cell('{code}').error_in_exec.reason
        """
    )

    assert (
        kernel.value("value")
        == "another loop runs in this thread, and the notebook's loop waits until it ends"
    )


def test_it_stores_its_value(kernel: KernelDriver) -> None:
    kernel.run(
        """
        %%aloop --fresh -o value
        await asyncio.sleep(0, 'stored')
        """
    )

    assert kernel.value("value") == "stored"


def test_the_kernels_loop_is_set_aside_meanwhile(kernel: KernelDriver) -> None:
    cell = kernel.run(
        """
        %%aloop --fresh
        await asyncio.sleep(0)
        %loopnb
        """
    )

    assert f"set aside by In[{cell.execution_count}], line 1" in cell.stdout
    assert kernel.value("loopnb.status().condition") != "set aside"


def test_errors_look_as_in_a_plain_cell(kernel: KernelDriver) -> None:
    kernel.run(
        """
        def inner():
            1 / 0
        """
    )

    result = kernel.execute(
        """
        %%aloop --fresh
        await asyncio.sleep(0)
        inner()
        """
    )

    assert result.ename == "ZeroDivisionError"
    assert "----> 3 inner()" in result.traceback
    assert "loopnb" not in result.traceback
    assert "asyncio/" not in result.traceback
    assert goes_on(kernel)


def test_a_timeout_says_where_it_was_waiting(kernel: KernelDriver) -> None:
    result = kernel.execute(
        """
        %%aloop --fresh -t 0.05 -n slow
        await asyncio.sleep(9)
        """
    )

    assert result.ename == "TimeoutError"
    assert "'slow'" in result.evalue
    assert "sleep() at In[" in result.evalue


LEAVES_MUCH = """\
%%aloop --fresh
value = []
async def one_by_one():
    try:
        yield
    finally:
        await asyncio.sleep(0.01)
        value.append('generator')
async def again():
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.01)
        value.append('second task')
async def left():
    try:
        await asyncio.sleep(60)
    finally:
        asyncio.create_task(again())
        await asyncio.sleep(0.01)
        value.append('task')
tasks = asyncio.create_task(left()), asyncio.create_task(asyncio.sleep(60))
half_read = one_by_one()
await anext(half_read)
def works_on():
    end = time.monotonic() + 20
    while 'generator' not in value and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.2)
    value.append('thread')
asyncio.get_running_loop().run_in_executor(None, works_on)
await asyncio.sleep(0)
"""


def test_what_it_leaves_ends_in_order(kernel: KernelDriver) -> None:
    cell = kernel.run(LEAVES_MUCH)

    assert [what for what in kernel.value("value") if what != "second task"] == [
        "task",
        "generator",
        "thread",
    ]
    assert cell.stderr == ""
    assert "destroyed" not in kernel.log()


def test_tasks_of_the_packages_that_the_kernel_uses_end_as_well(kernel: KernelDriver) -> None:
    kernel.run(
        """
        %%aloop --fresh
        async def left(): await asyncio.sleep(60)
        left.__code__ = left.__code__.replace(co_filename=__import__('zmq').__file__)
        task = asyncio.create_task(left())
        await asyncio.sleep(0)
        """
    )

    assert kernel.value("task.cancelled()")


@pytest.mark.parametrize(
    "body",
    [
        dedented(
            """
            try:
                await asyncio.sleep(60)
            finally:
                1 / 0
            """
        ),
        "1 / 0",
    ],
)
def test_what_fails_unseen_is_told_in_its_cell(kernel: KernelDriver, body: str) -> None:
    code = """
        %%aloop --fresh
        async def left():
            {}
        task = asyncio.create_task(left(), name='fails')
        await asyncio.sleep(0)
        """
    cell = kernel.run(filled(code, body))

    assert "task 'fails' of the fresh loop failed, and nobody awaited it: ZeroDivisionError" in cell.stderr
    collected = kernel.run(
        """
        import gc
        del task
        gc.collect();
        """
    )
    assert "never retrieved" not in collected.stderr


def test_a_busy_thread_does_not_hold_the_cell_up_for_ever(kernel: KernelDriver) -> None:
    kernel.run(
        """
        %config LoopNB.shutdown_grace = 0.2
        end = threading.Event()
        """
    )
    try:
        cell = kernel.run(
            """
            %%aloop --fresh
            asyncio.get_running_loop().run_in_executor(None, end.wait, 60);
            """
        )
    finally:
        kernel.run(
            """
            end.set()
            %config LoopNB.shutdown_grace = 2.0
            """
        )

    assert "a thread of the fresh loop's executor is still working" in cell.stderr


SAY = "print('waits', flush=True)"
SAY_SOON = "asyncio.get_running_loop().call_soon(lambda: print('waits', flush=True))"
WAITS = {
    "await": dedented(
        f"""
        %%aloop --fresh
        {SAY_SOON}
        await asyncio.sleep(60)
        """
    ),
    "plain code": dedented(
        f"""
        %%aloop --fresh
        {SAY}
        [time.sleep(0.1) for _ in range(600)]
        """
    ),
    "thread": dedented(
        f"""
        %%aloop --fresh
        end = threading.Event()
        {SAY_SOON}
        await asyncio.to_thread(end.wait, 60)
        """
    ),
    "nested run": dedented(
        f"""
        %%aloop --fresh
        {SAY_SOON}
        asyncio.run(asyncio.sleep(60))
        """
    ),
    "under another magic": dedented(
        f"""
        %%time
        %%aloop --fresh
        {SAY_SOON}
        await asyncio.sleep(60)
        """
    ),
    "leftover that swallows its cancellation": dedented(
        f"""
        %%aloop --fresh
        async def left():
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    {SAY_SOON}
        task = asyncio.create_task(left())
        await asyncio.sleep(0)
        """
    ),
}


@pytest.mark.parametrize("code", WAITS.values(), ids=WAITS)
def test_an_interrupt_ends_it_and_the_kernels_loop_goes_on(kernel: KernelDriver, code: str) -> None:
    kernel.run("%config LoopNB.shutdown_grace = 60.0")  # what threads have, where nobody interrupts
    cell = kernel.start(code)
    cell.wait_output("waits")

    kernel.interrupt()

    result = cell.wait()  # the waits last a minute
    assert_ended_in(result, "KeyboardInterrupt")
    assert "loopnb" not in result.traceback
    assert goes_on(kernel)
    kernel.run(
        """
        'end' in globals() and end.set();
        %config LoopNB.shutdown_grace = 2.0
        """
    )


@pytest.mark.parametrize(
    "code",
    [
        dedented(
            f"""
            async def blocks():
                {SAY}
                [time.sleep(0.1) for _ in range(600)]
            await asyncio.create_task(blocks())
            """
        ),
        dedented(
            f"""
            {SAY}
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass
            """
        ),
    ],
    ids=["blocked step", "swallowed cancellation"],
)
def test_a_second_interrupt_ends_what_the_first_could_not(kernel: KernelDriver, code: str) -> None:
    cell = kernel.start(below("%%aloop --fresh", code))
    cell.wait_output("waits")

    kernel.interrupt_until_done(cell)

    assert cell.wait().ename == "KeyboardInterrupt"
    assert goes_on(kernel)


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit(3)",
        dedented(
            """
            async def f(): raise SystemExit(3)
            await asyncio.create_task(f())
            """
        ),
    ],
)
def test_an_exit_ends_the_cell_and_closes_the_loop(kernel: KernelDriver, code: str) -> None:
    result = kernel.execute(
        filled(
            """
            %%aloop --fresh
            value = asyncio.get_running_loop()
            {}
            """,
            code,
        )
    )

    assert result.ename == "SystemExit"
    assert kernel.value("value.is_closed()")
    assert goes_on(kernel)


SEVEN = dedented(
    """
    %%aloop --fresh
    await asyncio.sleep(0.01, 7)
    """
)


def test_it_runs_while_nesting_is_off(kernel: KernelDriver) -> None:
    kernel.run("%loopnb nesting off")
    try:
        assert kernel.run(SEVEN).result == "7"
    finally:
        kernel.run("%loopnb nesting handoff")


@pytest.mark.parametrize("kind", ["nest-asyncio", "handoff"])
def test_it_runs_beside_either_engine(kernel: KernelDriver, kind: str) -> None:
    kernel.run(f"%loopnb nesting {kind}")

    assert kernel.run(SEVEN).result == "7"
    assert kernel.run("asyncio.run(asyncio.sleep(0.01, 8))").result == "8"
    kernel.run("%loopnb nesting handoff")


def test_it_runs_on_the_loop_that_the_policy_makes(stock_kernel: KernelDriver) -> None:
    stock_kernel.run(
        """
        %load_ext loopnb
        import asyncio, uvloop
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        """
    )

    cell = stock_kernel.run(
        """
        %%aloop --fresh
        await asyncio.to_thread(int)
        type(asyncio.get_running_loop())
        """
    )

    assert cell.result == "uvloop.Loop"


@needs_subshells
def test_it_runs_in_a_subshell(kernel: KernelDriver) -> None:
    cell = kernel.execute(
        "%aloop --fresh asyncio.sleep(0.01, 'in a subshell')", subshell_id=kernel.create_subshell()
    )

    assert cell.result == "'in a subshell'"
