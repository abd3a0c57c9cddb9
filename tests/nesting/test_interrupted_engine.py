"""A finalizer or a signal handler between any two lines of the engine's own code."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import loopnb
from loopnb.errors import NestingError
from loopnb.internals.cancel_flag import has_cancel_flag
from loopnb.nesting.absence import Absences
from loopnb.nesting.lot import ParkingLot

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = Path(loopnb.__file__).parent
ENGINE = tuple(str(PACKAGE / folder) for folder in ("nesting", "internals"))


def interrupting(number: int, call: Callable[[], None]) -> Callable[..., Any]:
    """Return a trace function that calls *call* once, before that *number* of line in the engine's code."""
    seen = 0

    def trace(frame: Any, event: str, _argument: object) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.startswith(ENGINE):
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
    assert all("stacks are being switched" in refusal for refusal in refusals)


def test_what_is_scheduled_there_runs() -> None:
    ran: list[int] = []

    def schedule() -> None:
        asyncio.get_running_loop().call_soon(ran.append, 1)

    outcomes = outcomes_at_every_line(schedule)

    assert len(ran) == len(outcomes) > 100


@pytest.mark.parametrize("function", [ParkingLot.begin, has_cancel_flag, Absences.begin])
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
