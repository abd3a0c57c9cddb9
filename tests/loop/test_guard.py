"""The guard keeps its loop open and turning, whatever code asks of it."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.loop.guard import LoopGuard

if TYPE_CHECKING:
    from collections.abc import Iterator

posix = pytest.mark.skipif(sys.platform == "win32", reason="loops there have no add_signal_handler()")


class Run:
    """A nested run."""

    def __init__(self, future: Any = None) -> None:
        self.future = future
        self.ended: list[BaseException] = []

    def end(self, error: BaseException) -> None:
        self.ended.append(error)


class Host:
    """A host that answers as the test says, and notes what it is told."""

    def __init__(self) -> None:
        self.ends = False
        self.calls_itself = False
        self.is_programs = False
        self.run: Run | None = None
        self.told: list[str] = []
        self.was_told = asyncio.Event()
        self.warned: list[str] = []

    def tell(self, what: str) -> None:
        self.told.append(what)
        self.was_told.set()

    def is_ending(self) -> bool:
        return self.ends

    async def wind_down(self) -> None:
        await asyncio.sleep(0)
        self.tell("wound down")

    def end(self) -> None:
        self.tell("end")

    def warn(self, text: str) -> None:
        self.warned.append(text.partition(" was")[0])

    def innermost_run(self) -> Run | None:
        return self.run

    def run_of_caller(self) -> None:
        """Return None: a cell itself calls."""

    def park(self, future: asyncio.Future[Any]) -> None:
        self.tell("parked")
        self.run = Run(future)
        asyncio.get_running_loop().stop()
        assert future.done()
        self.run = None

    def is_background(self, _task: asyncio.Task[Any]) -> bool:
        return False

    def is_own_stop(self) -> bool:
        return self.calls_itself

    def is_programs_stop(self) -> bool:
        return self.is_programs

    def begin_again(self) -> None:
        self.tell("began again")

    is_own_handler = is_own_stop

    def is_callers_cell(self, _run: asyncio.Task[Any] | None) -> bool:
        return True

    def is_idle(self) -> bool:
        return False

    def is_sigint_reset(self) -> bool:
        return False

    def give_to_cell(self, _error: BaseException) -> bool:
        return False

    def report_handler(self, name: str, error: BaseException) -> None:
        self.tell(f"{name}: {error!r}")


def run(loop: asyncio.AbstractEventLoop, host: Host, coro: Any) -> None:
    """Run *coro* as a host does, whose own stop goes through."""

    def stop(_task: object) -> None:
        host.calls_itself = True
        loop.stop()
        host.calls_itself = False

    task = loop.create_task(coro)
    task.add_done_callback(stop)
    loop.run_forever()
    task.result()


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def guard(host: Host) -> Iterator[LoopGuard]:
    loop = asyncio.new_event_loop()
    guard = LoopGuard(loop, host)
    guard.patches.install()
    yield guard
    guard.patches.restore()
    loop.close()


@pytest.fixture
def loop(guard: LoopGuard) -> asyncio.AbstractEventLoop:
    """Return the loop that is guarded."""
    loop: asyncio.AbstractEventLoop = guard._loop
    return loop


def test_a_stop_where_nothing_is_nested_only_warns(loop: asyncio.AbstractEventLoop, host: Host) -> None:
    loop.call_soon(loop.stop)
    run(loop, host, asyncio.sleep(0))

    assert host.warned == ["loop.stop()"]


def test_a_stop_ends_the_innermost_run(loop: asyncio.AbstractEventLoop, host: Host) -> None:
    host.run = nested = Run()
    loop.call_soon(loop.stop)
    run(loop, host, asyncio.sleep(0))

    (error,) = nested.ended
    assert isinstance(error, RuntimeError)
    assert "stopped before Future completed" in str(error)
    assert host.warned == []


def test_the_hosts_own_stop_goes_through(loop: asyncio.AbstractEventLoop, host: Host) -> None:
    host.calls_itself = True
    loop.call_soon(loop.stop)
    loop.run_forever()

    assert host.told == host.warned == []


def test_a_stop_at_the_end_first_winds_down_once(
    loop: asyncio.AbstractEventLoop, host: Host, guard: LoopGuard
) -> None:
    host.ends = True
    assert not guard.is_winding_down
    loop.call_soon(loop.stop)
    loop.call_soon(loop.stop)

    loop.run_forever()

    assert guard.is_winding_down
    assert host.told == ["wound down"]
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert host.told == ["wound down"]


def test_a_host_that_begins_again_winds_down_again(loop: asyncio.AbstractEventLoop, host: Host) -> None:
    for _ in range(2):
        host.ends = False
        loop.call_soon(setattr, host, "ends", True)
        loop.call_soon(loop.stop)
        loop.run_forever()

    assert host.told == ["wound down", "began again", "wound down"]


def test_a_programs_stop_ends_the_host(loop: asyncio.AbstractEventLoop, host: Host) -> None:
    host.is_programs, host.run = True, Run()
    loop.call_soon(loop.stop)

    run(loop, host, host.was_told.wait())

    assert host.told == ["end"]
    assert host.warned == []
    assert host.run.ended == []


def test_whoever_asks_to_wind_down_waits_for_the_same_end(
    loop: asyncio.AbstractEventLoop, host: Host, guard: LoopGuard
) -> None:
    async def main() -> None:
        await asyncio.gather(guard.wind_down(), guard.wind_down())

    run(loop, host, main())

    assert host.told == ["wound down"]


def test_a_close_only_warns_until_the_host_has_stopped_the_loop(
    loop: asyncio.AbstractEventLoop, host: Host
) -> None:
    loop.close()
    assert not loop.is_closed()
    assert host.warned == ["loop.close()"]

    host.ends = True
    loop.close()

    assert loop.is_closed()


def test_run_forever_inside_the_loop_is_parked_until_a_stop(
    loop: asyncio.AbstractEventLoop, host: Host
) -> None:
    loop.call_soon(loop.run_forever)
    run(loop, host, asyncio.sleep(0))

    assert host.told == ["parked"]
    assert host.warned == []


async def terminated(host: Host) -> None:
    """Send SIGTERM, and wait until the host is told of it."""
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait_for(host.was_told.wait(), 10)


@posix
@pytest.mark.parametrize("handler", ["loop.stop", "a function that stops the loop", "one that does not"])
def test_a_stop_on_sigterm_ends_the_host(loop: asyncio.AbstractEventLoop, host: Host, handler: str) -> None:
    def stops(stop: bool) -> None:
        if stop:
            loop.stop()
        else:
            host.tell("handled")

    if handler == "loop.stop":
        loop.add_signal_handler(signal.SIGTERM, loop.stop)
    else:
        loop.add_signal_handler(signal.SIGTERM, stops, handler != "one that does not")

    run(loop, host, terminated(host))

    loop.remove_signal_handler(signal.SIGTERM)
    assert host.told == ["handled" if handler == "one that does not" else "end"]
    assert host.warned == []


@posix
def test_the_hosts_own_handler_is_added_as_it_is(loop: asyncio.AbstractEventLoop, host: Host) -> None:
    host.calls_itself = True
    loop.add_signal_handler(signal.SIGTERM, host.tell, "handled")

    run(loop, host, terminated(host))

    loop.remove_signal_handler(signal.SIGTERM)
    assert host.told == ["handled"]


def test_an_exception_handler_of_a_cell_stays(loop: asyncio.AbstractEventLoop) -> None:
    def handler(_loop: object, _context: object) -> None:
        """Do nothing."""

    loop.set_exception_handler(handler)

    assert loop.get_exception_handler() is handler


def test_other_loops_are_left_alone(loop: asyncio.AbstractEventLoop, host: Host) -> None:
    other = asyncio.new_event_loop()
    other.call_soon(other.stop)
    other.run_forever()
    other.close()

    assert other.is_closed()
    assert host.told == host.warned == []
