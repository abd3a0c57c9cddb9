"""Shut kernels down with everything left open."""

from __future__ import annotations

import statistics
import time
from textwrap import dedent
from typing import TYPE_CHECKING

from tests.kernel.requests import Request
from tests.stress import choice, kernels
from tests.stress.report import Fault, Figures

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.driver import KernelDriver
    from tests.kernel.requests import Cell
    from tests.stress.choice import Shutdown
    from tests.stress.kernels import Options

#: Seconds after which Jupyter kills a kernel that it has asked to end.
_GRACE_S = 5.0

#: `opened("x")` says, at the place that makes it due, that a `finally` must run; `ended("x")` says that it
#: has.
_DEFINITIONS = dedent(
    """
    import asyncio, pathlib, time
    import loopnb

    loop = asyncio.get_running_loop()
    folder = pathlib.Path({folder!r})

    def opened(name):
        (folder / f"{{name}} opened").touch()

    def ended(name):
        (folder / f"{{name}} ended").touch()

    async def cleans_up(name):
        opened(name)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            ended(name)

    async def nests(name):
        asyncio.run(cleans_up(name))

    async def groups():
        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(cleans_up(f"child {{number}}"))

    async def generates():
        opened("generator")
        try:
            yield
        finally:
            await asyncio.sleep(0.05)
            ended("generator")

    async def answers(reader, writer):
        try:
            await reader.read()
        finally:
            writer.close()

    def is_busy():
        opened("thread")
        time.sleep(0.3)
        ended("thread")
    """
)
LEFTOVERS = {
    "tasks": "tasks = [asyncio.create_task(cleans_up(f'task {n}')) for n in range(5)]",
    "parked stacks": "stacks = [asyncio.create_task(nests(f'stack {n}')) for n in range(20)]",
    "TaskGroup": "group = asyncio.create_task(groups())",
    "client": (
        "server = await asyncio.start_server(answers, '127.0.0.1', 0)\n"
        "client = await asyncio.open_connection(*server.sockets[0].getsockname())"
    ),
    "generator": "half_read = generates()\nawait anext(half_read)",
    "thread": "future = loop.run_in_executor(None, is_busy)",
    "-b task": "%%aloop -b -n background\nawait cleans_up('background')",
    "widget": "loopnb.show()",
}
FOREGROUNDS = {
    "await": "print('waits', flush=True)\nawait cleans_up('cell')",
    "asyncio.run": "print('waits', flush=True)\nasyncio.run(cleans_up('cell'))",
    "%%aloop": "%%aloop\nprint('waits', flush=True)\nawait cleans_up('cell')",
    "short sleeps": "print('waits', flush=True)\nfor _ in range(100):\n    time.sleep(0.01)",
}


def run(options: Options) -> Figures:
    """End kernels, and look what became of their cells, replies and `finally` blocks."""
    observer = kernels.Observer(Figures("shutdowns"))
    took: list[float] = []
    for scenario in choice.shutdowns(options.seed, options.size(50, 4)):
        if options.wanted(scenario):
            observer.begin()
            with kernels.Supply(preparation="None") as supply:
                folder = supply.folder / "finally"
                folder.mkdir()
                took += _try(supply.get(), folder, scenario, observer)
    if took:
        middle, most = statistics.median(took), max(took)
        observer.figures.notes.append(
            f"seconds from the request to the end: median {middle:.1f}, most {most:.1f}"
        )
    return observer.figures


def _try(kernel: KernelDriver, folder: Path, scenario: Shutdown, observer: kernels.Observer) -> list[float]:
    """End one kernel; return the seconds that it took, none if it was killed."""
    cell = _fill(kernel, folder, scenario)
    began = time.monotonic()
    asked = Request(
        kernel.wire, kernel.wire.send("control", "shutdown_request", {"restart": scenario.restart})
    )
    if not _has_exited(kernel):
        observer.fail(Fault.KILLED, scenario, f"it still ran {_GRACE_S} s later")
    took = time.monotonic() - began
    was_killed = kernel.is_alive()
    kernel.kill()  # reads what is still on its way
    if asked.reply is None:
        observer.fail(Fault.LOST, scenario, "the reply to the request")
    if cell is not None and cell.reply is None:
        observer.fail(Fault.NO_REPLY, scenario, kernels.last_line(kernel))
    _look_for_finally(folder, scenario, observer)
    return [] if was_killed else [took]


def _fill(kernel: KernelDriver, folder: Path, scenario: Shutdown) -> Cell | None:
    """Leave open what the scenario says; return the cell that runs, if one does."""
    kernel.run(_DEFINITIONS.format(folder=str(folder)))
    for leftover in scenario.leftovers:
        kernel.run(LEFTOVERS[leftover])
    kernel.run("await asyncio.sleep(0.05)")  # let all of them begin
    if scenario.foreground == "nothing":
        return None
    cell = kernel.start(FOREGROUNDS[scenario.foreground])
    cell.wait_output("waits")
    return cell


def _has_exited(kernel: KernelDriver) -> bool:
    end = time.monotonic() + _GRACE_S
    while kernel.is_alive() and time.monotonic() < end:
        time.sleep(0.02)
    return not kernel.is_alive()


def _look_for_finally(folder: Path, scenario: Shutdown, observer: kernels.Observer) -> None:
    names = {path.name for path in folder.iterdir()}
    due = {name.removesuffix(" opened") for name in names if name.endswith(" opened")}
    missed = sorted(name for name in due if f"{name} ended" not in names)
    if missed:
        observer.fail(
            Fault.LEFT, scenario, f"{len(missed)} of {len(due)} finally blocks did not run: {missed[:6]}"
        )
