"""The probes. Each runs in a fresh process, because it may raise, hang or spoil the process."""

from __future__ import annotations

import asyncio
import compileall
import gc
import importlib
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.tools import LOOPNB, TRACKING, fresh_listing, track, tree_of_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from tests.benchmarks.tools import Tool

#: What a probe found: a number in the unit of its row, or a text.
Found = float | str

_PACKAGE = Path(__file__).parents[2] / "loopnb"
_CONCURRENT, _PARKED, _TASKS = 1000, 2000, 10_000
_WARM_UP, _OUTSIDE = 20, 200
#: In seconds; longer than it takes to begin all these waits.
_LONG_S = 0.7
#: In seconds: until the watchdog has got into step, and for how long it is looked at.
_SETTLE_S, _WATCHED_S = 0.5, 8.0
#: Steps of about half a second, and how often they are timed with and without the watchdog.
_WATCHED_STEPS, _PAIRS = 150_000, 31
_FOR_EVER_S = 3600.0
#: As long as a slice of `%loopnb tree` takes, and a step more.
_SLICE_MS = 2.0
_KERNEL_S = 60.0
_LISTED_S = 30.0
_LONG_PROBE_S = 120.0


def _run(tool: Tool, main: Callable[[bool], Coroutine[None, None, Found]]) -> Found:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    tool.apply(loop)
    try:
        return loop.run_until_complete(main(tool.nests))
    except (RecursionError, IndexError) as error:  # reloop's passes empty the queue of the outermost one
        return type(error).__name__


async def _wait(nests: bool, coro: Coroutine[None, None, None]) -> None:
    """Wait for *coro* as the tool does it: by a nested run, or by awaiting a task."""
    loop = asyncio.get_running_loop()
    if nests:
        loop.run_until_complete(coro)
    else:
        await loop.create_task(coro)


async def _all_waiting(nests: bool, count: int) -> asyncio.Future[list[None]]:
    """Make *count* tasks wait at the same time, and return while they wait."""
    all_of_them = asyncio.gather(*[_wait(nests, asyncio.sleep(_LONG_S)) for _ in range(count)])
    for _ in range(5):
        await asyncio.sleep(0)
    return all_of_them


def concurrent(tool: Tool) -> Found:
    """Time 1,000 nested runs that wait at the same time; milliseconds in total."""

    async def main(nests: bool) -> Found:
        began = time.thread_time()
        await (await _all_waiting(nests, _CONCURRENT))
        return (time.thread_time() - began) * 1e3

    return _run(tool, main)


def three_waits(tool: Tool) -> Found:
    """Start tasks that nest for 0.1, 1.0 and 0.3 s in this order. Return when each of them returned."""

    async def main(nests: bool) -> Found:
        began = time.monotonic()

        async def nap(seconds: float) -> str:
            await _wait(nests, asyncio.sleep(seconds))
            return f"{time.monotonic() - began:.1f}"

        return " / ".join(await asyncio.gather(nap(0.1), nap(1.0), nap(0.3))) + " s"

    return _run(tool, main)


def dependent_wait(tool: Tool) -> Found:
    """Nest, and wait for something that happens only after an earlier nested wait has returned."""

    async def main(nests: bool) -> Found:
        first_is_back = asyncio.Event()

        async def first() -> None:
            await _wait(nests, asyncio.sleep(0.05))
            first_is_back.set()

        async def wait_for_first() -> None:
            await first_is_back.wait()

        async def second() -> None:
            await _wait(nests, wait_for_first())

        await asyncio.gather(first(), second())
        return "returns"

    return _run(tool, main)


def memory(tool: Tool) -> Found:
    """Measure what each of 2,000 parked stacks adds to the process, in KiB.

    Stock asyncio has no such stacks. There, measure a task that awaits a task: the same wait.
    """

    async def main(nests: bool) -> Found:
        await (await _all_waiting(nests, 10))  # pay what is paid only once
        before = _resident_kib()
        all_of_them = await _all_waiting(nests, _PARKED)
        after = _resident_kib()
        await all_of_them
        return (after - before) / _PARKED

    return _run(tool, main)


def _resident_kib() -> float:
    import resource  # it does not exist on Windows

    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize() / 1024
    # The peak will do, because memory only grows here. (On macOS it is in bytes, elsewhere in KiB.)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_of_task(tool: Tool) -> Found:
    """Measure what Python allocates for each of 10,000 waiting tasks, in bytes. loopnb tracks them."""
    import tracemalloc

    async def main(_nests: bool) -> Found:
        waiting = [
            asyncio.create_task(asyncio.sleep(_FOR_EVER_S)) for _ in range(10)
        ]  # pay what is paid only once
        await asyncio.sleep(0)
        gc.collect()
        tracemalloc.start()
        before, _peak = tracemalloc.get_traced_memory()
        waiting += [asyncio.create_task(asyncio.sleep(_FOR_EVER_S)) for _ in range(_TASKS)]
        await asyncio.sleep(0)
        gc.collect()
        after, _peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return (after - before) / _TASKS

    return _run(TRACKING if tool is LOOPNB else tool, main)


def _listed(
    tool: Tool,
    measure: Callable[[Any, list[asyncio.Task[None]]], Awaitable[list[float]]],
    wait: Callable[[], Coroutine[None, None, None]] | None = None,
) -> Found:
    """Make 10,000 tasks wait, and return the least that *measure* finds. Only loopnb lists tasks.

    Args:
        tool: The tool.
        measure: Given the tracker and the tasks, returns what it has measured, several times.
        wait: What each task runs; None for a coroutine that sleeps.
    """
    if tool is not LOOPNB:
        return "-"
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    tracker = track(loop)

    async def main() -> Found:
        tasks = await _waiting(_TASKS, wait or _awaits_a_sleep)
        found = min(await measure(tracker, tasks))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return found

    return loop.run_until_complete(main())


async def _waiting(count: int, wait: Callable[[], Coroutine[None, None, None]]) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(wait()) for _ in range(count)]
    await asyncio.sleep(0)
    gc.collect()
    return tasks


async def _awaits_a_sleep() -> None:
    await asyncio.sleep(_FOR_EVER_S)


def _milliseconds(look: Callable[[], object]) -> float:
    began = time.thread_time()
    look()
    return (time.thread_time() - began) * 1e3


def listing_cold(tool: Tool) -> Found:
    """Time the first look at 10,000 waiting tasks; milliseconds."""

    async def measure(tracker: Any, _tasks: list[asyncio.Task[None]]) -> list[float]:
        return [_milliseconds(fresh_listing(tracker).look) for _ in range(5)]

    return _listed(tool, measure)


def listing_unchanged(tool: Tool) -> Found:
    """Time a look at 10,000 waiting tasks if nothing has changed; milliseconds."""

    async def measure(tracker: Any, _tasks: list[asyncio.Task[None]]) -> list[float]:
        follower = tracker.listing.follow()
        follower.look()
        return [_milliseconds(follower.look) for _ in range(20)]

    return _listed(tool, measure)


def listing_changed(tool: Tool) -> Found:
    """Time a look at 10,000 waiting tasks after 100 have ended and 100 have begun; milliseconds."""

    async def measure(tracker: Any, tasks: list[asyncio.Task[None]]) -> list[float]:
        follower = tracker.listing.follow()
        follower.look()
        found = []
        for _ in range(20):
            ended = [tasks.pop(0) for _ in range(100)]
            for task in ended:
                task.cancel()
            await asyncio.gather(*ended, return_exceptions=True)
            del ended, task
            tasks += await _waiting(100, _awaits_a_sleep)
            found.append(_milliseconds(follower.look))
        return found

    return _listed(tool, measure)


def listing_slice(tool: Tool) -> Found:
    """Time the longest slice of the first look at 10,000 waiting tasks; milliseconds."""

    async def measure(tracker: Any, _tasks: list[asyncio.Task[None]]) -> list[float]:
        found = []
        for _ in range(5):
            listing = fresh_listing(tracker)  # kept, since to free it takes time, too
            found.append(max(_pieces(listing.slices())))
        return found

    return _listed(tool, measure)


def _pieces(generator: Iterator[None]) -> list[float]:
    """Return how long each step of *generator* takes, in milliseconds."""
    found, is_over = [], False
    while not is_over:
        began = time.thread_time()
        is_over = next(generator, generator) is generator
        found.append((time.thread_time() - began) * 1e3)
    return found


def tree(tool: Tool) -> Found:
    """Time the await graph of 10,000 sleeping tasks and its tree; milliseconds."""
    return _listed(tool, _trees)


def tree_of_lock(tool: Tool) -> Found:
    """Time the await graph of 10,000 tasks that wait for one lock, and its tree; milliseconds."""
    lock: list[asyncio.Lock] = []

    async def wait() -> None:
        if not lock:
            lock.append(asyncio.Lock())
        async with lock[0]:
            await asyncio.sleep(_FOR_EVER_S)

    return _listed(tool, _trees, wait)


async def _trees(tracker: Any, _tasks: list[asyncio.Task[None]]) -> list[float]:
    tracker.listing.look()
    return [sum(_pieces(tree_of_tasks(tracker))) for _ in range(5)]


def tree_slice(tool: Tool) -> Found:
    """Time the longest slice of that tree, if a slice ends with the step that exceeds 2 ms; milliseconds."""

    async def measure(tracker: Any, _tasks: list[asyncio.Task[None]]) -> list[float]:
        tracker.listing.look()
        found = []
        for _ in range(5):
            longest = piece = 0.0
            for milliseconds in _pieces(tree_of_tasks(tracker)):
                piece = milliseconds if piece > _SLICE_MS else piece + milliseconds
                longest = max(longest, piece)
            found.append(longest)
        return found

    return _listed(tool, measure)


def listing_left(tool: Tool) -> Found:
    """Measure what a look leaves for each waiting task when its records are forgotten, in bytes: frames."""
    import tracemalloc

    async def measure(tracker: Any, _tasks: list[asyncio.Task[None]]) -> list[float]:
        tracemalloc.start()
        before, _peak = tracemalloc.get_traced_memory()
        fresh_listing(tracker).look()
        gc.collect()
        after, _peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return [(after - before) / _TASKS]

    return _listed(tool, measure)


def load_time(tool: Tool) -> Found:
    """Time `%load_ext loopnb`, or import and apply() of another tool, in a running IPython; milliseconds."""
    from IPython.core.interactiveshell import InteractiveShell

    if tool.extension == "loopnb":  # as pip does when it installs a package
        compileall.compile_dir(str(_PACKAGE), quiet=1)
    shell = InteractiveShell.instance()
    shell.run_cell("async def cell(): return 1\nawait cell()", store_history=False, silent=True)
    if tool.extension is None:
        return "-"
    began = time.thread_time()
    if tool.extension == "loopnb":
        shell.run_line_magic("load_ext", "loopnb")
    else:
        importlib.import_module(tool.extension).apply()
    return (time.thread_time() - began) * 1e3


def outside(tool: Tool) -> Found:
    """Time `asyncio.run()` of a coroutine that does nothing, where no loop runs; microseconds."""

    async def nothing() -> None: ...

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    tool.apply(loop)
    if tool.extension == "loopnb":
        importlib.import_module("loopnb.nesting").apply()
    for number in range(_WARM_UP + _OUTSIDE):
        if number == _WARM_UP:
            began = time.thread_time()
        asyncio.run(nothing())
    return (time.thread_time() - began) / _OUTSIDE * 1e6


_STEPS = """
import asyncio, time
async def steps(count):
    began = time.thread_time()
    for _ in range(count):
        await asyncio.sleep(0)
    return (time.thread_time() - began) / count * 1e6
"""


def step_in_kernel(tool: Tool) -> Found:
    """Time a task's step in a notebook: in a real kernel, with every patch in place. Microseconds."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel()
    printed: list[str] = []

    def run(code: str) -> None:
        def take(message: Any) -> None:
            if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
                printed.append(message["content"]["text"])  # a part of a line, if the kernel has flushed it

        client.execute_interactive(code, output_hook=take, timeout=_KERNEL_S)

    try:
        if tool.extension is not None:
            is_ours = tool.extension == "loopnb"
            run("%load_ext loopnb" if is_ours else f"import {tool.extension}; {tool.extension}.apply()")
        run(_STEPS)
        for _ in range(12):
            run("print(await asyncio.create_task(steps(3000)))")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return min(map(float, "".join(printed).split()))  # whatever is above the minimum is noise of the machine


class _NoCells:
    """Stands for a shell in which no cell executes."""

    executing = None

    def cell_in(self, _task: asyncio.Task[Any]) -> None:
        """Return None."""


@contextmanager
def _watched(loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """Watch *loop* while the block runs, as a session does."""
    from loopnb.tracking.tracker import Tracker
    from loopnb.watch.watch import Watch

    tracker = Tracker(
        loop, describe=lambda filename, line, cell=None: f"{filename}:{line}", is_kernels=lambda _code: False
    )
    watch = Watch(loop, tracker, _NoCells())
    watch.set_blocked_after(0.5)
    try:
        yield watch
    finally:
        watch.stop()


def watching(tool: Tool) -> Found:
    """Measure the CPU time of the whole process while the loop is watched and one task waits; percent."""

    async def main(_nests: bool) -> Found:
        with _watched(asyncio.get_running_loop()):
            await asyncio.sleep(_SETTLE_S)
            began, cpu = time.monotonic(), time.process_time()
            await asyncio.sleep(_WATCHED_S)
            return (time.process_time() - cpu) / (time.monotonic() - began) * 100

    return _run(tool, main) if tool is LOOPNB else "-"


def step_while_watched(tool: Tool) -> Found:
    """Compare a step of a task on a loop that is watched with one on a loop that is not; percent more."""

    async def steps() -> float:
        began = time.thread_time()
        for _ in range(_WATCHED_STEPS):
            await asyncio.sleep(0)
        return time.thread_time() - began

    async def main(_nests: bool) -> Found:
        ratios = []
        await steps()
        for _ in range(_PAIRS):
            alone = await steps()
            with _watched(asyncio.get_running_loop()):
                ratios.append(await steps() / alone)
        return (sorted(ratios)[_PAIRS // 2] - 1) * 100

    return _run(tool, main) if tool is LOOPNB else "-"


@dataclass(frozen=True)
class Probe:
    """One row of the second table.

    Attributes:
        name: What the row is called.
        look: Runs the probe in this process.
        unit: The unit of the numbers that it finds.
        repeats: How many processes to run it in.
        note: What a reader of the row must know.
        limit_s: After so many seconds, report that it hangs.
    """

    name: str
    look: Callable[[Tool], Found]
    unit: str = ""
    repeats: int = 1
    note: str = ""
    limit_s: float = 5.0


PROBES = [
    Probe("task step in a notebook's kernel", step_in_kernel, "us", 9, limit_s=_KERNEL_S),
    Probe("1,000 concurrent nested runs", concurrent, "ms", repeats=9),
    Probe("nested waits of 0.1 / 1.0 / 0.3 s return after", three_waits),
    Probe("wait that depends on an earlier wait", dependent_wait),
    Probe("asyncio.run() of nothing, outside", outside, "us", 9, "nesting on for every loop"),
    Probe("memory of a parked stack", memory, "KiB", repeats=3, note="for stock, a task that awaits a task"),
    Probe("memory of a waiting task", memory_of_task, "B", repeats=3, note="loopnb tracks it"),
    Probe("first look at 10,000 waiting tasks", listing_cold, "ms", 3, limit_s=_LISTED_S),
    Probe("next look, nothing has changed", listing_unchanged, "ms", 3, limit_s=_LISTED_S),
    Probe("next look, 100 ended and 100 begun", listing_changed, "ms", 3, limit_s=_LISTED_S),
    Probe("longest slice of the first look", listing_slice, "ms", 3, limit_s=_LISTED_S),
    Probe("tree of 10,000 waiting tasks", tree, "ms", 3, limit_s=_LISTED_S),
    Probe("tree of 10,000 that wait for one lock", tree_of_lock, "ms", 3, limit_s=_LISTED_S),
    Probe("longest slice of the tree", tree_slice, "ms", 3, limit_s=_LISTED_S),
    Probe("left by a look, for each task", listing_left, "B", 3, "on 3.12 and later, its name", _LISTED_S),
    Probe("watchdog beside a task that waits", watching, "% of a core", 3, limit_s=_LONG_PROBE_S),
    Probe(
        "task step while watched",
        step_while_watched,
        "% slower",
        3,
        "on a busy machine, a loop that is not watched differs from itself by as much",
        limit_s=_LONG_PROBE_S,
    ),
    Probe("%load_ext; import and apply()", load_time, "ms", 9, "in IPython, after its own import; no widget"),
]
BY_NAME = {probe.name: probe for probe in PROBES}
