"""The end of a loop, a thread or the interpreter ends what is parked, in order."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loopnb.errors import NestingError
from loopnb.patching import MethodWrapper
from tests.loops import turns
from tests.nesting.conftest import new_loop
from tests.processes import run_script

if TYPE_CHECKING:
    import subprocess

ROOT = Path(__file__).parents[2]

#: How a script begins that leaves stacks parked.
PARK_THREE = """
from tests.loops import turns

def park_three(loop):
    async def nests(number):
        try:
            loop.run_until_complete(asyncio.sleep(30))
        finally:
            await asyncio.sleep(0.01)
            print("finally", number)

    tasks = [loop.create_task(nests(number)) for number in range(3)]
    loop.run_until_complete(turns())
    return tasks
"""


def run_after_parking(script: str) -> subprocess.CompletedProcess[str]:
    """Run *script*, after `PARK_THREE`, in a Python of its own."""
    return run_script(PARK_THREE + textwrap.dedent(script))


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
    loop.run_until_complete(turns())
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
                await asyncio.Event().wait()  # which nobody sets

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
    loop.run_until_complete(turns())
    loop.close()  # or it would go on for ever

    assert refused == ["the loop is being closed"]


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
        loop.run_until_complete(turns())
        print("end")
    """
    ran = run_after_parking(script)

    assert ran.stdout == "end\n"
    assert ran.returncode == 0
    assert "Exception ignored" not in ran.stderr


@pytest.mark.parametrize("keeps", ["loop", ""])
def test_the_end_of_the_interpreter_ends_parked_stacks(keeps: str) -> None:
    script = f"""
        import asyncio, gc
        from loopnb import nesting
        def leave():
            loop = asyncio.new_event_loop()
            nesting.apply(loop)
            tasks = park_three(loop)
            loop.call_soon(loop.stop)  # too late: it must not cut the cleanup short
            return loop
        loop = leave()
        if not {keeps!r}:
            del loop
        gc.collect()
        print("end")
    """
    ran = run_after_parking(script)
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
            tasks = park_three(loop)
            if {keeps!r}:
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
    ran = run_after_parking(script)
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
    ran = run_after_parking(script)
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
        loop.run_until_complete(turns())
        print("end")
    """
    ran = run_after_parking(script)
    assert (ran.stdout, ran.returncode) == ("end\nfinally\n", 0), ran.stderr
