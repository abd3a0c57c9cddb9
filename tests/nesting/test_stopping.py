"""stop(), close(), fatal exceptions and the end of everything, with stacks parked."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Literal

import pytest

from loopnb import nesting
from loopnb.errors import NestingError
from loopnb.nesting.engine import Foreground
from loopnb.patching import MethodWrapper

ROOT = Path(__file__).parents[2]
pinned = pytest.mark.parametrize("was_applied_before", [True, False])


def new_loop(was_applied_before: bool) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    if was_applied_before:
        nesting.apply(loop)
    return loop


def test_stop_is_at_once_and_the_next_run_resumes_what_is_parked() -> None:
    loop = new_loop(True)
    seen: list[str] = []

    async def nests(name: str) -> None:
        loop.run_until_complete(asyncio.sleep(0.05))
        seen.append(name)

    tasks = [loop.create_task(nests(name)) for name in "ab"]
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert seen == []

    loop.run_until_complete(asyncio.gather(*tasks))
    loop.close()
    assert sorted(seen) == ["a", "b"]


@pinned
def test_a_wait_without_a_task_ends_at_a_stop_with_the_stock_error(was_applied_before: bool) -> None:
    loop = new_loop(was_applied_before)
    errors: list[str] = []

    def nests() -> None:
        try:
            loop.run_until_complete(asyncio.sleep(10))
        except RuntimeError as error:
            errors.append(str(error))

    loop.call_soon(nests)
    loop.call_later(0.01, loop.stop)
    start, cpu = time.monotonic(), time.process_time()
    loop.run_forever()
    assert errors == ["Event loop stopped before Future completed."]
    assert time.monotonic() - start < 5
    assert time.process_time() - cpu < 1

    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@pinned
@pytest.mark.parametrize("order", ["any", "lifo"])
def test_at_a_stop_a_wait_whose_future_is_done_has_its_result(
    was_applied_before: bool, order: Literal["any", "lifo"]
) -> None:
    loop = asyncio.new_event_loop()
    nesting.apply(loop if was_applied_before else None, order=order)
    outcomes: list[str] = []
    futures = [loop.create_future() for _ in range(2)]

    def nests(future: asyncio.Future[str]) -> None:
        try:
            outcomes.append(loop.run_until_complete(future))
        except RuntimeError as error:
            outcomes.append(str(error))

    def completes_the_older_and_stops() -> None:
        futures[0].set_result("done")
        loop.stop()

    for future in futures:
        loop.call_soon(nests, future)
    loop.call_later(0.01, completes_the_older_and_stops)
    loop.run_forever()
    loop.close()
    nesting.remove()
    assert outcomes == ["Event loop stopped before Future completed.", "done"]


def test_the_end_of_asyncio_run_does_not_wait_for_parked_bystanders() -> None:
    ended: list[str] = []

    async def nests() -> None:
        try:
            asyncio.run(asyncio.sleep(10))
        finally:
            ended.append("finally")

    async def main() -> None:
        asyncio.ensure_future(nests())  # noqa: RUF006  left behind on purpose
        await asyncio.sleep(0.01)

    start = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - start < 5
    assert ended == ["finally"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("nests_before", [0, 1, 2])
def test_a_fatal_exception_of_a_callback_reaches_the_owner_and_no_bystander(
    kind: type[BaseException], nests_before: int
) -> None:
    outcomes: list[str] = []

    async def nests() -> None:
        try:
            asyncio.run(asyncio.sleep(10))
        except BaseException as error:
            outcomes.append(type(error).__name__)
            raise

    def fail() -> None:
        raise kind

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(nests_before):
            loop.create_task(nests())  # noqa: RUF006  bystanders, the first to nest on this loop
        loop.call_later(0.01, fail)
        await asyncio.sleep(10)

    with pytest.raises(kind):
        asyncio.run(main())
    assert outcomes == ["CancelledError"] * nests_before  # by the cleanup of asyncio.run


def test_a_fatal_exception_reaches_the_newest_waiting_cell() -> None:
    from loopnb.nesting.scope import engine_of

    async def cell() -> str:
        try:
            asyncio.run(asyncio.sleep(10))
        except SystemExit as error:
            return f"exit {error.code}"
        return "slept"

    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.run_until_complete(asyncio.sleep(0))
        await asyncio.sleep(0)
        engine = engine_of(loop)
        assert engine is not None
        task = loop.create_task(cell())
        changes: list[int] = []
        engine.foreground = Foreground(lambda candidate: candidate is task, changed=changes.append)
        loop.call_later(0.01, sys.exit, 3)
        result = await task
        assert changes == [+1, -1]
        return result

    assert asyncio.run(main()) == "exit 3"


def test_an_interrupt_ends_the_newest_waiting_cell_only() -> None:
    from loopnb.nesting.scope import engine_of

    async def nests(delay: float) -> str:
        try:
            asyncio.run(asyncio.sleep(delay))
        except KeyboardInterrupt:
            return "interrupted"
        return "slept"

    async def main() -> tuple[str, str]:
        loop = asyncio.get_running_loop()
        loop.run_until_complete(asyncio.sleep(0))
        engine = engine_of(loop)
        assert engine is not None
        assert not engine.interrupt()
        cell, bystander = loop.create_task(nests(10)), loop.create_task(nests(0.05))
        engine.foreground = Foreground(lambda candidate: candidate is cell)
        await asyncio.sleep(0.01)
        assert engine.interrupt()
        return await asyncio.gather(cell, bystander)

    assert list(asyncio.run(main())) == ["interrupted", "slept"]


# -- the life of a parked stack ------------------------------------------------------------------


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    """Run *script* in a Python of its own."""
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)


def left_parked(loop: asyncio.AbstractEventLoop, seen: list[str]) -> asyncio.Task[None]:
    """Leave a task of *loop* parked, the loop stopped."""

    async def nests() -> None:
        try:
            loop.run_until_complete(asyncio.sleep(30))
        finally:
            seen.append("finally")
            await asyncio.sleep(0)
            seen.append("awaited")

    task = loop.create_task(nests())
    loop.run_until_complete(asyncio.sleep(0.005))
    assert not task.done()
    return task


def test_closing_a_loop_ends_its_parked_stacks_in_order() -> None:
    loop, seen = new_loop(True), list[str]()
    task = left_parked(loop, seen)
    loop.close()

    assert seen == ["finally", "awaited"]
    assert task.cancelled()
    assert loop.is_closed()


def test_closing_a_loop_needs_no_stop_that_a_guard_could_ignore() -> None:
    loop, seen = new_loop(True), list[str]()
    left_parked(loop, seen)
    guard = MethodWrapper(asyncio.BaseEventLoop, "stop", lambda _stop, _loop: None)
    guard.install()
    try:
        loop.close()
    finally:
        guard.restore()

    assert seen == ["finally", "awaited"]


def test_closing_a_loop_ends_even_a_stack_that_goes_on_nesting() -> None:
    loop = new_loop(True)
    refused: list[str] = []
    gives_up: list[bool] = []

    async def stubborn() -> None:
        while not gives_up:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)

    async def nests() -> None:
        try:
            loop.run_until_complete(stubborn())
        except asyncio.CancelledError:
            gives_up.append(True)
            coro = asyncio.sleep(30)
            try:
                loop.run_until_complete(coro)
            except NestingError as error:
                refused.append(error.reason)
            finally:
                coro.close()

    loop.create_task(nests())
    loop.run_until_complete(asyncio.sleep(0.005))
    start = time.monotonic()
    loop.close()

    assert refused == ["the loop is being closed"]
    assert time.monotonic() - start < 10


def test_a_loop_with_parked_stacks_is_refused_to_another_thread() -> None:
    loop, seen = new_loop(True), list[str]()
    left_parked(loop, seen)
    errors: list[str] = []

    def elsewhere() -> None:
        coro = asyncio.sleep(0)
        for use in (functools.partial(loop.run_until_complete, coro), loop.close):
            try:
                use()
            except NestingError as error:
                errors.append(error.reason)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert errors == ["1 stacks of this loop are parked in another thread"] * 2

    loop.close()
    assert seen == ["finally", "awaited"]


def test_a_loop_without_parked_stacks_can_move_to_another_thread() -> None:
    loop = new_loop(True)

    async def nests() -> int:
        loop.run_until_complete(asyncio.sleep(0.001))
        return 1

    results = [loop.run_until_complete(nests())]
    thread = threading.Thread(target=lambda: results.append(loop.run_until_complete(nests())))
    thread.start()
    thread.join()
    results.append(loop.run_until_complete(nests()))
    loop.close()
    assert results == [1, 1, 1]


def test_the_end_of_the_interpreter_comes_although_a_stack_goes_on_nesting() -> None:
    script = """
import asyncio
from loopnb import nesting
loop = asyncio.new_event_loop()
nesting.apply(loop)
async def nests_on():
    while True:
        try:
            loop.run_until_complete(asyncio.sleep(30))
        except BaseException:
            pass
task = loop.create_task(nests_on())
loop.run_until_complete(asyncio.sleep(0.01))
print("end")
"""
    ran = run_script(script)

    assert ran.stdout == "end\n"
    assert ran.returncode == 0
    assert "Exception ignored" not in ran.stderr


#: Part of a function of a script.
PARKS_THREE = """\
    async def nests(number):
        try:
            loop.run_until_complete(asyncio.sleep(30))
        finally:
            await asyncio.sleep(0.01)
            print("finally", number)
    tasks = [loop.create_task(nests(number)) for number in range(3)]
    loop.run_until_complete(asyncio.sleep(0.01))
"""


@pytest.mark.parametrize("keeps", ["loop", ""])
def test_the_end_of_the_interpreter_ends_parked_stacks(keeps: str) -> None:
    script = f"""
import asyncio, gc
from loopnb import nesting
def leave():
    loop = asyncio.new_event_loop()
    nesting.apply(loop)
{PARKS_THREE}    loop.call_soon(loop.stop)  # too late: it must not cut the cleanup short
    return loop
loop = leave()
if not {keeps!r}:
    del loop
gc.collect()
print("end")
"""
    ran = run_script(script)
    assert ran.stdout.splitlines()[0] == "end"
    assert sorted(ran.stdout.splitlines()[1:]) == ["finally 0", "finally 1", "finally 2"]
    assert ran.returncode == 0
    assert "Error" not in ran.stderr, ran.stderr


@pytest.mark.parametrize("keeps", ["loop", ""])
def test_the_end_of_a_thread_ends_what_is_parked_on_its_loop(keeps: str) -> None:
    # A collection between a loop and its socket pair, as it is made, has CPython end the sockets
    # of a loop that was dropped before the loop, whose __del__ then fails (without loopnb, too).
    script = f"""
import asyncio, gc, threading
gc.disable()
from loopnb import nesting
nesting.apply()
left = []
def leave():
    loop = asyncio.new_event_loop()
{PARKS_THREE}    if {keeps!r}:
        left.append(loop)
thread = threading.Thread(target=leave)
thread.start()
thread.join()
gc.collect()
print("end")
for loop in left:
    assert loop.run_until_complete(asyncio.sleep(0, 7)) == 7
    loop.close()
"""
    ran = run_script(script)
    assert sorted(ran.stdout.splitlines()[:3]) == ["finally 0", "finally 1", "finally 2"]
    assert ran.stdout.splitlines()[3:] == ["end"]
    assert ran.returncode == 0
    assert ran.stderr == ""


def test_the_interpreter_ends_while_a_daemon_thread_nests() -> None:
    script = """
import asyncio, threading
from loopnb import nesting
nesting.apply()
nested = threading.Event()
async def sleeps():
    await asyncio.sleep(0.0005)
async def nests_on():
    while True:
        asyncio.run(sleeps())
        nested.set()
async def main():
    await asyncio.gather(*[nests_on() for _ in range(5)])
threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
nested.wait()
print("end")
"""
    ran = run_script(script)
    assert (ran.stdout, ran.returncode) == ("end\n", 0), ran.stderr


def test_the_end_of_the_interpreter_ends_a_wait_for_what_swallows_its_cancellation() -> None:
    script = """
import asyncio
from loopnb import nesting
loop = asyncio.new_event_loop()
nesting.apply(loop)
async def swallows():
    while True:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            pass
async def nests():
    try:
        loop.run_until_complete(swallows())
    finally:
        print("finally")
task = loop.create_task(nests())
loop.run_until_complete(asyncio.sleep(0.01))
print("end")
"""
    ran = run_script(script)
    assert (ran.stdout, ran.returncode) == ("end\nfinally\n", 0), ran.stderr
