"""Held context managers: entered and left by one task each; what is said of those that end by themselves."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from contextvars import Context
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from loopnb.errors import NotHeldError
from loopnb.records import CellRef
from loopnb.tracking.cells import CellRuns, current_cell
from loopnb.tracking.holding import Holds, end_task, is_held

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine


class Remembered:
    """Stands in for `Failures`."""

    def __init__(self) -> None:
        self.tasks: list[Any] = []

    def remember(self, task: asyncio.Task[Any]) -> None:
        task.exception()
        self.tasks.append(task)


class Log:
    """Makes context managers that note who enters and leaves them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tasks: set[asyncio.Task[Any] | None] = set()

    @asynccontextmanager
    async def manager(self, name: str, error: Exception | None = None) -> AsyncIterator[str]:
        self.lines.append(f"+{name}")
        self.tasks.add(asyncio.current_task())
        try:
            yield name
        finally:
            await asyncio.sleep(0)
            self.tasks.add(asyncio.current_task())
            self.lines.append(f"-{name}")
            if error is not None:
                raise error


def run(main: Callable[[Holds, Log], Coroutine[Any, Any, Any]]) -> Log:
    async def with_holds() -> Log:
        log = Log()
        holds = Holds(asyncio.get_running_loop(), Remembered(), CellRuns())  # type: ignore[arg-type]  # a stand-in
        await main(holds, log)
        await holds.release_all(1)
        return log

    # In a Context of its own: nobody's cell is current there.
    return Context().run(asyncio.run, with_holds())


def holders() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if is_held(task)]


async def end(task: asyncio.Task[Any]) -> None:
    end_task(task)
    await asyncio.wait([task])


def test_one_task_enters_and_leaves() -> None:
    async def main(holds: Holds, log: Log) -> None:
        assert await holds.hold(log.manager("a"), None) == "a"
        (task,) = holders()
        assert task.get_name() == "held by other code"
        await holds.release("a")

        assert log.tasks == {task}
        assert holders() == []

    assert run(main).lines == ["+a", "-a"]


@pytest.mark.parametrize("by", ["value", "manager", "name"])
def test_released_by(by: str) -> None:
    async def main(holds: Holds, log: Log) -> None:
        manager = log.manager("a")
        value = await holds.hold(manager, "given")
        await holds.release({"value": value, "manager": manager, "name": "given"}[by])
        with pytest.raises(NotHeldError):
            await holds.release("given")

    assert run(main).lines == ["+a", "-a"]


def test_all_are_released_newest_first() -> None:
    async def main(holds: Holds, log: Log) -> None:
        for name in "abc":
            await holds.hold(log.manager(name), None)

    assert run(main).lines == ["+a", "+b", "+c", "-c", "-b", "-a"]


def test_what_does_not_leave_in_time_is_cancelled() -> None:
    @asynccontextmanager
    async def stays() -> AsyncIterator[None]:
        yield
        await asyncio.sleep(60)

    async def main(holds: Holds, _log: Log) -> None:
        await holds.hold(stays(), None)
        (task,) = holders()
        await holds.release_all(0.01)
        await asyncio.wait([task])

        assert task.cancelled()

    run(main)


def test_an_error_of_entering_comes_to_the_caller() -> None:
    @asynccontextmanager
    async def fails() -> AsyncIterator[None]:
        raise ValueError(7)
        yield

    async def main(holds: Holds, _log: Log) -> None:
        with pytest.raises(ValueError, match="7"):
            await holds.hold(fails(), None)
        await asyncio.sleep(0)

        assert holders() == []

    run(main)


def test_an_error_of_leaving_comes_to_whoever_releases(capsys: pytest.CaptureFixture[str]) -> None:
    async def main(holds: Holds, log: Log) -> None:
        await holds.hold(log.manager("a", ValueError(7)), None)
        with pytest.raises(ValueError, match="7"):
            await holds.release("a")

    run(main)

    assert capsys.readouterr().err == ""


def test_cancelled_while_it_enters_it_is_not_held() -> None:
    ended: list[bool] = []

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)
        yield

    async def main(holds: Holds, _log: Log) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(holds.hold(slow(), None), 0.01)
        async with asyncio.timeout(20):
            while holders():  # noqa: ASYNC110  no event tells
                await asyncio.sleep(0)

        assert ended == [True]

    run(main)


def test_a_run_of_the_same_cell_releases_the_earlier_ones_first() -> None:
    async def main(holds: Holds, log: Log) -> None:
        for count, cell_id, names in [(1, "x", "ab"), (2, "y", "c"), (3, "x", "de")]:
            current_cell.set(CellRef(cell_id, count))
            for name in names:
                await holds.hold(log.manager(name), None)

        assert sorted(task.get_name() for task in holders()) == ["held by In[2]", *["held by In[3]"] * 2]
        log.lines.append("end")

    assert " ".join(run(main).lines) == "+a +b +c -b -a +d +e end -e -d -c"


def test_what_has_the_same_given_name_is_released_first() -> None:
    async def main(holds: Holds, log: Log) -> None:
        await holds.hold(log.manager("a"), "given")
        await holds.hold(log.manager("b"), "given")

    assert run(main).lines == ["+a", "-a", "+b", "-b"]


def test_to_cancel_it_is_to_release_it() -> None:
    seen: list[Any] = []

    class Manager:
        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *error: object) -> None:
            seen.append(error)

    async def main(holds: Holds, _log: Log) -> None:
        await holds.hold(Manager(), None)
        await end(holders()[0])

    run(main)

    assert seen == [(None, None, None)]


def test_a_failing_child_of_a_task_group_is_said_with_what_is_gone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def fails() -> None:
        raise ValueError(7)

    async def main(holds: Holds, _log: Log) -> None:
        current_cell.set(CellRef("x", 3))
        group = await holds.hold(asyncio.TaskGroup(), "group")
        (task,) = holders()
        group.create_task(fails())
        await asyncio.wait([task])
        with pytest.raises(NotHeldError):
            await holds.release(group)

    run(main)
    said = capsys.readouterr().err

    assert "In[3] held as 'group' is gone: ExceptionGroup" in said
    assert said.count("\n") == 1


def test_a_timeout_that_passes_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    async def main(holds: Holds, _log: Log) -> None:
        await holds.hold(asyncio.timeout(0.001), None)
        await asyncio.wait(holders())

    run(main)

    assert "is gone: TimeoutError" in capsys.readouterr().err


def test_a_task_group_of_anyio_is_left_in_another_task() -> None:
    done: list[int] = []

    async def child() -> None:
        await anyio.sleep(0.001)
        done.append(1)

    async def main(holds: Holds, _log: Log) -> None:
        group = await holds.hold(anyio.create_task_group(), None)
        group.start_soon(child)
        await asyncio.create_task(holds.release(group))

    run(main)

    assert done == [1]


@pytest.mark.parametrize("wrong", [None, open, asyncio.Lock, asyncio.sleep], ids=repr)
def test_anything_else_is_a_type_error(wrong: object) -> None:
    async def main(holds: Holds, _log: Log) -> None:
        with pytest.raises(TypeError, match="async context manager"):
            await holds.hold(wrong, None)

    run(main)
