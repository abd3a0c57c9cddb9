"""The extension named in the configuration: loaded before the loop turns, and before any cell."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.cells import below, dedented
from tests.kernel.driver import KernelDriver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.gates import Gate

TICKER = dedented(
    """
    %%aloop -b -n ticker
    ticks = 0
    while True:
        ticks += 1
        await asyncio.sleep(0.02)
    """
)
SAY = "print('waits', flush=True)"  # not in a plain cell: see WAITS in test_interrupts.py


@contextmanager
def started(folder: Path) -> Iterator[KernelDriver]:
    """Start a kernel that loads the extension from a configuration file."""
    config = folder / "config.py"
    config.write_text('c.InteractiveShellApp.extensions = ["loopnb"]\n')
    with KernelDriver(folder, arguments=[f"--config={config}"]) as kernel:
        yield kernel


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelDriver]:
    """Start one such kernel for all tests here."""
    with started(tmp_path_factory.mktemp("kernel")) as kernel:
        yield kernel


def test_a_nested_run_works_in_the_very_first_cell(tmp_path: Path) -> None:
    with started(tmp_path) as kernel:
        cell = kernel.run("import asyncio, loopnb; print(asyncio.run(asyncio.sleep(0.01, 'nested')))")

        assert cell.stdout == "nested\n"
        assert "loopnb" not in kernel.log()


def test_the_loop_is_the_one_that_the_kernel_runs_on(configured: KernelDriver) -> None:
    configured.run(
        """
        import asyncio, loopnb
        from loopnb import session
        """
    )

    assert configured.value("session.current().loop is asyncio.get_running_loop()") is True
    assert configured.value("loopnb.status().engine") == "handoff"


def test_aloop_and_tasks_work(configured: KernelDriver) -> None:
    configured.run("import asyncio, loopnb")
    configured.run(TICKER)

    configured.run(
        """
        %%aloop -o answer -t 10
        while ticks < 2: await asyncio.sleep(0.01)
        42
        """
    )

    assert configured.value("answer") == 42
    assert configured.value("[task.name for task in loopnb.tasks()]") == ["ticker"]
    configured.run("%loopnb cancel ticker")


@pytest.mark.parametrize(
    "code",
    [
        "print('waits'); asyncio.run(asyncio.sleep(60))",
        f"{SAY}; await asyncio.sleep(60)",
        below("%%aloop", f"{SAY}; await asyncio.sleep(60)"),
    ],
    ids=["nested run", "await", "aloop"],
)
def test_an_interrupt_ends_the_cell(configured: KernelDriver, code: str) -> None:
    configured.run("import asyncio")
    cell = configured.start(code)
    cell.wait_output("waits")

    configured.interrupt()

    assert cell.wait().ename in {"KeyboardInterrupt", "CancelledError"}
    assert configured.value("1 + 1") == 2


@pytest.fixture
def reloading(kernel: KernelDriver) -> Iterator[KernelDriver]:
    """Lend the module's kernel, and end the tasks that the test has left."""
    yield kernel
    kernel.run("%loopnb cancel --all")
    kernel.run("await asyncio.sleep(0)")


def test_reloading_keeps_the_loop_and_the_tasks(reloading: KernelDriver) -> None:
    reloading.run(
        """
        import asyncio, loopnb
        from loopnb import session
        """
    )
    reloading.run(TICKER, cell_id="tick")
    reloading.run("loop = session.current().loop")
    reloading.run("plain = asyncio.create_task(asyncio.sleep(60), name='plain')")
    origins = "[(t.number, t.name, str(t.cell), t.spawn_site) for t in loopnb.tasks()]"
    reloading.run(f"before = {origins}")

    reloading.run("%reload_ext loopnb")

    assert reloading.value("session.current().loop is loop") is True
    assert reloading.value(f"{origins} == before") is True
    reloading.run("new = asyncio.create_task(asyncio.sleep(60), name='new'); seen = ticks")
    assert reloading.value("len({t.number for t in loopnb.tasks()})") == 3
    reloading.run("while ticks == seen: await asyncio.sleep(0.01)")


def test_after_a_reload_a_cell_still_replaces_its_background_task(reloading: KernelDriver) -> None:
    reloading.run("import asyncio, loopnb")
    reloading.run(TICKER, cell_id="tick")
    reloading.run("(first,) = [t.number for t in loopnb.tasks()]")

    reloading.run("%reload_ext loopnb")
    reloading.run(TICKER, cell_id="tick")

    assert reloading.value("[t.number > first for t in loopnb.tasks()]") == [True]


def test_a_reload_in_a_background_task_takes_no_cell_for_executing(
    reloading: KernelDriver, gate: Gate
) -> None:
    reloading.run("import asyncio, loopnb, os")
    cell = reloading.run(
        f"""
        %%aloop -b
        while not {gate}: await asyncio.sleep(0.01)
        %reload_ext loopnb
        print('reloaded')
        """
    ).cell
    gate.open()  # by no cell: before ipykernel 6.29, a reload in a task sends its output to the newest one
    cell.wait_late("reloaded")

    here = reloading.run("loopnb.status().cell.execution_count")

    assert here.result == str(here.execution_count)
    assert reloading.value("loopnb.status().condition") == "idle"
