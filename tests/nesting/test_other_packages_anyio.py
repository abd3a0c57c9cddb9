"""anyio in nested runs: task groups, cancel scopes, worker threads, and whenever it was imported."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from tests.processes import run_script

Run = Any


async def seven() -> int:
    await anyio.sleep(0.001)
    return 7


async def everything() -> list[int | bool]:
    got: list[int | bool] = []

    async def child() -> None:
        got.append(asyncio.run(seven()))  # nested in a child of the task group

    async with anyio.create_task_group() as group:
        group.start_soon(child)
        # There and back: the worker thread waits for this loop.
        got.append(await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(seven)))
    with anyio.move_on_after(0.01) as scope:
        await anyio.sleep(60)
    return [*got, scope.cancelled_caught]


@pytest.mark.parametrize(
    "start", [asyncio.run, lambda coro: anyio.run(lambda: coro)], ids=["asyncio", "anyio"]
)
def test_task_groups_cancel_scopes_and_worker_threads_work_in_nested_runs(run: Run, start: Any) -> None:
    async def nests() -> Any:
        await asyncio.sleep(0)
        return start(everything())

    async def main() -> Any:
        return await asyncio.gather(*(nests() for _ in range(3)))

    assert list(run(main())) == [[7, 7, True]] * 3


IMPORTED_LATER = """
import asyncio, sys
import loopnb.nesting
loopnb.nesting.apply()
assert "anyio" not in sys.modules

async def main():
    import anyio
    from anyio import run
    async def inner():
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0.001)
        return await anyio.to_thread.run_sync(lambda: 7)
    return anyio.run(inner), run(inner)

print(asyncio.run(main()))
"""


def test_imported_after_nesting_was_applied_it_nests_and_its_threads_let_the_process_end() -> None:
    ran = run_script(IMPORTED_LATER)

    assert (ran.stdout, ran.returncode) == ("(7, 7)\n", 0), ran.stderr


@pytest.mark.timeout(20)
def test_parked_tasks_count_as_blocked(run: Run) -> None:
    async def main() -> Any:
        def parks() -> Any:
            return asyncio.run(anyio.wait_all_tasks_blocked())

        async def nests() -> None:
            await asyncio.sleep(0)  # the first step of an eager task would park its creator, too
            asyncio.run(seven_times())

        async def seven_times() -> None:
            for _ in range(7):
                await asyncio.sleep(0)
            done.append(True)
            await over.wait()

        done: list[bool] = []
        over = asyncio.Event()
        other = asyncio.create_task(nests())
        parks()
        over.set()
        await other
        return done

    assert run(main()) == [True]
