"""Who blocks the loop, and in what: on a real loop with a real watchdog."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import io
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future as ThreadFuture
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.nesting.engine import Handoff
from loopnb.nesting.other_loops import aside
from loopnb.records import Block, CellRef, Standstill
from loopnb.watch.judging import Step
from loopnb.watch.looking import Look
from loopnb.watch.sources import Frame
from loopnb.watch.texts import block_text, blocks_text, remedy
from tests.awkward import METHODS, awkward
from tests.watch.conftest import BLOCKED_AFTER, PATIENCE_S, line_of, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.watch.conftest import Watched

CELL = CellRef("cell-a", 7)


def block_in_task(watched: Watched, fn: Callable[[], object], *, answers_before: int = 0) -> Block:
    """Return the block of a task named `hog` that calls *fn*, which blocks.

    Args:
        watched: The loop.
        fn: What blocks it.
        answers_before: So many markers are answered first.
    """

    async def hog() -> None:
        fn()

    async def main() -> Block:
        await until(lambda: watched.watch.pace().total.count >= answers_before)
        await asyncio.create_task(hog(), name="hog")
        # On a busy machine, a step of this task may count as a block, too.
        await until(lambda: any(block.task == 2 and block.is_over for block in watched.watch.blocks()))
        return next(block for block in watched.watch.blocks() if block.task == 2)

    block: Block = watched.run(main())
    assert (block.by, block.task, block.is_alarm) == ("task", 2, True)
    assert block.name == "task 2 'hog'"
    assert block.coroutine.endswith("hog")
    assert block.lasted_s >= BLOCKED_AFTER
    return block


def when_seen(watched: Watched, how: str, fn: Callable[[], object]) -> threading.Thread:
    """Call *fn* in a thread as soon as the watchdog sees that the loop is blocked in that way."""

    def wait() -> None:
        watched.wait_seen(how)
        fn()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("method", METHODS)
def test_a_task_of_a_class_with_a_method_that_raises_is_named(watched: Watched, method: str) -> None:
    async def hog() -> None:
        watched.block_until_seen()

    async def main() -> Block:
        with awkward(method) as kind:
            kind(hog(), loop=watched.loop, name="hog")
            return await watched.last_block()

    block = watched.run(main())

    assert block.coroutine.endswith("hog")
    assert "'hog'" in block.name


# -- what is told apart ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_watched", [False, True])
def test_python_code_that_computes(watched: Watched, is_watched: bool) -> None:
    def compute() -> None:
        if is_watched:  # the switch interval is short then
            watched.watch.watch_busy("test")
        deadline = time.monotonic() + PATIENCE_S
        # A wait of 0.1 s for the GIL may be the machine's fault, and one look in a short block decides.
        while (found := watched.watch.current()) is None or found.how != "computes":
            assert time.monotonic() < deadline
            sum(range(200_000))  # long, so that looks do not find the question whether it is seen

    block = block_in_task(watched, compute)

    assert block.how == "computes"
    assert block.place.startswith("test_blocks.py:")
    assert not block.is_late


def test_a_sleep_is_named_with_its_line_and_what_to_use(watched: Watched) -> None:
    def nap() -> None:
        while watched.sees("nap") != "sleep":
            time.sleep(0.05)

    block = block_in_task(watched, nap)

    assert (block.how, block.call) == ("sleep", "time.sleep(0.05)")
    assert block.place == line_of(nap, "time.sleep")
    assert block.function.endswith("nap")
    assert remedy(block) == "use `await asyncio.sleep(...)`"
    assert "sleeps in time.sleep()" in block_text(block)


def test_c_code_that_holds_the_gil_is_reported_late(watched: Watched) -> None:
    poll = ctypes.PyDLL(None).poll

    def hold() -> None:
        poll(None, 0, 1_500)  # milliseconds, far more than there are between two markers

    # A thread that does not run yet cannot notice what keeps it from running.
    block = block_in_task(watched, hold, answers_before=1)

    assert (block.how, block.is_late) == ("gil", True)
    assert block.place == line_of(hold, "poll(")
    assert "holds the GIL, so this is reported late" in block_text(block)


def test_a_socket(watched: Watched) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = when_seen(watched, "socket", lambda: theirs.send(b"x"))
        block = block_in_task(watched, lambda: ours.recv(1))
        thread.join()

    assert (block.how, block.call) == ("socket", "ours.recv(1)")


def test_a_file(watched: Watched) -> None:
    reader, writer = os.pipe()
    thread = when_seen(watched, "file", lambda: os.write(writer, b"x"))
    with io.FileIO(reader) as file:
        block = block_in_task(watched, lambda: file.read(1))
    thread.join()
    os.close(writer)

    assert (block.how, block.call) == ("file", "file.read(1)")


def test_a_process(watched: Watched) -> None:
    code = "import sys; sys.stdin.read()"

    def run() -> None:
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            thread = when_seen(watched, "process", process.stdin.close)
            process.wait()
            thread.join()

    block = block_in_task(watched, run)

    assert (block.how, block.call) == ("process", "process.wait()")


def test_a_lock_of_another_thread(watched: Watched) -> None:
    lock = threading.Lock()
    lock.acquire()
    thread = when_seen(watched, "lock", lock.release)
    block = block_in_task(watched, lambda: lock.acquire())
    thread.join()

    assert (block.how, block.call) == ("lock", "lock.acquire()")


def test_a_lock_of_another_thread_in_a_with_statement(watched: Watched) -> None:
    lock = threading.Lock()
    lock.acquire()

    def enter() -> None:
        with lock:
            pass

    thread = when_seen(watched, "lock", lock.release)
    block = block_in_task(watched, enter)
    thread.join()

    assert block.how == "lock"
    assert block.place == line_of(enter, "with lock")


@pytest.mark.parametrize("kind", ["queue", "future"])
def test_what_another_thread_provides(watched: Watched, kind: str) -> None:
    if kind == "queue":
        items: queue.Queue[int] = queue.Queue()
        thread = when_seen(watched, "lock", lambda: items.put(1))
        block = block_in_task(watched, lambda: items.get())
    else:
        future: ThreadFuture[int] = ThreadFuture()
        thread = when_seen(watched, "lock", lambda: future.set_result(1))
        block = block_in_task(watched, lambda: future.result())
    thread.join()

    assert block.how == "lock"


def test_a_socket_in_blocking_mode_that_asyncio_was_given(watched: Watched) -> None:
    ours, theirs = socket.socketpair()  # blocking: the mistake

    async def main() -> Block:
        thread = when_seen(watched, "loop socket", lambda: theirs.send(b"x"))
        await watched.loop.sock_recv(ours, 1)
        thread.join()
        return await watched.last_block("main")

    with ours, theirs:
        block = watched.run(main())

    assert block.how == "loop socket"
    assert "sock_recv" in block.call
    assert "setblocking(False)" in remedy(block)


def test_the_garbage_collector(watched: Watched) -> None:
    """Collections are timed by what they tell; a slow callback of theirs stands for a large heap."""
    entered: list[str] = []

    def slow(phase: str, info: dict[str, Any]) -> None:
        if phase == "start" and info["generation"] == 2 and not entered:
            entered.append(phase)
            watched.block_until_seen()

    def collect() -> None:
        gc.callbacks.append(slow)
        try:
            gc.collect()
        finally:
            gc.callbacks.remove(slow)

    block = block_in_task(watched, collect)

    assert block.how == "garbage"
    assert block.garbage_s >= BLOCKED_AFTER / 2


# -- who ---------------------------------------------------------------------------------------------


def test_a_cell_is_no_alarm_unless_a_coroutine_blocks(watched: Watched) -> None:
    async def main() -> Block:
        watched.cells.executing, watched.cells.task = CELL, asyncio.current_task()
        watched.block_until_seen()
        return await watched.last_block()

    block = watched.run(main())

    assert (block.by, block.name, block.cell, block.task) == ("cell", "In[7]", CELL, None)


def test_a_callback_is_an_alarm(watched: Watched) -> None:
    def on_timer() -> None:
        watched.block_until_seen()

    async def main() -> Block:
        watched.loop.call_soon(on_timer)
        return await watched.last_block()

    block = watched.run(main())

    assert (block.by, block.is_alarm, block.task) == ("callback", True, None)
    assert block.name.endswith("on_timer()")


def test_a_block_is_seen_while_it_lasts(watched: Watched) -> None:
    seen: list[Any] = []

    def look() -> None:
        watched.block_until_seen()
        seen.append(watched.watch.current())

    block = block_in_task(watched, look)

    assert not seen[0].is_over
    assert seen[0].name == block.name
    assert seen[0].lasted_s <= block.lasted_s
    assert watched.watch.current() is None


def test_what_was_kept_waiting_is_counted(watched: Watched) -> None:
    async def waits() -> None:
        await asyncio.sleep(0.001)

    def hog() -> None:
        for _ in range(3):
            watched.loop.call_soon(int)
        watched.block_until_seen(keeps=True)

    async def main() -> Block:
        others = [asyncio.create_task(waits()) for _ in range(4)]
        await asyncio.sleep(0)
        await asyncio.to_thread(int)
        watched.loop.call_soon(hog)
        ready = [asyncio.create_task(waits(), name=f"ready {number}") for number in range(2)]
        block = await watched.last_block()
        await asyncio.gather(*others, *ready)
        return block

    block = watched.run(main())

    assert block.kept.ready >= 5
    assert "ready 0" in block.kept.tasks


def test_a_task_knows_for_how_long_it_has_blocked(watched: Watched) -> None:
    async def hog() -> None:
        watched.block_until_seen()

    async def main() -> float:
        task = asyncio.create_task(hog())
        await task
        block = await watched.last_block()
        assert watched.tracker.record(task).blocked_s == block.lasted_s
        return block.lasted_s

    assert watched.run(main()) >= BLOCKED_AFTER


def test_blocks_are_added_up_by_place(watched: Watched) -> None:
    def hog() -> None:
        watched.block_until_seen()

    async def main() -> None:
        watched.loop.call_soon(hog)
        await watched.last_block()
        watched.loop.call_soon(hog)
        await until(lambda: len(watched.blocks_in("block_until_seen")) == 2)
        await watched.last_block()

    watched.run(main())
    blocks = watched.blocks_in("block_until_seen")
    (total,) = [total for total in watched.watch.totals() if total.place == blocks[0].place]

    assert total.count == len(blocks) == 2
    assert total.total_s == pytest.approx(sum(block.lasted_s for block in blocks))


def step_at(line: int) -> Step:
    """Return a step of a callback that has blocked at that line."""
    frame = Frame("/tmp/ipykernel_1/1.py", "hog", line, 0)
    step = Step((line,), 0.0, 1.0)
    step.add(Look("step", frames=(frame,)), 1.0, None, 0.0)
    return step


def test_only_the_last_blocks_and_places_are_kept(watched: Watched) -> None:
    watch = watched.watch
    watch.set_blocked_after(BLOCKED_AFTER)
    for line in (*range(1, 261), 61, 261):
        watch.step_ended(step_at(line), messages=False)
    watch.stop()
    totals = {total.place: total.count for total in watch.totals()}
    said = blocks_text(watch.blocks(), watch.totals()).splitlines()

    assert [block.number for block in watch.blocks()] == list(range(213, 263))
    # The place that has not blocked for longest goes: its count, too.
    assert totals == dict.fromkeys(["1.py:61"], 2) | {f"1.py:{line}": 1 for line in range(63, 262)}
    assert sum(" callback hog() " in line for line in said) == 50
    assert said[-1].strip() == "and 190 more places"


# -- what is no block --------------------------------------------------------------------------------


def long_blocks(watched: Watched) -> list[Block]:
    """Return the blocks that are not the machine's fault: on a busy one, any step may last 0.1 s."""
    return [block for block in watched.watch.blocks() if block.lasted_s >= 4 * BLOCKED_AFTER]


async def markers(watched: Watched, count: int) -> None:
    """Wait until so many more markers were answered."""
    before = watched.watch.pace().total.count
    await until(lambda: watched.watch.pace().total.count >= before + count)


def test_a_nested_run_that_waits_is_none(watched: Watched) -> None:
    engine = Handoff(watched.loop)
    engine.install()

    async def main() -> None:
        task = asyncio.create_task(markers(watched, 3))
        await asyncio.sleep(0)
        engine.wait(task)

    watched.run(main())
    engine.remove()

    assert long_blocks(watched) == []


def test_a_loop_that_is_set_aside_is_not_blocked(watched: Watched) -> None:
    other = asyncio.new_event_loop()

    async def main() -> None:
        with aside(watched.loop, other):
            other.run_until_complete(asyncio.sleep(5 * BLOCKED_AFTER))
        await markers(watched, 2)

    watched.run(main())
    other.close()

    assert long_blocks(watched) == []
    assert watched.watch.pace().total.max_s < 4 * BLOCKED_AFTER


def test_a_loop_that_is_stopped_is_not_blocked(watched: Watched) -> None:
    async def main() -> None:
        asyncio.create_task(asyncio.sleep(100))  # noqa: RUF006  it keeps the watchdog awake
        await markers(watched, 1)

    watched.tracker.install()
    watched.watch.set_blocked_after(BLOCKED_AFTER)
    watched.loop.run_until_complete(main())
    time.sleep(5 * BLOCKED_AFTER)
    watched.loop.run_until_complete(markers(watched, 1))
    watched.watch.stop()
    watched.tracker.remove()

    assert long_blocks(watched) == []


def test_a_debugger_that_asks_is_none(watched: Watched) -> None:
    import pdb

    class Typed:
        """A user who takes five times as long as a block."""

        def readline(self) -> str:
            time.sleep(5 * BLOCKED_AFTER)
            return "continue\n"

    stdin: Any = Typed()

    async def main() -> None:
        pdb.Pdb(stdin=stdin, stdout=io.StringIO(), nosigint=True, readrc=False).set_trace()
        await markers(watched, 1)

    trace = sys.gettrace()
    watched.run(main())
    sys.settrace(trace)

    assert long_blocks(watched) == []


def test_with_nesting_off_and_debug_mode_it_works_too(watched: Watched) -> None:
    watched.loop.set_debug(True)
    watched.loop.slow_callback_duration = 1e6

    assert block_in_task(watched, watched.block_until_seen).how == "sleep"
    watched.loop.set_debug(False)


def test_debug_mode_goes_on_as_it_is(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    loop = watched.loop
    loop.set_debug(True)
    loop.slow_callback_duration = BLOCKED_AFTER / 2
    block = block_in_task(watched, watched.block_until_seen)
    warned = [record.getMessage() for record in caplog.records if record.name == "asyncio"]

    assert block.how == "sleep"
    assert any(text.startswith("Executing <Task") and "'hog'" in text for text in warned)
    assert (loop.get_debug(), loop.slow_callback_duration) == (True, BLOCKED_AFTER / 2)
    loop.set_debug(False)


def test_slow_callbacks_are_warned_of_as_without_watching(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    def slow() -> None:
        time.sleep(BLOCKED_AFTER / 2)

    async def main() -> None:
        before = watched.watch.pace().total.count
        watched.loop.call_soon(slow)
        await until(lambda: watched.watch.pace().total.count > before)

    watched.loop.set_debug(True)
    watched.loop.slow_callback_duration = BLOCKED_AFTER / 4
    watched.run(main())
    warned = [record.getMessage() for record in caplog.records if record.name == "asyncio"]

    assert any(text.startswith("Executing <Handle") and "slow()" in text for text in warned)
    watched.loop.set_debug(False)


def test_a_step_counts_from_the_end_of_what_was_no_block(watched: Watched) -> None:
    """The pass goes on behind a debugger, and it began before."""
    other = asyncio.new_event_loop()

    async def main() -> Block:
        with aside(watched.loop, other):
            other.run_until_complete(asyncio.sleep(10 * BLOCKED_AFTER))
        watched.block_until_seen()
        return await watched.last_block()

    block = watched.run(main())
    other.close()

    assert block.lasted_s < 9 * BLOCKED_AFTER


def block_until(is_true: Callable[[], bool]) -> None:
    """Block the calling thread until *is_true* returns True."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_who_looks_on_is_told_while_a_block_lasts_and_of_its_end(watched: Watched) -> None:
    told: list[tuple[int, Block | Standstill | None]] = []

    def onlooker(block: Block | Standstill | None) -> None:
        told.append((threading.get_ident(), block))

    def broken(block: Block | Standstill | None) -> None:
        raise ValueError(block)

    async def main() -> None:
        watched.watch.watch_blocks(broken)
        watched.watch.watch_blocks(onlooker)
        watched.cells.executing, watched.cells.task = CELL, asyncio.current_task()
        block_until(lambda: len(told) >= 2)
        await until(lambda: told[-1][1] is None)
        watched.watch.unwatch_blocks(onlooker)
        watched.watch.unwatch_blocks(onlooker)

    watched.run(main())
    blocks = [block for _thread, block in told if isinstance(block, Block)]

    assert {block.name for block in blocks} == {"In[7]"}
    assert not any(block.is_over for block in blocks)
    assert blocks[0].lasted_s < blocks[1].lasted_s
    assert threading.get_ident() not in {thread for thread, _block in told}


def test_who_looks_on_is_told_of_a_standstill_that_is_no_block(watched: Watched) -> None:
    told: list[Block | Standstill | None] = []
    other = asyncio.new_event_loop()

    async def main() -> None:
        watched.watch.watch_blocks(told.append)
        with aside(watched.loop, other):
            other.run_until_complete(until(lambda: len(told) >= 2))
        await until(lambda: told[-1] is None)

    watched.run(main())
    other.close()
    standstills = [each for each in told if isinstance(each, Standstill)]

    assert 0.0 < standstills[0].lasted_s < standstills[1].lasted_s
    assert not any(isinstance(each, Block) for each in told)
