"""The cases that are timed in many rounds. Each returns the CPU seconds of one operation.

They take the thread's CPU time, not wall time. Nothing here ever sleeps, and the other programs of the
machine must not count.
"""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass
from time import thread_time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: Operations per round. They take stock asyncio about 5 ms, so short that nothing disturbs most rounds.
_NESTED, _STEPS, _FUTURES, _BATCHES, _BATCH = 400, 3000, 1500, 10, 100


async def _noop() -> None: ...


def _seen(_future: asyncio.Future[None]) -> None: ...


async def nested_run(nests: bool) -> float:
    """Wait for a coroutine from synchronous code in a task, with `run_until_complete`."""
    loop = asyncio.get_running_loop()
    began = thread_time()
    if nests:
        for _ in range(_NESTED):
            loop.run_until_complete(asyncio.sleep(0))
    else:
        for _ in range(_NESTED):
            await loop.create_task(asyncio.sleep(0))
    return (thread_time() - began) / _NESTED


async def nested_asyncio_run(nests: bool) -> float:
    """Do the same with `asyncio.run`."""
    if not nests:
        return await nested_run(nests)
    began = thread_time()
    for _ in range(_NESTED):
        asyncio.run(asyncio.sleep(0))  # type: ignore[unused-awaitable,unused-ignore]  # it returns None
    return (thread_time() - began) / _NESTED


async def nested_run_observed(nests: bool) -> float:
    """Do the same where the user has added a done-callback to the task."""
    loop = asyncio.get_running_loop()
    began = thread_time()
    for _ in range(_NESTED):
        task = loop.create_task(asyncio.sleep(0))
        task.add_done_callback(_seen)
        if nests:
            loop.run_until_complete(task)
        else:
            await task
    return (thread_time() - began) / _NESTED


async def step(_nests: bool) -> float:
    """Step a task once."""
    return await _steps()


async def _steps() -> float:
    began = thread_time()
    for _ in range(_STEPS):
        await asyncio.sleep(0)
    return (thread_time() - began) / _STEPS


async def step_below(nests: bool) -> float:
    """Step a task once while a stack is parked for it, as with `asyncio.run(main())` in a cell."""
    loop = asyncio.get_running_loop()
    if nests:
        return loop.run_until_complete(_steps())
    return await loop.create_task(_steps())


async def future_round_trip(_nests: bool) -> float:
    """Make a future, have the loop set its result, await it."""
    loop = asyncio.get_running_loop()
    began = thread_time()
    for _ in range(_FUTURES):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future
    return (thread_time() - began) / _FUTURES


async def spawn_and_gather(_nests: bool) -> float:
    """Spawn and gather coroutines that do nothing, 100 at a time. Return the time of one."""
    began = thread_time()
    for _ in range(_BATCHES):
        await asyncio.gather(*[_noop() for _ in range(_BATCH)])
    return (thread_time() - began) / (_BATCHES * _BATCH)


async def _step_once() -> None:
    await asyncio.sleep(0)


async def spawn_and_step(_nests: bool) -> float:
    """Do the same with coroutines that await once, as every coroutine does that is worth a task."""
    began = thread_time()
    for _ in range(_BATCHES):
        await asyncio.gather(*[_step_once() for _ in range(_BATCH)])
    return (thread_time() - began) / (_BATCHES * _BATCH)


async def spawn_in_group(_nests: bool) -> float:
    """Do the same with a TaskGroup."""
    began = thread_time()
    for _ in range(_BATCHES):
        async with asyncio.TaskGroup() as group:
            for _ in range(_BATCH):
                group.create_task(_noop())
    return (thread_time() - began) / (_BATCHES * _BATCH)


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: What the row is called.
        measure: Runs one round and returns the CPU seconds of one operation. Its argument is True if
            blocking calls nest.
        of_stock: What the row measures for stock asyncio, if that is something else.
    """

    name: str
    measure: Callable[[bool], Awaitable[float]]
    of_stock: str = ""


CASES = [
    Case("nested run_until_complete(sleep(0))", nested_run, "await create_task(sleep(0))"),
    Case("nested asyncio.run(sleep(0))", nested_asyncio_run, "await create_task(sleep(0))"),
    Case("nested run, done-callback on it", nested_run_observed, "await task, done-callback on it"),
    Case("task step, await sleep(0)", step),
    Case("task step inside a nested run", step_below, "in a task that is awaited"),
    Case("future round trip", future_round_trip),
    Case("spawn and gather(), each task", spawn_and_gather),
    Case("spawn in a TaskGroup, each task", spawn_in_group),
    Case("spawn and gather(), each awaits once", spawn_and_step),
]
BY_NAME = {case.name: case for case in CASES}


async def measure(case: Case, nests: bool) -> float:
    """Run one round of *case* after the tool's engine has settled on the loop. Return CPU seconds."""
    if nests:
        # The pass of the loop in which an engine is installed may differ from later passes.
        asyncio.get_running_loop().run_until_complete(asyncio.sleep(0))
    await asyncio.sleep(0)
    gc.collect()
    return await case.measure(nests)
