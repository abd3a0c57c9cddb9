"""Failures that nobody has seen are reported once, after their cell."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.records import CellRef
from loopnb.tracking import cells
from loopnb.tracking.failures import Failures
from tests.tracking.coroutines import fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from loopnb.tracking.history import EndedTask
    from loopnb.tracking.tracker import Tracker


class Watched:
    """Failures of a tracked loop, with a cell that can be said to execute."""

    def __init__(self) -> None:
        self.executing: set[CellRef] = set()
        self.reported: list[tuple[CellRef | None, str]] = []
        self.failures = Failures(
            asyncio.get_running_loop(),
            is_ignored=lambda _task: False,
            is_executing=lambda cell: bool(self.executing) if cell is None else cell in self.executing,
            delay=lambda: 0.0,
        )
        self.failures.start(self._report)

    def _report(self, cell: CellRef | None, failures: list[EndedTask]) -> None:
        self.reported += [(cell, failure.name) for failure in failures]

    def begin(self, cell: CellRef) -> None:
        cells.current_cell.set(cell)
        self.executing.add(cell)

    def end(self, cell: CellRef) -> None:
        self.executing.discard(cell)
        self.failures.after_cell()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("is_held", [False, True])
def test_a_failure_is_reported_once_its_cell_has_ended(track: Callable[..., Any], is_held: bool) -> None:
    cell = CellRef("a", 1)

    async def main(_tracker: Tracker) -> list[tuple[CellRef | None, str]]:
        watched = Watched()
        watched.begin(cell)
        task: Any = asyncio.create_task(fail(), name="failing")
        if not is_held:
            del task
        await settle()
        assert watched.reported == []
        watched.end(cell)
        await settle()
        watched.failures.stop()
        return watched.reported

    assert track(main) == [(cell, "failing")]


@pytest.mark.parametrize("error", [GeneratorExit(), BaseExceptionGroup("g", [KeyboardInterrupt()])])
def test_so_is_one_that_only_asyncio_takes_for_a_failure(
    track: Callable[..., Any], error: BaseException
) -> None:
    cell = CellRef("a", 1)

    async def fails() -> None:
        raise error

    async def main(_tracker: Tracker) -> list[tuple[CellRef | None, str]]:
        watched = Watched()
        watched.begin(cell)
        task = asyncio.create_task(fails(), name="failing")
        await settle()
        watched.end(cell)
        await settle()
        watched.failures.stop()
        return watched.reported if task.done() else []

    assert track(main) == [(cell, "failing")]


def test_a_failure_that_a_later_cell_awaits_is_not_reported(track: Callable[..., Any]) -> None:
    first, second = CellRef("a", 1), CellRef("b", 2)

    async def main(_tracker: Tracker) -> list[tuple[CellRef | None, str]]:
        watched = Watched()
        watched.begin(first)
        task = asyncio.create_task(fail(), name="failing")
        watched.end(first)
        watched.begin(second)
        await settle()
        with pytest.raises(ValueError):
            await task
        watched.end(second)
        await settle()
        watched.failures.stop()
        return watched.reported

    assert track(main) == []


def test_a_held_task_that_fails_after_its_cell_is_reported_then(track: Callable[..., Any]) -> None:
    cell = CellRef("a", 1)

    async def main(_tracker: Tracker) -> list[tuple[CellRef | None, str]]:
        watched, may_fail = Watched(), asyncio.Event()

        async def fails_later() -> None:
            await may_fail.wait()
            await fail()

        watched.begin(cell)
        task = asyncio.create_task(fails_later(), name="failing")
        await settle()
        watched.end(cell)
        await settle()
        assert watched.reported == []
        may_fail.set()
        await settle()
        watched.failures.stop()
        return watched.reported if task.done() else []

    assert track(main) == [(cell, "failing")]


def test_a_task_that_is_destroyed_while_it_is_pending_is_told_of_in_its_cell_and_not_by_asyncio(
    track: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    cell = CellRef("cell", 1)

    async def waits() -> None:
        await asyncio.get_running_loop().create_future()  # that nobody else holds

    async def main(_tracker: Tracker) -> list[tuple[CellRef | None, str]]:
        watched = Watched()
        watched.begin(cell)
        task = asyncio.create_task(waits(), name="lost")
        await settle()
        watched.end(cell)
        del task
        gc.collect()
        await settle()
        watched.failures.stop()
        return watched.reported

    assert track(main) == [(cell, "lost")]
    assert caplog.records == []


@pytest.mark.parametrize("has_failed", [False, True])
def test_so_are_those_of_a_gather_that_nobody_holds(
    track: Callable[..., Any], caplog: pytest.LogCaptureFixture, has_failed: bool
) -> None:
    cell = CellRef("cell", 1)

    async def waits() -> None:
        await asyncio.get_running_loop().create_future()  # that nobody else holds

    async def main(_tracker: Tracker) -> list[CellRef | None]:
        watched = Watched()
        watched.begin(cell)
        gathering: Any = asyncio.gather(waits(), waits(), *([fail()] if has_failed else []))
        gathering.add_done_callback(asyncio.Future.exception)
        await settle()
        watched.end(cell)
        del gathering
        gc.collect()
        await settle()
        watched.failures.stop()
        return [where for where, _name in watched.reported]

    assert track(main) == [cell, cell]
    assert caplog.records == []


def test_a_reported_failure_is_not_reported_by_asyncio_again(track: Callable[..., Any]) -> None:
    cell = CellRef("a", 1)

    async def main(_tracker: Tracker) -> list[str]:
        told: list[str] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: told.append(context["message"])
        )
        watched = Watched()
        watched.begin(cell)
        task: Any = asyncio.create_task(fail())
        watched.end(cell)
        await settle()
        assert len(watched.reported) == 1
        del task
        gc.collect()
        watched.failures.stop()
        return told

    assert track(main) == []


def anything(_cell: CellRef | None) -> bool:
    return True


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("is_reported", [False, True])
def test_an_unseen_failure_is_taken_once_and_not_reported_again(
    track: Callable[..., Any], is_held: bool, is_reported: bool
) -> None:
    cell = CellRef("a", 1)

    async def main(_tracker: Tracker) -> tuple[list[str], list[str], int]:
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, said: complaints.append(said))
        watched = Watched()
        watched.begin(cell)
        task: Any = asyncio.create_task(fail(), name="failing")
        if not is_held:
            del task
        await settle()
        if is_reported:
            watched.end(cell)
            await settle()
        taken = [failure.name for failure in watched.failures.take_unseen(anything)]
        again = [failure.name for failure in watched.failures.take_unseen(anything)]
        watched.end(cell)
        await settle()
        task = None
        gc.collect()
        await settle()
        watched.failures.stop()
        assert complaints == []
        return taken, again, len(watched.reported)

    assert track(main) == (["failing"], [], 1 if is_reported else 0)


def test_a_failure_that_was_awaited_after_its_report_is_not_taken(track: Callable[..., Any]) -> None:
    cell = CellRef("a", 1)

    async def main(_tracker: Tracker) -> list[EndedTask]:
        watched = Watched()
        watched.begin(cell)
        task = asyncio.create_task(fail(), name="failing")
        await settle()
        watched.end(cell)
        await settle()
        assert watched.reported
        with pytest.raises(ValueError):
            await task
        taken = watched.failures.take_unseen(anything)
        watched.failures.stop()
        return taken

    assert track(main) == []


def test_only_the_failures_of_wanted_cells_are_taken(track: Callable[..., Any]) -> None:
    first, second = CellRef("a", 1), CellRef("b", 2)

    async def main(_tracker: Tracker) -> tuple[list[str], list[str]]:
        watched = Watched()
        tasks = []
        for cell in (first, second):
            watched.begin(cell)
            tasks.append(asyncio.create_task(fail(), name=str(cell)))
            await settle()
        taken = [failure.name for failure in watched.failures.take_unseen(second.__eq__)]
        left = [failure.name for failure in watched.failures.take_unseen(anything)]
        watched.failures.stop()
        assert len(tasks) == 2
        return taken, left

    assert track(main) == ([str(second)], [str(first)])
