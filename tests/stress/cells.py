"""The cells that the stress interrupts. Each says that it waits, then goes on for a minute or for ever."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent

#: The file in a kernel's folder that says when an error has left the code of a cell, in monotonic seconds.
ENDED = "ended"

_NOTING = f"""
import time

show_traceback = get_ipython().showtraceback

def note_end(*args, **options):
    with open({ENDED!r}, "a") as file:
        file.write(f"{{time.monotonic()}}\\n")  # at once: an interrupt may come next
    show_traceback(*args, **options)

get_ipython().showtraceback = note_end
"""

#: Run first in each kernel. Beside busy threads, showing an error takes seconds: this notes when that begins.
#: It does not count as code of a cell: there, an interrupt would be raised again while the error is shown.
NOTES_ENDS = f"exec(compile({_NOTING!r}, '<stress>', 'exec'), {{'get_ipython': get_ipython}})"

#: Run in each kernel when loopnb has been loaded.
PREPARATION = dedent(
    """
    import asyncio, collections, signal, subprocess, sys, threading, time
    import loopnb

    other_loop = asyncio.new_event_loop()
    lock = threading.Lock()
    lock.acquire()
    # IPython loads it late. An interrupt meanwhile breaks it for good, as without loopnb.
    get_ipython().run_cell_magic("time", "", "pass")

    def waits():
        print("waits", flush=True)

    def computes(seconds=60):
        waits()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sum(range(1000))

    async def sleeps():
        waits()
        await asyncio.sleep(60)

    async def blocks():
        computes()

    async def gathers():
        await asyncio.gather(*(asyncio.sleep(60) for _ in range(5)), sleeps())

    async def groups():
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(asyncio.sleep(60))
            group.create_task(sleeps())

    async def generates():
        waits()
        while True:
            await asyncio.sleep(0.001)
            yield

    async def iterates():
        async for _ in generates():
            pass

    async def spawns_a_process():
        process = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
        try:
            waits()
            await process.wait()
        finally:
            process.kill()
            await process.wait()
    """
)


@dataclass(frozen=True)
class Kind:
    """A kind of cell.

    Attributes:
        name: What it does.
        code: Its text.
        presses: How many interrupts end it: two if the first only asks the loop, and a blocking step keeps
            that from answering.
    """

    name: str
    code: str
    presses: int = 1

    @property
    def is_stock(self) -> bool:
        """True if it also runs without loopnb."""
        return not self.name.startswith(
            ("%%aloop", "asyncio.run", "Runner", "another loop", "a short asyncio.run")
        )


def _kind(name: str, code: str, presses: int = 1) -> Kind:
    return Kind(name, dedent(code).strip(), presses)


KINDS = (
    _kind("plain computing", "computes()"),
    _kind("time.sleep", "waits()\ntime.sleep(60)"),
    _kind("short sleeps", "waits()\nfor _ in range(6000):\n    time.sleep(0.01)"),
    _kind("lock.acquire", "waits()\nlock.acquire()"),
    _kind("namedtuples", "waits()\nwhile True:\n    collections.namedtuple('Point', 'x y z')"),
    _kind("input", "waits()\ninput('?')"),
    _kind("subprocess.run", "waits()\nsubprocess.run(['sleep', '60'], start_new_session=True)"),
    _kind("subprocess.run in the group", "waits()\nsubprocess.run(['sleep', '60'])"),
    _kind("shell escape", "waits()\n!sleep 60"),
    _kind("await", "waits()\nawait asyncio.sleep(60)"),
    _kind("await a task", "await asyncio.create_task(sleeps())"),
    _kind("await gather", "await gathers()"),
    _kind("await TaskGroup", "await groups()"),
    _kind("await a generator", "await iterates()"),
    _kind("await a process", "await spawns_a_process()"),
    _kind("await a blocking task", "await asyncio.create_task(blocks())", presses=2),
    _kind("computing in an await cell", "await asyncio.sleep(0)\ncomputes()"),
    _kind("%%aloop", "%%aloop\nwaits()\nawait asyncio.sleep(60)"),
    _kind("%%aloop gather", "%%aloop\nawait gathers()"),
    _kind("%%aloop TaskGroup", "%%aloop\nawait groups()"),
    _kind("%%aloop below %%time", "%%time\n%%aloop\nawait sleeps()"),
    _kind("asyncio.run", "asyncio.run(sleeps())"),
    _kind("asyncio.run gather", "asyncio.run(gathers())"),
    _kind("asyncio.run TaskGroup", "asyncio.run(groups())"),
    _kind("asyncio.run a generator", "asyncio.run(iterates())"),
    _kind("asyncio.run a blocking task", "asyncio.run(blocks())", presses=2),
    _kind("asyncio.run in an await cell", "await asyncio.sleep(0)\nasyncio.run(sleeps())"),
    _kind("Runner", "with asyncio.Runner() as runner:\n    runner.run(sleeps())"),
    _kind("another loop", "other_loop.run_until_complete(sleeps())"),
)
BY_NAME = {kind.name: kind for kind in KINDS}

#: Cells that end by themselves: a burst of interrupts hits them before, while and after they run.
SHORT = (
    _kind("a short cell", "waits()\nx = sum(range(100))"),
    _kind("a cell that fails", "waits()\n1 / 0"),
    _kind("a cell that prints", "waits()\nfor number in range(100):\n    print(number)"),
    _kind("a cell that shows", "waits()\ndisplay(*range(20))"),
    _kind("a short await cell", "waits()\nawait asyncio.sleep(0.002)"),
    _kind("a short asyncio.run", "waits()\nasyncio.run(asyncio.sleep(0.002))"),
)

#: What is interrupted after each combination of signal, handler and cell.
FIVE = tuple(BY_NAME[name] for name in ("short sleeps", "await", "%%aloop", "asyncio.run", "Runner"))
