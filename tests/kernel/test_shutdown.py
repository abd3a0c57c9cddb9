"""The end of a kernel, in every way it comes: what can finish has finished, the rest is named."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient import NotebookClient

from notebooks.run import ThisPythonsKernel
from tests.cells import below, dedented, filled
from tests.kernel.conftest import assert_quiet
from tests.kernel.driver import END_WITHIN_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.gates import Gate
    from tests.kernel.driver import Cell, KernelDriver

DEFINITIONS = """
import asyncio, loopnb, os, pathlib, signal, time
folder = pathlib.Path({folder!r})
loop = asyncio.get_running_loop()
def writes(name):
    (folder / name).write_text("ended")
async def writes_at_its_end(name):
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.05)
        writes(name)
async def nests(name):
    asyncio.run(writes_at_its_end(name))
async def spawns_at_its_end(name):
    try:
        await asyncio.sleep(60)
    finally:
        asyncio.create_task(writes_at_its_end(name))
async def generates():
    try:
        yield 1
    finally:
        await asyncio.sleep(0.05)
        writes("generator")
def is_busy_for_a_moment(name):
    time.sleep(0.3)
    writes(name)
def is_busy_until_the_loop_has_stopped():
    while loop.is_running():
        time.sleep(0.05)
    writes("long thread")
"""
LEFTOVERS = """
%config LoopNB.shutdown_grace = 1.5
plain = [asyncio.create_task(writes_at_its_end(f"task {n}")) for n in range(2)]
parked = [asyncio.create_task(nests(f"parked {n}")) for n in range(2)]
spawning = asyncio.create_task(spawns_at_its_end("spawned at the end"))
half_read = generates()
await anext(half_read)
short = loop.run_in_executor(None, is_busy_for_a_moment, "thread")
long = asyncio.create_task(asyncio.to_thread(is_busy_until_the_loop_has_stopped))
import aiohttp, aiohttp.web
async def answers(request):
    return aiohttp.web.Response(text="hello")
app = aiohttp.web.Application()
app.router.add_get("/", answers)
runner = aiohttp.web.AppRunner(app)
await runner.setup()
await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
holder = [aiohttp.ClientSession()]
assert await (await holder[0].get(url)).text() == "hello"
unread = await holder[0].get(url)
loopnb.show()
"""
SWALLOWER = """%%aloop -b -n swallower
while True:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        pass
"""
NAMED = (
    "task 'swallower', spawned by In[4], waiting for sleep() at In[4], line 4, "
    "did not end within 1.5 s of being cancelled",
    "is busy with is_busy_until_the_loop_has_stopped() at In[2], line",
    "for In[3], and Python waits for it before it ends",
)
WRITTEN = [
    "generator",
    "long thread",
    "parked 0",
    "parked 1",
    "spawned at the end",
    "task 0",
    "task 1",
    "thread",
]
ON_SIGTERM = "loop.add_signal_handler(signal.SIGTERM, loop.stop)"
AWAITS = dedented(
    """
    print('waits', flush=True)
    await writes_at_its_end('cell')
    """
)
NESTS = dedented(
    """
    print('waits', flush=True)
    asyncio.run(writes_at_its_end('cell'))
    """
)
RUNS_FOREVER = dedented(
    """
    print('waits', flush=True)
    try: loop.run_forever()
    finally: writes('cell')
    """
)
#: What runs in the foreground meanwhile, and what ends the kernel.
ENDS: dict[str, tuple[str, Callable[[KernelDriver], Any]]] = {
    "shutdown while a cell nests": (NESTS, lambda kernel: kernel.shutdown()),
    "restart while a cell awaits": (AWAITS, lambda kernel: kernel.restart()),
    "exit in a cell": ("", lambda kernel: kernel.start("exit()")),
    "exit in a task while a cell nests": (
        below("loop.call_later(0.1, get_ipython().ask_exit)", RUNS_FOREVER),
        lambda kernel: None,
    ),
    "SIGTERM while a cell awaits": (
        below(ON_SIGTERM, AWAITS),
        lambda kernel: os.kill(kernel.process.pid, signal.SIGTERM),
    ),
    "SIGTERM in a cell": (
        "",
        lambda kernel: kernel.start(below(ON_SIGTERM, "os.kill(os.getpid(), signal.SIGTERM)")),
    ),
    "SIGTERM, with a stop() later on": (
        filled(
            """
            async def ends():
                await asyncio.sleep(0.01)
                loop.stop()
            loop.add_signal_handler(signal.SIGTERM, lambda: loop.create_task(ends()))
            {}
            """,
            AWAITS,
        ),
        lambda kernel: os.kill(kernel.process.pid, signal.SIGTERM),
    ),
}


@pytest.mark.parametrize(("foreground", "end"), ENDS.values(), ids=ENDS)
def test_all_that_can_finish_has_finished_and_the_rest_is_named(
    fresh_kernel: KernelDriver, tmp_path: Path, foreground: str, end: Callable[[KernelDriver], Any]
) -> None:
    wire, process, log_path = prepare(fresh_kernel, tmp_path), fresh_kernel.process, fresh_kernel.log_path
    cell = start(fresh_kernel, foreground)

    end(fresh_kernel)
    if cell is not None:
        cell.wait_reply()  # it ends while all channels still work
    process.wait(END_WITHIN_S)

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*WRITTEN, *(["cell"] if cell else [])])
    log = log_path.read_text()
    assert [named for named in NAMED if log.count(named) != 1] == [], log
    said = "".join(message.content["text"] for message in wire.messages if message.msg_type == "stream")
    assert "nclosed" not in log + said
    assert_quiet(log + said)


def prepare(kernel: KernelDriver, folder: Path) -> Any:
    """Leave one of everything on the loop; return the wire, which a restart would replace."""
    kernel.run(DEFINITIONS.format(folder=str(folder)))
    kernel.run(LEFTOVERS)
    kernel.run(SWALLOWER)
    return kernel.wire


def start(kernel: KernelDriver, code: str) -> Cell | None:
    if not code:
        return None
    cell = kernel.start(code)
    cell.wait_output("waits")
    return cell


def test_a_kernel_that_ends_out_of_order_names_what_was_left(
    fresh_kernel: KernelDriver, tmp_path: Path
) -> None:
    fresh_kernel.run(DEFINITIONS.format(folder=str(tmp_path)))
    fresh_kernel.run(
        """
        left = asyncio.create_task(asyncio.sleep(60), name='left')
        await asyncio.sleep(0)
        """
    )

    fresh_kernel.start("loop._stopping = True  # what 'loop.stop()' does: that is guarded")
    fresh_kernel.process.wait(END_WITHIN_S)

    log = fresh_kernel.log()
    assert "task 'left', spawned by In[3], waiting for sleep(), was still there when Python ended" in log
    assert_quiet(log)


def test_a_task_that_ends_the_kernel_is_named(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run(
        """
        import asyncio
        async def ends():
            await asyncio.sleep(0.05)
            raise SystemExit(3)
        """
    )

    fresh_kernel.start("ending = asyncio.create_task(ends(), name='ending')")
    fresh_kernel.process.wait(END_WITHIN_S)

    assert (
        "task 'ending', spawned by In[3], failed and nobody awaited it: SystemExit: 3" in fresh_kernel.log()
    )


def test_a_cell_that_blocks_is_named_and_the_rest_ends_when_it_has_gone_on(
    fresh_kernel: KernelDriver, tmp_path: Path, gate: Gate
) -> None:
    fresh_kernel.run(DEFINITIONS.format(folder=str(tmp_path)) + "%config LoopNB.shutdown_grace = 1.0")
    cell = fresh_kernel.start(
        f"""
        task = asyncio.create_task(writes_at_its_end('task')); await asyncio.sleep(0)
        print('waits', flush=True)
        while not {gate}: time.sleep(0.05)
        """
    )
    cell.wait_output("waits")

    fresh_kernel.wire.send("control", "shutdown_request", {"restart": False})
    fresh_kernel.wait_logged("In[3] blocks the loop")
    gate.open()
    fresh_kernel.process.wait(END_WITHIN_S)

    log = fresh_kernel.log()
    assert (tmp_path / "task").exists()
    assert_quiet(log)


STUBBORN = """
%config LoopNB.shutdown_grace = 0.2
import concurrent.futures, threading
async def swallows():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
async def nests_on():
    while True:
        try:
            asyncio.run(asyncio.sleep(60))
        except BaseException:
            pass
def waits():
    try:
        loopnb.run(swallows())
    except concurrent.futures.CancelledError:
        writes("released")
parked = asyncio.create_task(nests_on(), name="parked")
threading.Thread(target=waits).start()
while "swallows" not in [task.coro for task in loopnb.tasks()]:
    await asyncio.sleep(0.01)
"""


def test_nobody_who_swallows_every_error_keeps_the_kernel(fresh_kernel: KernelDriver, tmp_path: Path) -> None:
    fresh_kernel.run(DEFINITIONS.format(folder=str(tmp_path)))
    fresh_kernel.run(STUBBORN)

    fresh_kernel.start("print('waits', flush=True); await nests_on()").wait_output("waits")
    fresh_kernel.wire.send("control", "shutdown_request", {"restart": False})
    fresh_kernel.process.wait(END_WITHIN_S)

    log = fresh_kernel.log()
    said = "".join(m.content["text"] for m in fresh_kernel.wire.messages if m.msg_type == "stream")
    assert (tmp_path / "released").exists(), log
    assert "task 'parked', spawned by In[3], waiting for nested" in log
    assert_quiet(log + said)


def test_the_log_says_where_the_loop_was_closed_that_a_failure_is_about(fresh_kernel: KernelDriver) -> None:
    closing = fresh_kernel.run(
        """
        import asyncio
        loop = asyncio.new_event_loop()
        loop.close()
        """
    )
    fresh_kernel.run(
        """
        async def uses(): loop.call_soon(print)
        task = asyncio.create_task(uses(), name='uses')
        await asyncio.wait([task])
        None
        """
    )

    (line,) = [line for line in fresh_kernel.shutdown().splitlines() if "task 'uses'" in line]

    assert "failed and nobody awaited it: RuntimeError: Event loop is closed. This object belongs" in line
    assert f"closed at In[{closing.execution_count}], line 3." in line


def test_only_failures_that_nobody_has_awaited_are_named(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run("import asyncio, gc")
    for name in ("awaited", "unseen", "dropped"):
        cell = fresh_kernel.start(
            f"""
            %%aloop -b -n {name} -o {name}
            await asyncio.sleep(0)
            1 / 0
            """
        )
        cell.wait_output("ZeroDivisionError")
    assert fresh_kernel.execute("await awaited").ename == "ZeroDivisionError"
    collected = fresh_kernel.run(
        """
        del dropped
        Out.clear(); _ = __ = ___ = None; gc.collect();
        """
    )

    log = fresh_kernel.shutdown()

    assert "task 'awaited'" not in log
    assert "task 'unseen', spawned by In[4], failed and nobody awaited it: ZeroDivisionError" in log
    assert "task 'dropped', spawned by In[5], failed and nobody awaited it: ZeroDivisionError" in log
    assert "never retrieved" not in log + collected.stderr


def test_a_task_that_exits_when_it_is_cancelled_keeps_the_others_from_nothing(
    fresh_kernel: KernelDriver, tmp_path: Path
) -> None:
    fresh_kernel.run(DEFINITIONS.format(folder=str(tmp_path)))
    fresh_kernel.run(
        """
        async def exits(error):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise error
        tasks = [asyncio.create_task(exits(error)) for error in (SystemExit(0), KeyboardInterrupt())]
        tasks.append(asyncio.create_task(writes_at_its_end('other'))); await asyncio.sleep(0.01)
        """
    )

    log = fresh_kernel.shutdown()

    assert (tmp_path / "other").exists(), log
    assert "a task raised SystemExit: 0 while it was being ended" in log
    assert_quiet(log)


@pytest.mark.parametrize("engine", ["handoff", "nest-asyncio"])
@pytest.mark.parametrize("wait", ["run_forever()", "run_until_complete(loop.create_future())"])
def test_a_cell_that_waits_for_no_task_is_answered(
    fresh_kernel: KernelDriver, wait: str, engine: str
) -> None:
    fresh_kernel.run(
        f"""
        import asyncio
        %loopnb nesting {engine}
        loop = asyncio.get_running_loop()
        """
    )
    cell = fresh_kernel.start(
        f"""
        print('waits', flush=True)
        loop.{wait}
        """
    )
    cell.wait_output("waits")

    log = fresh_kernel.shutdown()

    cell.wait()
    assert "Traceback" not in log


def test_a_failure_that_was_reported_and_then_awaited_is_not_named(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run(
        """
        %config LoopNB.report_after = 0.01
        import asyncio
        async def fails(): return 1 / 0
        """
    )
    for name in ("awaited", "unseen"):
        cell = fresh_kernel.start(f"{name} = asyncio.create_task(fails(), name='{name}')")
        cell.wait_output("ZeroDivisionError")
    assert fresh_kernel.execute("await awaited").ename == "ZeroDivisionError"

    log = fresh_kernel.shutdown()

    assert "task 'awaited'" not in log
    assert "task 'unseen', spawned by In[4], failed and nobody awaited it: ZeroDivisionError" in log
    assert "never retrieved" not in log


@pytest.mark.parametrize("end", ["shutdown", "exit"])
def test_a_cell_that_nests_is_answered_however_many_stacks_are_parked(
    fresh_kernel: KernelDriver, tmp_path: Path, end: str
) -> None:
    fresh_kernel.run(DEFINITIONS.format(folder=str(tmp_path)))
    fresh_kernel.run("stacks = [asyncio.create_task(nests(f'parked {n}')) for n in range(20)]")
    first = "loop.call_later(0.1, get_ipython().ask_exit)" if end == "exit" else ""
    cell = fresh_kernel.start(below(first, NESTS))
    cell.wait_output("waits")

    if end == "shutdown":
        fresh_kernel.wire.send("control", "shutdown_request", {"restart": False})
    fresh_kernel.process.wait(END_WITHIN_S)

    cell.wait()
    assert (tmp_path / "cell").exists()
    assert_quiet(fresh_kernel.log())


def test_a_request_on_the_shell_channel_does_not_wait_for_itself(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run("%config LoopNB.shutdown_grace = 20")
    fresh_kernel.run(
        """
        import asyncio
        task = asyncio.create_task(asyncio.sleep(60))
        """
    )

    fresh_kernel.wire.send("shell", "shutdown_request", {"restart": False})

    fresh_kernel.process.wait(END_WITHIN_S)


def test_a_loop_in_debug_mode_ends(fresh_kernel: KernelDriver) -> None:
    fresh_kernel.run(
        """
        import asyncio
        asyncio.get_running_loop().set_debug(True)
        task = asyncio.create_task(asyncio.sleep(60))
        """
    )

    assert_quiet(fresh_kernel.shutdown())


def test_a_signal_ends_a_kernel_that_has_ended_in_order_and_is_kept_from_exiting(
    fresh_kernel: KernelDriver, tmp_path: Path
) -> None:
    fresh_kernel.run(DEFINITIONS.format(folder=str(tmp_path)))
    fresh_kernel.run(
        """
        import atexit
        task = asyncio.create_task(writes_at_its_end("task"))
        @atexit.register
        def hangs():
            writes("exiting")
            time.sleep(60)
        await asyncio.sleep(0.01)
        """
    )
    fresh_kernel.wire.send("control", "shutdown_request", {"restart": False})
    end = time.monotonic() + 20
    while not (tmp_path / "exiting").exists():
        assert time.monotonic() < end, fresh_kernel.log()
        time.sleep(0.05)

    fresh_kernel.process.send_signal(signal.SIGTERM)
    status = fresh_kernel.process.wait(END_WITHIN_S)

    assert status == -signal.SIGTERM
    assert (tmp_path / "task").exists()


@pytest.mark.parametrize(
    ("code", "where"),
    [
        ("_ = atexit.register(time.sleep, 60)", "is in C"),
        (
            """
            def hangs():
                time.sleep(60)
            _ = atexit.register(hangs)
            """,
            "is at In[3], line 2",
        ),
    ],
    ids=["in C", "in Python"],
)
def test_an_atexit_function_that_keeps_python_from_ending_is_named(
    fresh_kernel: KernelDriver, code: str, where: str
) -> None:
    fresh_kernel.run("import atexit, time")
    fresh_kernel.run(code)
    fresh_kernel.wire.send("control", "shutdown_request", {"restart": False})

    fresh_kernel.wait_logged(f"a function registered with atexit {where}")


HELPERS = """
async def groups(group):
    async with group:
        for n in range(3):
            group.create_task(writes_at_its_end(f"child {n}"))
async def works(queue, name):
    while await queue.get() is not None:
        await asyncio.sleep(0.05)
        writes(name)
async def owns(name):
    queue = asyncio.Queue()
    worker = asyncio.create_task(works(queue, name))
    try:
        await asyncio.sleep(60)
    finally:
        queue.put_nowait("last item")
        queue.put_nowait(None)
        await worker
owned = asyncio.TaskGroup()
tasks = [asyncio.create_task(groups(owned)), asyncio.create_task(owns("item of a task"))]
await asyncio.sleep(0.01)
"""


def test_the_end_of_a_task_may_use_what_it_has_spawned(fresh_kernel: KernelDriver, tmp_path: Path) -> None:
    fresh_kernel.run(DEFINITIONS.format(folder=str(tmp_path)))
    fresh_kernel.run(HELPERS)
    fresh_kernel.run("owned.create_task(writes_at_its_end('child of another cell'))")
    fresh_kernel.run(
        """
        %%aloop -b
        await owns("item of -b")
        """
    )
    cell = fresh_kernel.start(
        """
        async with asyncio.TaskGroup() as of_cell:
            of_cell.create_task(writes_at_its_end("child of the running cell"))
            print('waits', flush=True)
        """
    )
    cell.wait_output("waits")

    log = fresh_kernel.shutdown()

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "child 0",
        "child 1",
        "child 2",
        "child of another cell",
        "child of the running cell",
        "item of -b",
        "item of a task",
    ]
    assert_quiet(log)


FEED = dedented(
    """
    %%aloop -b -n feed
    import asyncio
    await asyncio.sleep(60)
    """
)


def test_a_restarted_kernel_starts_clean(fresh_kernel: KernelDriver) -> None:
    cell = dedented(
        """
        import asyncio, loopnb
        task = asyncio.create_task(asyncio.sleep(60), name='again')
        """
    )
    fresh_kernel.run(cell, cell_id="a")
    fresh_kernel.run(cell, cell_id="a")
    fresh_kernel.run(FEED, cell_id="b")

    fresh_kernel.restart()
    fresh_kernel.run("%load_ext loopnb")
    fresh_kernel.run(FEED, cell_id="b")
    fresh_kernel.run(cell, cell_id="a")

    assert fresh_kernel.value("[(task.name, task.note) for task in loopnb.tasks()]") == [
        ("feed", ""),
        ("again", ""),
    ]
    assert fresh_kernel.value("loopnb.status().generation") == 1
    assert fresh_kernel.value("[task.name for task in loopnb.session.current().tracker.ended()]") == []


NOTEBOOK = [
    "%load_ext loopnb",
    "%config LoopNB.shutdown_grace = 20\nimport asyncio, pathlib, time",
    dedented(
        """
        async def fails():
            await asyncio.sleep(0.05)
            raise ValueError('nobody saw')
        unseen = asyncio.create_task(fails(), name='unseen')
        """
    ),
    dedented(
        """
        async def ends_slowly():
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(2.7)
                pathlib.Path('slow').touch()
        slow = asyncio.create_task(ends_slowly()); await asyncio.sleep(0.1)
        """
    ),
]


def test_nbclient_sees_failures_in_the_log_and_its_sigterm_cuts_nothing_short(tmp_path: Path) -> None:
    # It sends SIGTERM 2.5 s after its request to shut down, and SIGKILL after 5 s.
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in NOTEBOOK])
    resources = {"metadata": {"path": str(tmp_path)}}
    log = tmp_path / "kernel.log"

    with log.open("wb") as stderr:
        client = NotebookClient(notebook, kernel_manager_class=ThisPythonsKernel, resources=resources)
        client.execute(stderr=stderr)

    assert (tmp_path / "slow").exists()
    assert "task 'unseen', spawned by In[3], failed and nobody awaited it: ValueError: nobody saw" in (
        log.read_text()
    )
    assert_quiet(log.read_text())
