"""Whatever the tasks look like that a cell waits for, an interrupt ends them, and nobody else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.shell.cancelling import cancel_sparing

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Tasks = dict[str, asyncio.Task[Any]]


async def awaits(tasks: Tasks, name: str) -> None:
    """Await the task of that name."""
    await tasks[name]


async def gathers(tasks: Tasks, *names: str) -> None:
    """Gather the tasks of those names."""
    await asyncio.gather(*(tasks[name] for name in names))


async def limits(tasks: Tasks, name: str) -> None:
    """Await the task of that name, with a time limit."""
    await asyncio.wait_for(tasks[name], 600)


async def groups(tasks: Tasks, name: str) -> None:
    """Spawn a task of that name in a group. It awaits this one."""
    async with asyncio.TaskGroup() as group:
        tasks[name] = group.create_task(awaits(tasks, "cell"))


#: Tasks by name; an interrupt ends what 'cell' waits for.
CIRCLES: dict[str, Callable[[Tasks], dict[str, Coroutine[Any, Any, None]]]] = {
    "two that gather each other": lambda tasks: {
        "cell": gathers(tasks, "a", "b"), "a": gathers(tasks, "b"), "b": gathers(tasks, "a"),
    },
    "two that await each other": lambda tasks: {
        "cell": awaits(tasks, "a"), "a": awaits(tasks, "b"), "b": awaits(tasks, "a"),
    },
    "one that gathers itself": lambda tasks: {"cell": awaits(tasks, "a"), "a": gathers(tasks, "a")},
    "the cell itself": lambda tasks: {"cell": gathers(tasks, "a"), "a": awaits(tasks, "cell")},
    "with a time limit": lambda tasks: {
        "cell": awaits(tasks, "a"), "a": limits(tasks, "b"), "b": limits(tasks, "a"),
    },
    "through a group": lambda tasks: {"cell": awaits(tasks, "a"), "a": groups(tasks, "b")},
    "two circles": lambda tasks: {
        "cell": gathers(tasks, "a", "b", "c"),
        "a": awaits(tasks, "b"), "b": gathers(tasks, "a", "c"), "c": gathers(tasks, "b", "c"),
    },
}  # fmt: skip


def start(coros: dict[str, Coroutine[Any, Any, None]], tasks: Tasks) -> None:
    """Make a task of each."""
    for name, coro in coros.items():
        tasks[name] = asyncio.create_task(coro, name=name)


async def passes(count: int = 20) -> None:
    """Let the loop make some passes."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("circle", CIRCLES.values(), ids=CIRCLES)
def test_tasks_that_wait_for_each_other_in_a_circle_are_ended(
    circle: Callable[[Tasks], dict[str, Coroutine[Any, Any, None]]],
) -> None:
    reports: list[dict[str, Any]] = []

    async def begin() -> Tasks:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context))
        tasks: Tasks = {}
        start(circle(tasks), tasks)
        await passes()
        cancel_sparing(tasks["cell"], lambda _task: False)
        await passes()
        return tasks

    tasks = asyncio.run(begin())
    assert [name for name, task in tasks.items() if not task.cancelled()] == []
    assert reports == []


def test_a_circle_behind_another_cells_task_lives_on() -> None:
    async def begin() -> list[str]:
        tasks: Tasks = {}
        start({"cell": awaits(tasks, "a"), "a": awaits(tasks, "b"), "b": gathers(tasks, "a")}, tasks)
        await passes()
        cancel_sparing(tasks["cell"], lambda task: task is not tasks["cell"])
        await passes()
        living = [name for name, task in tasks.items() if not task.done()]
        cancel_sparing(tasks["a"], lambda _task: False)
        await passes()
        return living

    assert asyncio.run(begin()) == ["a", "b"]


def test_a_cell_at_the_end_of_a_chain_too_long_to_cancel_is_ended() -> None:
    async def begin() -> bool:
        never = asyncio.get_running_loop().create_future()
        chain = [asyncio.ensure_future(never)]
        for _ in range(5_000):
            chain.append(asyncio.ensure_future(asyncio.gather(chain[-1])))
        cell = asyncio.create_task(awaits({"last": chain[-1]}, "last"))
        await passes()
        cancel_sparing(cell, lambda _task: False)
        await passes()
        is_ended = cell.cancelled()
        never.cancel()
        await passes(20_000)
        return is_ended

    assert asyncio.run(begin())


async def limits_new(tasks: Tasks) -> None:
    """Spawn a task that awaits 'foreign', with a time limit."""
    await asyncio.wait_for(asyncio.create_task(awaits(tasks, "foreign")), 600)


async def groups_new(tasks: Tasks) -> None:
    """Spawn tasks in a group. One of them awaits 'foreign', the other spawns one that does."""
    async with asyncio.TaskGroup() as group:
        group.create_task(awaits(tasks, "foreign"))
        group.create_task(limits_new(tasks))


@pytest.mark.parametrize("spawns", [limits_new, groups_new])
@pytest.mark.parametrize("count", range(5))
def test_a_task_is_spared_also_if_what_would_await_it_has_not_begun(
    spawns: Callable[[Tasks], Coroutine[Any, Any, None]], count: int
) -> None:
    async def begin() -> Tasks:
        tasks: Tasks = {}
        start({"foreign": asyncio.sleep(600), "cell": spawns(tasks)}, tasks)
        await passes(count)
        cancel_sparing(tasks["cell"], lambda task: task is tasks["foreign"])
        await passes()
        assert not tasks["foreign"].done()
        return tasks

    assert asyncio.run(begin())["cell"].cancelled()
