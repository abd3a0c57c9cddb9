"""Cells that end in what would end a loop, and interrupts that come too fast."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.kernel.wire import WaitTimedOutError

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver

# As a timeout by `signal.alarm` does it.
ALARM = (
    "import signal\ndef too_late(*_): raise LookupError('too late')\n"
    "signal.signal(signal.SIGALRM, too_late); signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
)
ENDS = {
    "SystemExit": ("%%aloop\nraise SystemExit(3)", "SystemExit"),
    "KeyboardInterrupt": ("%%aloop\nraise KeyboardInterrupt", "KeyboardInterrupt"),
    "GeneratorExit": ("%%aloop\nraise GeneratorExit", "GeneratorExit"),
    "under time": ("%%time\n%%aloop\nraise SystemExit(3)", "SystemExit"),
    "line form": ("async def f(): raise SystemExit(3)\n%aloop f()", "SystemExit"),
    "nested run": ("async def f(): raise SystemExit(3)\nasyncio.run(f())", "SystemExit"),
    "task that a cell awaits": (
        "async def f(): raise SystemExit(3)\nawait asyncio.create_task(f())",
        "SystemExit",
    ),
    "signal handler while a cell nests": (f"{ALARM}asyncio.run(asyncio.sleep(60))", "LookupError"),
    "signal handler while a cell awaits": (f"{ALARM}await asyncio.sleep(60)", "LookupError"),
    "callback while a cell awaits": (
        "def f(): raise SystemExit(3)\nasyncio.get_running_loop().call_soon(f)\nawait asyncio.sleep(60)",
        "SystemExit",
    ),
}


@pytest.fixture(autouse=True)
def imports(kernel: KernelDriver) -> None:
    kernel.run("import asyncio, time")


@pytest.mark.parametrize(("code", "ename"), ENDS.values(), ids=ENDS)
def test_it_ends_the_cell_and_not_the_kernel(kernel: KernelDriver, code: str, ename: str) -> None:
    assert kernel.execute(code).ename == ename

    assert kernel.run("asyncio.run(asyncio.sleep(0.01, 'lives'))").result == "'lives'"


def test_a_background_cell_that_exits_is_reported_and_the_kernel_lives(kernel: KernelDriver) -> None:
    cell = kernel.start("%%aloop -b\nawait asyncio.sleep(0.05)\nraise SystemExit(3)")
    cell.wait().expect_ok()

    assert "SystemExit(3)" in cell.wait_late("the background cell ended in")
    assert "loopnb/" not in cell.late_text
    assert kernel.run("await asyncio.sleep(0, 'lives')").result == "'lives'"


def test_a_nested_runs_exit_is_the_callers_to_catch(kernel: KernelDriver) -> None:
    kernel.run(
        "async def exits(): raise SystemExit(5)\n"
        "async def catches():\n    try:\n        asyncio.run(exits())\n"
        "    except SystemExit as error:\n        return error.code"
    )

    assert kernel.run("asyncio.run(catches())").result == "5"


@pytest.mark.parametrize(
    "code",
    [
        "await asyncio.sleep(60)",
        "%%aloop\nprint('waits', flush=True)\nawait asyncio.sleep(60)",
        "asyncio.run(asyncio.sleep(60))",
    ],
    ids=["await", "aloop", "nested run"],
)
def test_interrupts_in_quick_succession_end_the_cell_and_not_the_kernel(
    kernel: KernelDriver, code: str
) -> None:
    if "waits" not in code:
        code = f"asyncio.get_running_loop().call_soon(lambda: print('waits', flush=True))\n{code}"
    cell = kernel.start(code)
    cell.wait_output("waits")

    for _ in range(4):
        kernel.interrupt()

    assert cell.wait().ename in {"CancelledError", "KeyboardInterrupt"}
    assert kernel.run("asyncio.run(asyncio.sleep(0.01, 'lives'))").result == "'lives'"


@pytest.mark.parametrize(
    "code",
    [
        "%%aloop\nprint('waits', flush=True)\n[time.sleep(0.1) for _ in range(600)]",
        "async def blocks():\n    print('waits', flush=True)\n    [time.sleep(0.1) for _ in range(600)]\n"
        "await asyncio.create_task(blocks())",
    ],
    ids=["aloop", "task that a cell awaits"],
)
def test_code_that_blocks_is_ended(kernel: KernelDriver, code: str) -> None:
    cell = kernel.start(code)
    cell.wait_output("waits")

    kernel.interrupt()
    while not cell.is_done:  # a blocked kernel cannot say that it has seen the first
        with contextlib.suppress(WaitTimedOutError):
            cell.wait(0.5)
        if not cell.is_done:
            kernel.interrupt()

    assert cell.wait().ename in {"CancelledError", "KeyboardInterrupt"}
    assert kernel.run("asyncio.run(asyncio.sleep(0.01, 'lives'))").result == "'lives'"


def test_aloop_runs_where_ipython_does_not_await(kernel: KernelDriver) -> None:
    kernel.run("get_ipython().autoawait = False")
    try:
        assert kernel.run("%%aloop\nawait asyncio.sleep(0.01)\n7").result == "7"
    finally:
        kernel.run("get_ipython().autoawait = True")


@pytest.mark.parametrize("option", ["--name='two words'", "-n 'two words'", "-bn 'two words'"])
def test_names_may_be_given_in_every_way(kernel: KernelDriver, option: str) -> None:
    kernel.run(f"%%aloop {option} -o value\nawait asyncio.sleep(0)\nasyncio.current_task().get_name()")
    kernel.run("value = await value if isinstance(value, asyncio.Task) else value")

    assert kernel.value("value") == "two words"


def test_a_runner_left_open_is_closed_by_unloading_and_ends_nobodys_tasks(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run(
        "import asyncio, loopnb\ntask = loopnb.spawn(asyncio.sleep(60))\n"
        "runner = asyncio.Runner()\nrunner.run(asyncio.sleep(0))\n%unload_ext loopnb"
    )

    fresh_kernel.run("runner.close()")

    assert not fresh_kernel.value("task.done()")
