"""Real SIGINT to a real kernel while a cell waits."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.conftest import needs_subshells
from tests.kernel.driver import KernelDriver
from tests.kernel.requests import Cell, Request
from tests.kernel.wire import WaitTimedOutError

if TYPE_CHECKING:
    from pathlib import Path

#: Cells that say that they wait, then wait for a minute; and what they must end in. Those that sleep do so in
#: slices: an interrupt that comes just before `time.sleep` makes its system call does not end that call.
WAITS = {
    "await": ("print('waits', flush=True); await asyncio.sleep(60)", {"CancelledError", "KeyboardInterrupt"}),
    "plain code in an await cell": (
        "await asyncio.sleep(0); print('waits', flush=True); [time.sleep(0.1) for _ in range(600)]",
        {"KeyboardInterrupt"},
    ),
    # IPython compiles the last expression after the rest has run, this one for some 20 ms.
    "an await cell between two statements": (
        "await asyncio.sleep(0); print('waits', flush=True); "
        f"[time.sleep(0.1) for _ in range(600)] + [{'time,' * 15_000}]",
        {"KeyboardInterrupt"},
    ),
    "nested run": ("print('waits', flush=True); asyncio.run(asyncio.sleep(60))", {"KeyboardInterrupt"}),
    "nested run in an await cell": (
        "await asyncio.sleep(0); print('waits', flush=True); asyncio.run(asyncio.sleep(60))",
        {"KeyboardInterrupt"},
    ),
    "aloop": ("%%aloop\nprint('waits', flush=True)\nawait asyncio.sleep(60)", {"KeyboardInterrupt"}),
    "aloop under time": (
        "%%time\n%%aloop\nprint('waits', flush=True)\nawait asyncio.sleep(60)",
        {"KeyboardInterrupt"},
    ),
    "another loop": (
        "print('waits', flush=True); other.run_until_complete(asyncio.sleep(60))",
        {"KeyboardInterrupt"},
    ),
    "another loop in an await cell": (
        "await asyncio.sleep(0); print('waits', flush=True); other.run_until_complete(asyncio.sleep(60))",
        {"KeyboardInterrupt"},
    ),
    "plain code": (
        "print('waits', flush=True); [time.sleep(0.1) for _ in range(600)]",
        {"KeyboardInterrupt"},
    ),
}


@pytest.fixture(autouse=True)
def ticker(kernel: KernelDriver) -> None:
    kernel.run("import asyncio, loopnb, time\nother = asyncio.new_event_loop()\nticks = 0")
    kernel.run(
        "%%aloop -b -n ticker\nwhile True:\n    ticks += 1\n    await asyncio.sleep(0.02)", cell_id="tick"
    )


@pytest.mark.parametrize(("code", "ends_in"), WAITS.values(), ids=WAITS)
def test_an_interrupt_ends_the_cell_and_nothing_else(
    kernel: KernelDriver, code: str, ends_in: set[str]
) -> None:
    cell = kernel.start(code)
    cell.wait_output("waits")
    interrupted_at = time.monotonic()

    kernel.interrupt()

    result = cell.wait()
    # The waits above last a minute: this bound is the requirement, not a measurement.
    assert time.monotonic() - interrupted_at < 5
    assert result.ename in ends_in
    assert "loopnb" not in result.traceback
    kernel.run("before = ticks; await asyncio.sleep(0.2)")
    assert kernel.value("ticks - before") >= 3


def test_a_second_interrupt_ends_a_step_that_blocks(kernel: KernelDriver) -> None:
    kernel.run(
        "async def block():\n    print('waits', flush=True)\n    [time.sleep(0.1) for _ in range(600)]"
    )
    cell = kernel.start("asyncio.run(block())")
    cell.wait_output("waits")

    kernel.interrupt()
    # Two signals that come at once are one to Python. A blocked kernel cannot say that it has seen
    # the first, so the second one is sent until it has had its effect.
    while not cell.is_done:
        kernel.interrupt()
        with contextlib.suppress(WaitTimedOutError):
            cell.wait(0.5)

    assert cell.wait().ename == "KeyboardInterrupt"
    assert kernel.value("ticks") > 0


def test_a_second_interrupt_ends_a_nested_run_that_swallows_the_first(kernel: KernelDriver) -> None:
    kernel.run(
        "async def swallow():\n    try:\n"
        "        print('waits', flush=True)\n        await asyncio.sleep(60)\n"
        "    except asyncio.CancelledError:\n"
        "        print('swallowed', flush=True)\n        await asyncio.sleep(60)"
    )
    cell = kernel.start("asyncio.run(swallow())")
    cell.wait_output("waits")
    kernel.interrupt()
    cell.wait_output("swallowed")

    kernel.interrupt()

    assert cell.wait().ename == "KeyboardInterrupt"


def test_an_interrupt_of_an_idle_kernel_harms_nothing(kernel: KernelDriver) -> None:
    kernel.interrupt()

    kernel.run("before = ticks; await asyncio.sleep(0.2)")
    assert kernel.value("ticks - before") >= 3


SWALLOWS = (
    "import loopnb\n"
    "async def swallow(what=asyncio.CancelledError, swallowed=0):\n"
    "    while True:\n        try:\n"
    # Said when the step has ended: an interrupt that hits the step is raised there, and swallowed.
    "            asyncio.get_running_loop().call_soon(print, f'waits {swallowed}\\n')\n"
    "            await asyncio.sleep(60)\n"
    "        except what:\n"
    "            swallowed += 1\n"
    "async def named(coro):\n    asyncio.current_task().set_name('stays')\n    await coro"
)
STUBBORN = {
    "await": "await swallow({})",
    "await a task": "await asyncio.create_task(swallow({}), name='stays')",
    "%%aloop": "%%aloop -n stays\nawait swallow({})",
    "%%aloop below %%time": "%%time\n%aloop -n stays swallow({})",
    "asyncio.run": "asyncio.run(named(swallow({})))",
    "loopnb.run": "loopnb.run(named(swallow({})))",
    "loopnb.run in time": "loopnb.run(named(swallow({})), timeout=50)",
}


@pytest.mark.parametrize("code", STUBBORN.values(), ids=STUBBORN)
def test_a_second_interrupt_ends_what_swallows_the_first(kernel: KernelDriver, code: str) -> None:
    kernel.run(SWALLOWS)
    cell = kernel.start(code.format(""))
    cell.wait_output("waits 0")
    kernel.interrupt()
    cell.wait_output("waits 1")

    kernel.interrupt()

    result = cell.wait()
    assert result.ename == "KeyboardInterrupt" or "KeyboardInterrupt" in result.stderr + result.stdout
    assert kernel.value("[task.name for task in loopnb.tasks() if task.coro in ('swallow', 'named')]") == []
    assert kernel.value("1 + 1") == 2


@pytest.mark.parametrize("code", ["%%aloop -n stays\nawait swallow({})", "loopnb.run(named(swallow({})))"])
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
    cell.wait_late("not ended yet: 'stays'. '%loopnb tasks' shows what they wait for")


def test_what_ends_at_once_when_a_callback_interrupts_is_not_named(kernel: KernelDriver) -> None:
    kernel.run("import asyncio\ndef interrupt(): raise KeyboardInterrupt")

    cell = kernel.start(
        "asyncio.get_running_loop().call_later(0.05, interrupt)\nasyncio.run(asyncio.sleep(60))"
    )

    assert cell.wait().ename == "KeyboardInterrupt"
    kernel.run("await asyncio.sleep(0.3)")
    assert "has ended" not in cell.stderr


def test_a_blocking_task_that_is_interrupted_shows_the_users_frames_only(kernel: KernelDriver) -> None:
    cell = kernel.start(
        "async def block():\n    print('waits', flush=True)\n    [time.sleep(0.1) for _ in range(600)]\n"
        "asyncio.create_task(block())\nawait asyncio.sleep(60)"
    )
    cell.wait_output("waits")

    while not cell.is_done:
        kernel.interrupt()
        with contextlib.suppress(WaitTimedOutError):
            cell.wait(0.5)

    result = cell.wait()
    assert result.ename == "KeyboardInterrupt"
    assert "[time.sleep(0.1) for _ in range(600)]" in result.traceback
    assert "loopnb/" not in result.traceback
    assert "base_events.py" not in result.traceback


LOOKS_ON = "async def looks_on(task):\n    await task\n"
AWAITS_OTHERS = {
    "await": "print('waits', flush=True); await handle",
    "gather": "print('waits', flush=True); await asyncio.gather(asyncio.sleep(60), handle)",
    "own task that awaits it": (
        "async def watch():\n    print('waits', flush=True)\n    await handle\n"
        "await asyncio.create_task(watch())"
    ),
    "nested run": (
        "async def watch():\n    print('waits', flush=True)\n    await handle\nasyncio.run(watch())"
    ),
    "aloop": "%%aloop\nprint('waits', flush=True)\nawait handle",
    **{
        name: f"{LOOKS_ON}print('waits', flush=True)\n{code}"
        for name, code in {
            "wait_for": "await asyncio.wait_for(handle, 50)",
            "wait_for in a nested run": "asyncio.run(asyncio.wait_for(handle, 50))",
            "wait_for in a gather": "await asyncio.gather(asyncio.wait_for(handle, 50), asyncio.sleep(60))",
            "gather in a wait_for": "await asyncio.wait_for(asyncio.gather(handle, asyncio.sleep(60)), 50)",
            "gather in a gather": "await asyncio.gather(asyncio.gather(handle), asyncio.sleep(60))",
            "a task in a wait_for": "await asyncio.wait_for(asyncio.create_task(looks_on(handle)), 50)",
            "a TaskGroup": (
                "async with asyncio.TaskGroup() as group:\n"
                "    group.create_task(looks_on(handle))\n"
                "    group.create_task(asyncio.sleep(60))"
            ),
            "wait": "await asyncio.wait([handle])",
        }.items()
    },
}


@pytest.mark.parametrize("code", AWAITS_OTHERS.values(), ids=AWAITS_OTHERS)
def test_an_interrupt_spares_a_background_task_that_the_cell_awaits(kernel: KernelDriver, code: str) -> None:
    kernel.run("%%aloop -b -n background -o handle\nawait asyncio.sleep(60)", cell_id="background")
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
        "async def sleeper():\n    print('waits', flush=True)\n    await asyncio.sleep(60)\n"
        "own = [asyncio.create_task(sleeper()) for _ in range(2)]\nawait asyncio.gather(*own)"
    )
    cell.wait_output("waits")

    kernel.interrupt()

    assert cell.wait().ename in {"CancelledError", "KeyboardInterrupt"}
    assert kernel.value("[task.cancelled() for task in own]") == [True, True]


def test_an_interrupt_while_a_run_begins_shows_none_of_our_errors(stock_kernel: KernelDriver) -> None:
    # The task of the cell that loads is untracked, as every cell's is on ipykernel 6: its origin is
    # made when it first spawns. The interrupt comes in there, out of C code that adds no frame.
    stock_kernel.run(
        "import asyncio, functools, itertools, loopnb.session, operator, signal, time\n"
        "once = functools.partial(signal.raise_signal, signal.SIGINT)\n"
        "clock = map(operator.call, itertools.chain([once], itertools.repeat(time.monotonic))).__next__"
    )

    result = stock_kernel.execute(
        "%load_ext loopnb\nloopnb.session.current().tracker._clock = clock\nasyncio.run(asyncio.sleep(60))"
    )

    assert result.ename == "KeyboardInterrupt"
    assert "asyncio.run(asyncio.sleep(60))" in result.traceback
    assert "AttributeError" not in result.traceback


@needs_subshells
@pytest.mark.parametrize("call", ["await asyncio.sleep(0.3, 'ended')", "asyncio.run(waits())"])
def test_an_interrupt_while_a_subshell_waits_harms_nothing(kernel: KernelDriver, call: str) -> None:
    kernel.run("async def waits():\n    return await asyncio.sleep(0.3, 'ended')")
    cell = kernel.start(f"print('waits', flush=True)\n{call}", subshell_id=kernel.create_subshell())
    cell.wait_output("waits")

    kernel.interrupt()

    assert cell.wait().result == "'ended'"
    assert kernel.run("await asyncio.sleep(0, 'goes on')").result == "'goes on'"


def test_an_interrupt_that_comes_too_late_does_not_cost_the_reply(fresh_kernel: KernelDriver) -> None:
    # Between the end of a cell, where its output is flushed, and its reply.
    fresh_kernel.run("get_ipython().kernel._execute_sleep = 1")
    cell = fresh_kernel.start("print('ended')")
    cell.wait_output("ended")

    fresh_kernel.interrupt()

    cell.wait().expect_ok()
    assert fresh_kernel.run("1 + 1").result == "2"


def test_so_it_is_in_a_kernel_that_loads_by_configuration(tmp_path: Path) -> None:
    with KernelDriver(tmp_path, arguments=["--InteractiveShellApp.extensions=['loopnb']"]) as configured:
        configured.run("get_ipython().kernel._execute_sleep = 1")
        cell = configured.start("print('ended')")
        cell.wait_output("ended")

        configured.interrupt()

        cell.wait().expect_ok()


BLANK_WAITS = {
    "nested run": "asyncio.run(asyncio.sleep(60))",
    "another loop": "asyncio.new_event_loop().run_until_complete(asyncio.sleep(60))",
}


@pytest.mark.parametrize("code", BLANK_WAITS.values(), ids=BLANK_WAITS)
def test_a_blank_cell_that_a_cell_runs_does_not_cost_it_its_interrupts(
    fresh_kernel: KernelDriver, code: str
) -> None:
    cell = fresh_kernel.start(
        f"import asyncio\nget_ipython().run_cell('')\nprint('waits', flush=True)\n{code}"
    )
    cell.wait_output("waits")

    fresh_kernel.interrupt()

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
    fresh_kernel: KernelDriver, request_type: str, code: str
) -> None:
    fresh_kernel.run(
        "import asyncio\n"
        "class Waits:\n"
        "    def __call__(self, *_):\n"
        f"        print('waits', flush=True); {code}\n"
        "    def __dir__(self):\n        self(); return []\n"
        "waits = Waits()\n"
        "get_ipython().kernel.comm_manager.register_target('waits', lambda comm, _: comm.on_msg(waits))"
    )
    opening = {"comm_id": "1", "target_name": "waits", "data": {}}
    Request(fresh_kernel.wire, fresh_kernel.wire.send("shell", "comm_open", opening)).wait_idle()
    msg_id = fresh_kernel.wire.send("shell", request_type, REQUESTS[request_type])
    asked = Cell(fresh_kernel.wire, msg_id, request_type, "")
    asked.wait_output("waits")

    # It has yet to begin waiting when it says so, and other handlers stand until it does.
    while asked.idle is None:
        fresh_kernel.interrupt()
        with contextlib.suppress(WaitTimedOutError):
            asked.wait_idle(0.5)

    assert fresh_kernel.run("1 + 1").result == "2"


def test_a_handler_of_messages_that_the_kernel_calls_can_be_interrupted(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run(
        "import time\ndef blocks(comm, message):\n"
        "    print('waits', flush=True)\n    for _ in range(600): time.sleep(0.1)\n"
        "get_ipython().kernel.comm_manager.register_target('blocks', blocks)"
    )
    content = {"comm_id": "1", "target_name": "blocks", "data": {}}
    opened = Cell(fresh_kernel.wire, fresh_kernel.wire.send("shell", "comm_open", content), "comm_open", "")
    opened.wait_output("waits")

    fresh_kernel.interrupt()

    assert fresh_kernel.run("1 + 1").result == "2"


def test_a_handler_that_the_cell_has_installed_is_called_during_its_nested_run(kernel: KernelDriver) -> None:
    cell = kernel.start(
        "import signal\nhits = []\nsignal.signal(signal.SIGINT, lambda *_: hits.append(1))\n"
        "async def until():\n    while not hits: await asyncio.sleep(0.01)\n    return 'called'\n"
        "asyncio.get_running_loop().call_soon(lambda: print('waits', flush=True))\nasyncio.run(until())"
    )
    cell.wait_output("waits")

    kernel.interrupt()

    assert cell.wait().expect_ok().result == "'called'"


BLOCKERS = "async def block(i):\n    print('go', i, flush=True)\n    [time.sleep(0.1) for _ in range(600)]\n"


@pytest.mark.parametrize(
    "code",
    [
        "await asyncio.gather(block(0), block(1))",
        "%%aloop\nawait asyncio.gather(block(0), block(1))",
        "async with asyncio.TaskGroup() as group:\n    [group.create_task(block(i)) for i in range(2)]",
        "blocking = [asyncio.create_task(block(i)) for i in range(2)]\nawait blocking[1]",
        "blocking = asyncio.create_task(block(0))\nwhile True: await asyncio.sleep(0)",
        "blocking = asyncio.create_task(block(0))\nwhile True: await asyncio.sleep(0.001)",
    ],
)
def test_interrupts_end_a_cell_with_several_tasks_that_block(kernel: KernelDriver, code: str) -> None:
    kernel.run(BLOCKERS)
    cell = kernel.start(code)
    cell.wait_output("go 0")
    interrupt_until_done(kernel, cell)

    assert cell.wait().ename in {"KeyboardInterrupt", "CancelledError"}
    assert kernel.value("1 + 1") == 2


def interrupt_until_done(kernel: KernelDriver, cell: Cell) -> None:
    """Interrupt as somebody does who is in a hurry: three times a second."""
    for _ in range(20):
        kernel.interrupt()
        with contextlib.suppress(WaitTimedOutError):
            cell.wait(0.35)
            return


@pytest.mark.parametrize(
    "code",
    [
        "await asyncio.gather(block(0), theirs)",
        "await asyncio.gather(asyncio.gather(block(0), theirs), asyncio.sleep(60))",
        "async with asyncio.TaskGroup() as group:\n    group.create_task(block(0))\n    await theirs",
    ],
)
def test_a_task_that_blocks_ends_beside_another_cells_that_lives_on(kernel: KernelDriver, code: str) -> None:
    kernel.run(f"{BLOCKERS}theirs = asyncio.create_task(asyncio.sleep(60))")
    cell = kernel.start(code)
    cell.wait_output("go 0")
    interrupt_until_done(kernel, cell)

    assert cell.wait().ename == "KeyboardInterrupt"
    assert kernel.value("theirs.done()") is False
    kernel.run("theirs.cancel()")


GROUPS = {
    "in its body": "    child = group.create_task(relay(says=True))\n    await asyncio.sleep(60)",
    "at its end": "    child = group.create_task(relay(says=True))",
    "with a child that somebody else has spawned": (
        "    child = group.create_task(relay())\n    await asyncio.sleep(0)\n"
        "    spawn = lambda: group.create_task(relay(says=True))\n"
        "    loop.call_soon_threadsafe(contextvars.Context().run, spawn)\n    await asyncio.sleep(60)"
    ),
}


@pytest.mark.parametrize("is_nested", [False, True])
@pytest.mark.parametrize("body", GROUPS.values(), ids=GROUPS)
def test_an_interrupt_spares_what_a_groups_children_await_of_another_cell(
    kernel: KernelDriver, body: str, is_nested: bool
) -> None:
    kernel.run(
        "import contextvars\nloop = asyncio.get_running_loop()\n"
        "theirs = asyncio.create_task(asyncio.sleep(60))\n"
        "async def relay(says=False):\n    if says: print('waits', flush=True)\n    return await theirs"
    )
    code = f"async with asyncio.TaskGroup() as group:\n{body}"
    if is_nested:
        lines = "\n    ".join(code.splitlines())
        code = f"async def main():\n    global child\n    {lines}\nasyncio.run(main())"
    cell = kernel.start(code)
    cell.wait_output("waits")

    kernel.interrupt()

    assert cell.wait(5).ename in {"CancelledError", "KeyboardInterrupt"}
    assert kernel.value("(child.done(), theirs.done())") == (True, False)
    kernel.run("theirs.cancel()")


def test_a_background_cell_of_the_same_cell_lives_on(kernel: KernelDriver) -> None:
    cell = kernel.start("handle = %aloop -b asyncio.sleep(60)\nprint('waits', flush=True)\nawait handle")
    cell.wait_output("waits")
    kernel.interrupt()

    assert cell.wait(5).ename in {"CancelledError", "KeyboardInterrupt"}
    assert kernel.value("handle.done()") is False
    kernel.run("handle.cancel()")
