"""A finalizer or a signal handler between any two lines of the engine's own code."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dis
import gc
import signal
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import greenlet
import pytest

import loopnb
from loopnb.errors import NestingError
from loopnb.frames import without_any_frames_of
from loopnb.nesting import scope
from loopnb.nesting._cpython import has_cancel_flag
from loopnb.nesting.engine import ParkingLot, Wait
from loopnb.nesting.greenlets import Driver, GreenletExit
from loopnb.nesting.released import ReleasedState
from loopnb.tracking.tracker import Tracker
from tests.loops import turns
from tests.nesting.conftest import FACTORIES

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = Path(loopnb.__file__).parent
ENGINE = tuple(str(PACKAGE / part) for part in ("nesting", "patching.py", "frames.py"))


def interrupting(
    number: int, call: Callable[[], None], files: tuple[str, ...] = ENGINE, until: Any = None
) -> Callable[..., Any]:
    """Return a trace function that calls *call* once, before that *number* of line in the engine's code.

    Args:
        number: Counted from 1.
        call: May raise.
        files: How the names of the engine's files begin.
        until: A function. When it begins, the tracing ends.
    """
    seen = 0

    def trace(frame: Any, event: str, _argument: object) -> Any:
        nonlocal seen
        if until is not None and frame.f_code is until.__code__:
            sys.settrace(None)
        if not frame.f_code.co_filename.startswith(files):
            return None
        if event == "line":
            seen += 1
            if seen == number:
                sys.settrace(None)
                call()
        return trace

    return trace


async def seven() -> int:
    await asyncio.sleep(0)
    return 7


async def nests(result: int, delay: float) -> int:
    await asyncio.sleep(0)
    return asyncio.run(asyncio.sleep(delay, result))


async def nested_runs(trace: Callable[..., Any]) -> list[int]:
    asyncio.get_running_loop().run_until_complete(asyncio.sleep(0))
    await asyncio.sleep(0)  # the pass in which the engine was installed is over
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return list(await asyncio.gather(nests(1, 0.0005), nests(2, 0), nests(3, 0)))
    finally:
        sys.settrace(before)


def outcomes_at_every_line(call: Callable[[], Any]) -> list[Any]:
    """Return what came of *call* before each line that the engine runs, the first to the last."""
    outcomes: list[Any] = []

    def attempt() -> None:
        try:
            outcomes.append(call())
        except NestingError as error:
            outcomes.append(error.reason)

    with asyncio.Runner() as runner:
        number = 0
        while len(outcomes) == number:
            number += 1
            assert runner.run(nested_runs(interrupting(number, attempt))) == [1, 2, 3], number
    return outcomes


def test_a_nested_run_there_works_or_is_refused_with_the_reason() -> None:
    def tries() -> int:
        coro = seven()
        try:
            return asyncio.run(coro)
        except NestingError:
            coro.close()
            raise

    outcomes = outcomes_at_every_line(tries)

    assert len(outcomes) > 100
    refusals = {outcome for outcome in outcomes if outcome != 7}
    assert 7 in outcomes
    assert refusals
    assert refusals <= {
        f"a finalizer or a signal handler has interrupted the loop while {what}"
        for what in ("stacks are being switched", "the loop is between two handles")
    }


def test_what_is_scheduled_there_runs() -> None:
    ran: list[int] = []

    def schedule() -> None:
        asyncio.get_running_loop().call_soon(ran.append, 1)

    outcomes = outcomes_at_every_line(schedule)

    assert len(ran) == len(outcomes) > 100


@pytest.mark.parametrize("function", [ParkingLot.begin, has_cancel_flag, ReleasedState.release])
def test_what_a_signal_handler_raises_before_the_switch_ends_that_wait_and_no_other(function: Any) -> None:
    raised: list[bool] = []

    def trace(frame: Any, _event: str, _argument: object) -> Any:
        if frame.f_code is function.__code__ and not raised:
            raised.append(True)
            raise LookupError("too late")
        return None

    async def main() -> list[Any]:
        asyncio.run(asyncio.sleep(0))
        await asyncio.sleep(0)
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            outcomes = await asyncio.gather(nests(1, 0.01), nests(2, 0), return_exceptions=True)
        finally:
            sys.settrace(before)
        return [*map(repr, outcomes), await nests(3, 0)]

    assert asyncio.run(main()) == ["LookupError('too late')", "2", 3]


# -- exceptions --------------------------------------------------------------------------------------
#
# CPython runs signal handlers when a function begins, when a call ends and at a jump backwards. What a
# handler raises comes out there. A trace function raises at the same points, one after the other.

_JUMPS_BACK = {
    opcode for name, opcode in dis.opmap.items() if "JUMP_BACKWARD" in name and "NO_INTERR" not in name
}
_CALLS = {opcode for name, opcode in dis.opmap.items() if name.startswith("CALL")}
_BEGINS = {dis.opmap["RESUME"]}


#: What switches stacks. In the rest a handler interrupts no more than the call of the user's.
SWITCHES = ("nesting/engine.py", "nesting/released.py", "nesting/_cpython.py")


class TooLateError(Exception):
    """What the signal handler raises."""


def raising(number: int, raised: list[str]) -> Callable[..., Any]:
    """Return a trace function that raises once, at that *number* of point in the engine's code."""
    seen = 0
    latest: dict[int, int] = {}  # by frame: its latest opcode

    def trace(frame: Any, event: str, _argument: object) -> Any:
        nonlocal seen
        if raised or not frame.f_code.co_filename.endswith(SWITCHES):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event in {"return", "exception"}:
            latest.pop(id(frame), None)
        if event == "opcode":
            opcode = frame.f_code.co_code[frame.f_lasti]
            before = latest.get(id(frame))
            latest[id(frame)] = opcode
            # An exception in a trace function comes out of the opcode that is about to run: for one
            # that has just run, of the next.
            if before in _CALLS or before in _BEGINS or opcode in _JUMPS_BACK:
                seen += 1
                if seen == number:
                    raised.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
                    sys.settrace(None)
                    raise TooLateError
        return trace

    return trace


class Runs:
    """Nested runs side by side, and how each has ended."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []

    async def main(self) -> None:
        asyncio.get_running_loop().run_until_complete(asyncio.sleep(0))
        await asyncio.gather(self._nests("a", 0.0005), self._nests("bb", 0), self._nests("ccc", 0))

    async def _nests(self, name: str, delay: float) -> None:
        self.began.append(name)
        try:
            self.ended.append(f"{name} {await nests(len(name), delay)}")
        except BaseException as error:
            self.ended.append(f"{name} {error!r}")
            raise


def run_and_raise(number: int, runner: asyncio.Runner) -> list[str]:
    """Do so, with an exception at that *number* of point; return where it was, if there are so many."""
    raised: list[str] = []
    runs = Runs()
    loop = runner.get_loop()
    task = loop.create_task(runs.main())
    came_out = False
    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # 3.12 looks for it once, when the trace function is set
    sys.settrace(raising(number, raised))
    try:
        loop.run_until_complete(task)
    except TooLateError:
        came_out = True
    finally:
        sys.settrace(before)
    # As in the stock loop: it was the loop that was interrupted, and what stops it may still be queued.
    with contextlib.suppress(RuntimeError):
        runner.run(asyncio.sleep(0))
    if not task.done():
        task.cancel()
    others = asyncio.all_tasks(loop)
    for other in others:
        other.cancel()
    runner.run(asyncio.wait([task, *others]))

    assert len(runs.began) == len(runs.ended), (raised, runs.ended)
    assert came_out == bool(raised), (raised, runs.ended)
    results = {"a 1", "bb 2", "ccc 3"}
    ends = {line.split()[-1].split("(")[0] for line in {*runs.ended} - results}
    assert ends <= ({"TooLateError", "CancelledError"} if raised else set()), (raised, runs.ended)
    return raised


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # of the call that was interrupted
def test_what_a_signal_handler_raises_at_any_point_of_the_engine_leaves_it_whole() -> None:
    """It may end the wait that it has interrupted, or the run as a whole; nothing hangs or is lost."""
    places: list[str] = []
    gc.collect()
    drivers_before = sum(isinstance(item, Driver) for item in gc.get_objects())
    with asyncio.Runner() as runner:
        number = 0
        while len(places) == number:
            number += 1
            places += run_and_raise(number, runner)
            # The loop goes on as if nothing had been.
            assert runner.run(nested_runs(lambda *_: None)) == [1, 2, 3], places[-1]
            engine = scope.engine_of(runner.get_loop())
            assert engine is None or not engine.waits, places[-1]

    assert len(places) > 100
    gc.collect()
    assert sum(isinstance(item, Driver) for item in gc.get_objects()) == drivers_before


#: What makes the main task of a run, and begins to wait for it.
BIRTHS = (*ENGINE, str(PACKAGE / "tracking"))
#: The same in asyncio. In an eager task, CPython 3.12 does not stand an error in these.
STOCK_BIRTHS = (asyncio.base_events.__file__, asyncio.events.__file__)


def run_in_runner(coro: Any) -> None:
    with asyncio.Runner() as runner:
        runner.run(coro)


CALLS: dict[str, Callable[[Any], object]] = {
    "asyncio.run": asyncio.run,
    "asyncio.run with debug": lambda coro: asyncio.run(coro, debug=False),
    "run_until_complete": lambda coro: asyncio.get_running_loop().run_until_complete(coro),
    "Runner": run_in_runner,
}


async def interrupted_before_the_wait(
    call: Callable[[Any], object], number: int, files: tuple[str, ...]
) -> list[str]:
    """Interrupt *call* at that *number* of line before it waits; return where that was, if there is one."""
    await asyncio.sleep(0)
    raised: list[str] = []
    steps: list[str] = []

    def interrupt() -> None:
        raised.append(sys._getframe(2).f_code.co_qualname)
        raise KeyboardInterrupt

    async def waits() -> None:
        steps.append("began")
        try:
            await asyncio.sleep(0)
            if raised:
                await asyncio.get_running_loop().create_future()
        finally:
            steps.append("ended")

    coro = waits()
    came_out = False
    before = sys.gettrace()
    sys.settrace(interrupting(number, interrupt, files, until=Wait.__init__))
    try:
        call(coro)
    except KeyboardInterrupt:
        came_out = True
    finally:
        sys.settrace(before)
    await turns()

    assert came_out == bool(raised), (raised, number, steps)
    assert steps in ([], ["began", "ended"]), (raised, number, steps)
    assert asyncio.all_tasks() == {asyncio.current_task()}, (raised, number)
    coro.close()  # there may be no task
    return raised


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
@pytest.mark.parametrize("is_tracked", [False, True], ids=["", "tracked"])
def test_an_interrupt_between_the_birth_of_a_run_and_its_wait_leaves_no_task(
    call: Callable[[Any], object], factory: Any, is_tracked: bool
) -> None:
    """Neither a task that nobody knows yet, nor one that is not waited for yet."""
    files = BIRTHS if factory is not None else BIRTHS + STOCK_BIRTHS
    places: list[str] = []
    with asyncio.Runner() as runner, contextlib.ExitStack() as parts:
        loop = runner.get_loop()
        loop.set_task_factory(factory)
        runner.run(asyncio.sleep(0))
        if is_tracked:
            tracker = Tracker(loop, describe=lambda *_: "", is_kernels=lambda _code: False)
            tracker.install()
            parts.callback(tracker.remove)
        # The first run has more lines than the others: they know the place where its task is spawned.
        assert not runner.run(interrupted_before_the_wait(call, sys.maxsize, files))
        number = 0
        while len(places) == number:
            number += 1
            places += runner.run(interrupted_before_the_wait(call, number, files))

    assert "Handoff.wait" in places
    if factory is None:
        assert ("make_factory.<locals>.make_tracked" if is_tracked else "make_task") in places


def test_an_error_out_of_our_frames_only_is_shown_without_any() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        raise KeyboardInterrupt

    assert without_any_frames_of(caught.value.__traceback__, lambda _filename: True) is None


@pytest.mark.parametrize("number", [2, 3, 4])  # the first one's owner is nobody who waits
def test_what_a_signal_handler_raises_as_a_driver_begins_ends_the_wait_that_needed_it(number: int) -> None:
    drivers: list[object] = []  # strong: none may be taken for another

    def switched(_event: str, stacks: tuple[object, object]) -> None:
        if isinstance(stacks[1], Driver) and stacks[1] not in drivers:
            drivers.append(stacks[1])
            if len(drivers) == number:
                raise TooLateError  # as at the first instruction: nothing of ours can catch it there

    async def main() -> list[Any]:
        try:
            runs = [nests(1, 0.01), nests(2, 0), nests(3, 0.005)]
            return await asyncio.gather(*runs, return_exceptions=True)
        finally:
            greenlet.settrace(None)

    with asyncio.Runner() as runner:
        greenlet.settrace(switched)
        outcomes = [*map(repr, runner.run(main()))]
        assert runner.run(main()) == [1, 2, 3]

    assert outcomes[number - 2] == "TooLateError()"
    assert sorted({*outcomes} - {"TooLateError()"}) == [
        str(other) for other in (1, 2, 3) if other != number - 1
    ]


def test_what_a_signal_handler_raises_while_drivers_are_thrown_away_reaches_the_owner() -> None:
    raised: list[bool] = []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.endswith("engine.py"):
            return None
        if event == "exception" and argument[0] is GreenletExit and not raised:
            raised.append(True)
            raise TooLateError
        return trace

    with asyncio.Runner() as runner:
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            with pytest.raises(TooLateError):
                runner.run(nests(1, 0))
        finally:
            sys.settrace(before)
        assert raised
        assert runner.run(nested_runs(lambda *_: None)) == [1, 2, 3]


def test_a_signal_that_comes_while_a_stack_is_freed_leaves_no_loop_set_as_running() -> None:
    """That takes long, in C, where none is handled; on 3.13 the next place was the loop's clean-up."""
    interrupt = ctypes.PYFUNCTYPE(None, ctypes.py_object)(("PyErr_SetInterrupt", ctypes.pythonapi))
    kept: list[object] = []  # the tasks as well: their end is told to functions that would swallow it

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(seven())
        loop.run_until_complete(task)
        kept.extend([task, asyncio.current_task(), weakref.ref(greenlet.getcurrent(), interrupt)])

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    runner = asyncio.Runner()
    loop = runner.get_loop()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(main())
        assert not loop.is_running()
        assert loop.run_until_complete(nests(1, 0)) == 1
    finally:
        signal.signal(signal.SIGINT, before)
        runner.close()
