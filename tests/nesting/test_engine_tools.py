"""Tracebacks, debuggers, profilers and asyncio's debug mode see the user's code and nothing of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import cProfile
import json
import os
import pstats
import subprocess
import sys
import traceback
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import loopnb
from tests.loops import FastLoop

Run = Any
PACKAGE = str(Path(loopnb.__file__).parent)


async def fails() -> None:
    await asyncio.sleep(0)
    raise LookupError("mine")


def by_run(coro: Any) -> None:
    asyncio.run(coro)


def by_runner(coro: Any) -> None:
    with asyncio.Runner() as runner:
        runner.run(coro)


def by_loop(coro: Any) -> None:
    asyncio.get_running_loop().run_until_complete(coro)


def by_other_loop(coro: Any) -> None:
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(coro)
    finally:
        loop.close()


@pytest.mark.parametrize("by", [by_run, by_runner, by_loop, by_other_loop])
def test_no_traceback_shows_the_engine(by: Any) -> None:
    async def main() -> str:
        try:
            by(fails())
        except LookupError:
            return traceback.format_exc()
        return ""

    text = asyncio.run(main())
    assert "LookupError: mine" in text
    assert PACKAGE not in text
    assert f"in {by.__name__}" in text


@pytest.mark.parametrize("by", [by_run, by_runner, by_other_loop])
def test_no_traceback_of_a_stock_run_shows_the_engine(by: Any) -> None:
    with pytest.raises(LookupError) as caught:
        by(fails())

    assert PACKAGE not in "".join(traceback.format_exception(caught.value))


def test_the_stack_of_a_parked_task_ends_where_it_waits() -> None:
    is_parked, goes_on = asyncio.Event(), asyncio.Event()

    async def inner() -> None:
        is_parked.set()
        await goes_on.wait()

    def helper() -> None:
        asyncio.run(inner())

    async def nests() -> None:
        await asyncio.sleep(0)
        helper()

    async def main() -> tuple[list[str], list[str], int]:
        asyncio.run(asyncio.sleep(0))
        task = asyncio.ensure_future(nests())
        await is_parked.wait()
        names = [frame.f_code.co_name for frame in task.get_stack()]
        newest = [frame.f_code.co_name for frame in task.get_stack(limit=1)]
        goes_on.set()
        await task
        return names, newest, len(task.get_stack())

    assert asyncio.run(main()) == (["nests", "helper"], ["helper"], 0)


def test_cancelled_timers_do_not_pile_up(run: Run) -> None:
    async def main() -> int:
        loop: Any = asyncio.get_running_loop()

        async def nests() -> None:
            await asyncio.sleep(0)
            for _ in range(100):
                for _ in range(20):
                    loop.call_later(3600, int).cancel()
                asyncio.run(asyncio.sleep(0))

        await asyncio.gather(*(nests() for _ in range(5)))
        return len(loop._scheduled)

    assert run(main()) < 500  # of 10,000


@pytest.mark.parametrize("setter", ["settrace", "setprofile"])
def test_a_trace_function_set_before_survives(setter: str) -> None:
    lines: list[str] = []

    def trace(frame: Any, _event: str, _argument: object) -> Any:
        lines.append(frame.f_code.co_name)
        return trace

    getter = getattr(sys, setter.replace("set", "get"))

    def after() -> None: ...

    async def nests(delay: float) -> bool:
        await asyncio.sleep(0)
        asyncio.run(asyncio.sleep(delay))
        after()
        return getter() is trace

    async def main() -> Any:
        return await asyncio.gather(nests(0.01), nests(0.002), nests(0.005))

    before = getter()
    getattr(sys, setter)(trace)
    try:
        kept = asyncio.run(main())
    finally:
        getattr(sys, setter)(before)
    assert list(kept) == [True] * 3
    assert lines.count("after") >= 3


def test_the_callers_cumulative_time_in_a_profile_is_right() -> None:
    def caller() -> None:
        asyncio.run(asyncio.sleep(0.1))

    async def busy() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def main() -> None:
        tasks = [asyncio.ensure_future(busy()) for _ in range(3)]
        caller()
        await asyncio.gather(*tasks)

    with contextlib.closing(FastLoop()) as loop:
        profile = cProfile.Profile(loop.time)
        profile.runcall(loop.run_until_complete, main())
    stats: Any = pstats.Stats(profile)
    (times,) = (row for key, row in stats.stats.items() if key[2] == "caller")
    assert times[0] == 1  # calls
    assert times[3] == pytest.approx(0.1)  # seconds, with what it calls


COVERED = """
import asyncio
import loopnb.nesting
loopnb.nesting.apply()

async def inner(delay):
    before = delay
    await asyncio.sleep(delay)
    after = before
    return after

def nests(delay):
    first = delay
    got = asyncio.run(inner(first))
    second = got
    return second

async def task(delay):
    await asyncio.sleep(0)
    got = nests(delay)
    then = got
    await asyncio.sleep(0)
    return then

async def main():
    got = await asyncio.gather(task(0.01), task(0.03), task(0.002))
    got.append(nests(0))
    return got

done = asyncio.run(main())
"""

COVERAGE: dict[str, tuple[str, ...]] = {"ctrace": ("ctrace", "--concurrency=thread,greenlet")}
if sys.version_info >= (3, 12):
    COVERAGE["sysmon"] = ("sysmon",)


@pytest.mark.parametrize(("core", "options"), [(core, options) for core, *options in COVERAGE.values()])
def test_coverage_counts_each_line_before_in_and_after_a_nested_run(
    core: str, options: list[str], tmp_path: Path
) -> None:
    (tmp_path / "covered.py").write_text(COVERED)
    path = os.pathsep.join(filter(None, [str(Path(PACKAGE).parent), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "COVERAGE_CORE": core, "PYTHONPATH": path}

    def coverage(*arguments: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", "coverage", *arguments], cwd=tmp_path, env=environment,
            capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    coverage("run", "--include=covered.py", *options, "covered.py")
    coverage("json", "-o", "report.json")
    report = json.loads((tmp_path / "report.json").read_text())

    assert report["files"]["covered.py"]["missing_lines"] == []


def bottom_of_stack() -> tuple[str, str]:
    *_, (frame, _line) = traceback.walk_stack(sys._getframe())
    return frame.f_code.co_name, frame.f_globals["__name__"]


async def below_a_handle() -> Any:
    found = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: found.set_result(bottom_of_stack()))
    return await found


async def nests_deep(depth: int) -> Any:
    return asyncio.run(nests_deep(depth - 1)) if depth else bottom_of_stack()


@pytest.mark.parametrize("make", [below_a_handle, *(partial(nests_deep, depth) for depth in (0, 1, 9))])
def test_every_stack_stands_on_a_module_as_in_a_script(make: Any) -> None:
    async def main() -> Any:
        return await asyncio.create_task(make())

    assert asyncio.run(main()) == ("<module>", "__main__")


def test_a_warning_may_point_further_out_than_any_frame() -> None:
    async def warns() -> None:
        warnings.warn("mine", stacklevel=99)

    with pytest.warns(UserWarning, match="mine"):
        asyncio.run(warns())
