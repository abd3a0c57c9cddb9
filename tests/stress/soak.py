"""Run hundreds of cells of all kinds in one kernel, and count what there is more of afterwards."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

from tests.kernel.wire import KernelDiedError
from tests.processes import WaitTimedOutError
from tests.stress import choice, kernels
from tests.stress.cells import KINDS, PREPARATION
from tests.stress.report import Fault, Figures

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver
    from tests.stress.kernels import Options

#: Seconds that a cell has to begin, or to end by itself.
_ENDS_WITHIN_S = 10.0

#: Counts what a kernel holds: by names and modules, since where loopnb keeps its things is its own affair.
_COUNTING = dedent(
    """
    import gc, os, threading
    import greenlet

    def callables_of(owner):
        return {name: value for name, value in vars(owner).items() if callable(value)}

    patched_owners = [
        asyncio, asyncio.events, asyncio.runners, asyncio.tasks, asyncio.Runner, asyncio.BaseEventLoop,
        asyncio.SelectorEventLoop, type(get_ipython()), type(get_ipython().kernel),
    ]
    stock = [callables_of(owner) for owner in patched_owners]

    def patches():
        return sorted(
            f"{owner.__name__}.{name}"
            for owner, before in zip(patched_owners, stock)
            for name, value in callables_of(owner).items()
            if before.get(name) is not value
        )

    def count():
        for _ in range(3):
            gc.collect()
        objects = gc.get_objects()
        kinds = [type(item) for item in objects]
        return {
            "tasks": sum(isinstance(item, asyncio.Task) for item in objects),
            "sessions": sum(
                kind.__name__ == "Session" and kind.__module__.startswith("loopnb") for kind in kinds
            ),
            "greenlets": sum(isinstance(item, greenlet.greenlet) for item in objects),
            "fds": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
            "threads": threading.active_count(),
            "patches": len(patches()),
        }
    """
)
_DEFINITIONS = dedent(
    """
    async def nap(seconds=0.001):
        await asyncio.sleep(seconds)

    def runs(seconds):
        asyncio.run(nap(seconds))

    async def nests(depth=3):
        if depth:
            asyncio.run(nests(depth - 1))
        await nap()

    async def fails():
        await nap()
        raise ValueError("on purpose")

    async def talks():
        async def answers(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()
        server = await asyncio.start_server(answers, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\\n")
            assert await reader.readline() == b"hello\\n"
            writer.close()
            await writer.wait_closed()
    """
)

#: Cells that end by themselves. The cells of `cells.py`, which are interrupted, come on top.
CELLS = {
    "plain": "sum(range(1000))",
    "error": "1 / 0",
    "syntax error": "1 +",
    "await": "await nap()",
    "asyncio.run": "asyncio.run(nap())",
    "nested runs": "await nests()",
    "many parked stacks": "await asyncio.gather(*(nests() for _ in range(20)))",
    "Runner": "with asyncio.Runner() as runner:\n    runner.run(nap())",
    "a failing task": "await asyncio.gather(fails(), nap(), return_exceptions=True)",
    "a failing run": "asyncio.run(fails())",
    "another loop": "other_loop.run_until_complete(nap())",
    "a new loop": "new = asyncio.new_event_loop()\nnew.run_until_complete(nap())\nnew.close()",
    "threads": "await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.01) for _ in range(20)))",
    "threads with loops": "await asyncio.gather(*(asyncio.to_thread(runs, 0.02) for _ in range(20)))",
    "a server": "asyncio.run(talks())",
    "%%aloop": "%%aloop\nawait nap()",
    "-b": "%%aloop -b -n nap\nawait nap(0.05)",
    "-b, replaced": "%%aloop -b -n replaced\nawait nap(60)",
    "closing": "import warnings\nwith warnings.catch_warnings(action='ignore'):\n    loop.close()",
    "a task left by a run": "async def leaves():\n    asyncio.create_task(nap(0.05))\nasyncio.run(leaves())",
    "status": "%loopnb",
    "tasks": "loopnb.tasks()",
    "widget": "loopnb.show()",
    "nesting off and on": "%loopnb nesting off\n%loopnb nesting handoff",
    "reload": "%reload_ext loopnb",
    "reload with a widget": "loopnb.show()\n%reload_ext loopnb",
}

#: Kinds in which an interrupt leaves something, as without loopnb: on another loop, or pipes and terminals if
#: `subprocess` or pexpect is just starting the process.
_LEAVES_THINGS = ("another loop", "subprocess", "shell escape")
_INTERRUPTED = {
    f"interrupted {kind.name}": kind for kind in KINDS if not kind.name.startswith(_LEAVES_THINGS)
}


def run(options: Options) -> Figures:
    """Count, run the cells, count again, unload, and look what stays patched."""
    observer = kernels.Observer(Figures("soak"))
    kinds = [kind for kind in [*CELLS, *_INTERRUPTED] if options.wanted(kind)]
    with kernels.Supply(preparation="None") as supply:
        kernel = supply.get()
        try:
            _prepare(kernel)
            for kind in kinds:  # so that what is made once and kept is there before the first count
                _run_cell(kernel, kind, observer)
            before = _count(kernel)
            for kind in choice.soak(options.seed, kinds, options.size(300, 60)):
                observer.begin()
                _run_cell(kernel, kind, observer)
            _compare(before, _count(kernel), observer)
            _unload(kernel, observer)
        except KernelDiedError:
            observer.fail(Fault.KILLED, "the kernel", kernels.last_line(kernel))
        except WaitTimedOutError as error:
            observer.fail(Fault.LOST, "a request", str(error).splitlines()[0])
    return observer.figures


def _prepare(kernel: KernelDriver) -> None:
    kernel.run("%unload_ext loopnb\nimport asyncio")
    kernel.run(_COUNTING)
    kernel.run("%load_ext loopnb")
    kernel.run(PREPARATION + _DEFINITIONS + "loop = asyncio.get_running_loop()")
    # This task lives on all the time, and sees each session that comes and goes.
    kernel.run("%%aloop -b -n ticker\nwhile True:\n    await asyncio.sleep(0.02)", cell_id="ticker")


def _run_cell(kernel: KernelDriver, name: str, observer: kernels.Observer) -> None:
    interrupted = _INTERRUPTED.get(name)
    if interrupted is None:
        # Each kind has one id, so its cell is run again, as a user does it.
        cell = kernel.start(CELLS[name], cell_id=name, stop_on_error=False)
        try:
            cell.wait(_ENDS_WITHIN_S)
        except WaitTimedOutError:
            observer.fail(Fault.LOST, name, "did not end by itself")
            kernels.end(kernel, cell)
        return
    cell = kernels.start(kernel, interrupted)
    try:
        cell.wait_output("waits", _ENDS_WITHIN_S)
    except WaitTimedOutError:
        observer.fail(Fault.LOST, name, f"has not begun: {cell.text.strip()[-150:]!r}")
    kernel.interrupt()
    fault = kernels.fault_after_interrupt(kernel, cell, interrupted)
    if fault is not None:
        observer.fail(fault, name)


def _count(kernel: KernelDriver) -> dict[str, int]:
    kernel.run(
        "for task in asyncio.all_tasks():\n    if task.get_name() == 'replaced':\n        task.cancel()"
    )
    kernel.run("await asyncio.sleep(0.3)")  # let what the last cells have left end
    kernel.run("del task\n%reset -f out")  # IPython keeps the tasks that cells have shown
    counts: dict[str, int] = kernel.value("count()")
    return counts


def _compare(before: dict[str, int], after: dict[str, int], observer: kernels.Observer) -> None:
    changes = [f"{what} {before[what]} -> {after[what]}" for what in before]
    observer.figures.notes.append(f"before and after: {', '.join(changes)}")
    for what in before:
        if after[what] > before[what]:
            observer.fail(Fault.LEFT, what, f"{before[what]} before, {after[what]} after")


def _unload(kernel: KernelDriver, observer: kernels.Observer) -> None:
    kernel.run("%unload_ext loopnb")
    patches = kernel.value("patches()")
    if patches:
        observer.fail(Fault.LEFT, "patches after unload", str(patches))
