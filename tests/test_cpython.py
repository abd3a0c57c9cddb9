"""What is found in asyncio's private parts: every task of a loop, whatever hides it."""

from __future__ import annotations

import ast
import asyncio
import gc
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from loopnb import _cpython

#: Python code can read asyncio's set of tasks up to 3.13 only.
WAYS = ["a scan"] if sys.version_info >= (3, 14) else ["asyncio's set", "a scan"]


@pytest.fixture(params=WAYS)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Find tasks in each way that there is."""
    if request.param == "a scan":
        monkeypatch.setattr(_cpython, "_scheduled", None)


@pytest.mark.usefixtures("_way")
def test_live_and_finished_tasks_of_a_loop_are_told_apart() -> None:
    async def main() -> tuple[set[str], set[str], set[str]]:
        loop = asyncio.get_running_loop()
        live = asyncio.create_task(asyncio.Event().wait(), name="live")
        held = asyncio.create_task(asyncio.sleep(0), name="held")
        dropped = asyncio.create_task(asyncio.sleep(0), name="dropped")
        await asyncio.wait([held, dropped])
        del dropped
        gc.collect()
        found = [{task.get_name() for task in find(loop)} for find in finders]
        live.cancel()
        return found[0], found[1], {held.get_name()}

    finders = _cpython.live_tasks, _cpython.held_finished_tasks
    live, finished, held = asyncio.run(main())

    assert {"live"} < live
    assert not live & (held | {"dropped"})
    assert finished == held


@pytest.mark.usefixtures("_way")
def test_tasks_of_other_loops_are_not_found() -> None:
    other = asyncio.new_event_loop()
    theirs = other.create_task(asyncio.sleep(0))
    other.run_until_complete(theirs)

    async def main() -> list[asyncio.Task[Any]]:
        loop = asyncio.get_running_loop()
        return [*_cpython.live_tasks(loop), *_cpython.held_finished_tasks(loop)]

    assert theirs not in asyncio.run(main())
    assert _cpython.held_finished_tasks(other) == [theirs]
    other.close()


class Told:
    """Garbage that, like a task that failed, formats a traceback when it goes."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        """Format one."""
        try:
            [1][int("7") + 0]
        except IndexError:
            traceback.format_exc()


def test_source_is_parsed_also_if_garbage_formats_a_traceback_meanwhile() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    parsed = []
    for _ in range(30):
        Told()
        parsed.append(_cpython.parse(source))  # makes enough objects to start a collection

    assert {type(module) for module in parsed} == {ast.Module}
