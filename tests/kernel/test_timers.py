"""IPython's magics that measure code, with `await` in it, in a real kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cells import below
from tests.kernel.conftest import assert_ended_in

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver

DEFINITIONS = """
import asyncio
calls = []
async def f(value=7):
    calls.append(value)
    await asyncio.sleep(0.001)
    return value
"""


@pytest.mark.parametrize(
    "cell", ["%time await f()", below("%%time", "x = 1; await f()"), below("%%aloop", "%time await f()")]
)
def test_time_measures_what_is_awaited_and_shows_its_value(kernel: KernelDriver, cell: str) -> None:
    kernel.run(DEFINITIONS)
    result = kernel.run(cell)

    assert "Wall time:" in result.stdout
    assert result.result == "7"
    assert kernel.value("len(calls)") == 1


@pytest.mark.parametrize(
    "cell",
    [
        "%time f'{await f()!s:>2}'",
        "%time f'{[await f() for _ in \"a\"][0]} '[::-1]",
        below("%%time", "text = f'{await f():2}'; text"),
    ],
)
def test_an_await_in_an_f_string_is_measured(kernel: KernelDriver, cell: str) -> None:
    kernel.run(DEFINITIONS)
    result = kernel.run(cell)

    assert "Wall time:" in result.stdout
    assert result.result == "' 7'"


def test_what_a_timed_cell_assigns_stays(kernel: KernelDriver) -> None:
    kernel.run(DEFINITIONS)
    kernel.run("%time x = await f(5)")
    kernel.run(
        """
        %%time
        y = await f(6)
        for i in range(2):
            z = await f(i)
        """
    )

    assert kernel.value("(x, y, z)") == (5, 6, 1)


@pytest.mark.parametrize(
    "cell",
    [
        "%timeit -n 3 -r 2 await f()",
        below("%%timeit -n 3 -r 2 await f()", "await f()"),
        below("%%aloop", "%timeit -n3 -r2 await f()"),
    ],
)
def test_timeit_awaits_as_often_as_it_was_told(kernel: KernelDriver, cell: str) -> None:
    kernel.run(DEFINITIONS)
    result = kernel.run(cell)

    assert "2 runs, 3 loops each" in result.stdout
    assert kernel.value("len(calls)") in {6, 8}  # 8 with the set-up


ASYNC = """
import asyncio
from contextlib import asynccontextmanager
entered = []
@asynccontextmanager
async def opened(value):
    entered.append(value)
    await asyncio.sleep(0.001)
    yield value
async def counts():
    for i in range(3):
        await asyncio.sleep(0)
        yield i
"""


def test_async_with_and_async_for_are_measured_and_their_names_stay(kernel: KernelDriver) -> None:
    kernel.run(ASYNC)
    result = kernel.run(
        """
        %%time
        total = 0
        async with opened(7) as value:
            async for i in counts():
                total += i
        (value, total, [i async for i in counts()])
        """
    )

    assert "Wall time:" in result.stdout
    assert result.result == "(7, 3, [0, 1, 2])"
    assert kernel.value("(value, total)") == (7, 3)


def test_an_error_in_async_with_shows_the_users_frames_alone(kernel: KernelDriver) -> None:
    kernel.run(ASYNC)
    reply = kernel.execute(
        """
        %%time
        async with opened(7):
            1 / 0
        """
    )

    assert_ended_in(reply, "ZeroDivisionError")
    assert "timers.py" not in reply.cell.text
    assert "session.py" not in reply.cell.text


@pytest.mark.parametrize("magic", ["%%timeit -n 3 -r 2", "%%prun -q"])
def test_other_magics_take_async_with(kernel: KernelDriver, magic: str) -> None:
    kernel.run(ASYNC)
    kernel.run(
        below(
            magic,
            """
            async with opened(1) as x:
                y = x + 1
            entered.append(y)
            """,
        )
    )

    assert kernel.value("set(entered)") == {1, 2}


def test_prun_profiles_what_is_awaited(kernel: KernelDriver) -> None:
    kernel.run(DEFINITIONS)
    kernel.run("%prun -q -D profile.out await f()")

    assert kernel.value("len(calls)") == 1


def test_aloop_above_time_awaits(kernel: KernelDriver) -> None:
    kernel.run(DEFINITIONS)
    result = kernel.run(
        """
        %%aloop -n timed
        %%time
        await f()
        """
    )

    assert "Wall time:" in result.stdout
    assert result.result == "7"


def test_other_tasks_run_and_an_error_is_shown_as_ever(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio
        ran = []
        async def fails():
            asyncio.get_running_loop().call_soon(ran.append, 1)
            await asyncio.sleep(0.01)
            raise LookupError("mine")
        """
    )
    result = kernel.execute("%time await fails()")

    assert "LookupError: mine" in result.cell.text
    assert kernel.value("ran") == [1]


def test_an_interrupt_ends_it(kernel: KernelDriver) -> None:
    cell = kernel.start(
        """
        import asyncio
        print("waits", flush=True)
        %time await asyncio.sleep(60)
        """
    )
    cell.wait_output("waits")
    kernel.interrupt()
    cell.wait()

    assert kernel.value("1 + 1") == 2


@pytest.mark.parametrize("cell", ["%time await fails()", below("%%timeit -n 1", "await fails()")])
def test_a_traceback_shows_the_users_frames_alone(kernel: KernelDriver, cell: str) -> None:
    kernel.run("async def fails(): 1 / 0")
    reply = kernel.execute(cell)

    assert_ended_in(reply, "ZeroDivisionError")
    assert "session.py" not in reply.cell.text
    assert "timers.py" not in reply.cell.text


@pytest.mark.parametrize("cell", ["%time token = await set_it()", below("%%time", "token = await set_it()")])
def test_context_variables_that_are_set_meanwhile_hold(kernel: KernelDriver, cell: str) -> None:
    kernel.run(
        """
        import asyncio
        from contextvars import ContextVar
        who = ContextVar("who", default="nobody")
        async def set_it():
            await asyncio.sleep(0)
            return who.set("timed")
        """
    )
    kernel.run(cell)
    kernel.run(
        """
        found = [who.get()]
        who.reset(token)
        found.append(who.get())
        """
    )

    assert kernel.value("found") == ["timed", "nobody"]
