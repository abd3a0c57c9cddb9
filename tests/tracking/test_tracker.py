"""Where tasks come from, what they wait for, and how they ended."""

from __future__ import annotations

import asyncio
import gc
import sys
import traceback
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.errors import TaskNotFoundError
from loopnb.nesting._cpython import silence_destroyed_warning
from loopnb.records import CellRef
from loopnb.texts import error_text
from loopnb.tracking import _cpython, cells, chains, failures, tracker
from loopnb.tracking.cells import CellRuns
from loopnb.tracking.failures import Failures
from loopnb.tracking.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loopnb.tracking.history import EndedTask


@pytest.fixture(params=["asyncio's set", "every object"])
def _known(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Find held tasks in both ways: asyncio's weak set is there up to Python 3.13 only."""
    if request.param == "every object":
        monkeypatch.setattr(_cpython, "FINISHED_ARE_SCANNED_FOR", True)
        for module in (tracker, failures):
            monkeypatch.setattr(module, "held_finished_tasks", finished_among_all_objects)


def finished_among_all_objects(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    tasks = [one for one in gc.get_objects() if issubclass(type(one), asyncio.Task)]
    return [task for task in tasks if task.done() and task.get_loop() is loop]


@pytest.fixture
def track(_known: None) -> Iterator[Callable[..., Any]]:
    """Run an async function on a tracked loop; it gets the tracker."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        tracker = Tracker(
            loop,
            describe=lambda file, line, cell=None: f"{file.rpartition('/')[2]}:{line}",
            is_kernels=lambda _code: False,
        )
        tracker.install()
        yield lambda main: runner.run(main(tracker))
        tracker.remove()
        assert loop.get_task_factory() is None


async def nothing() -> None:
    pass


async def fail(text: str = "expected") -> None:
    raise ValueError(text)


def test_a_finished_task_that_nobody_holds_is_in_the_history(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> list[tuple[str, str, str]]:
        await asyncio.create_task(nothing(), name="short")
        return [(one.name, one.state, tracker.record_ended(one).coro) for one in tracker.ended()]

    assert track(main) == [("short", "returned", "nothing")]


def test_a_finished_task_that_somebody_holds_is_found_too(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> list[tuple[str, str]]:
        held = asyncio.create_task(nothing(), name="held")
        await held
        return [(one.name, one.state) for one in tracker.ended()]

    assert track(main) == [("held", "returned")]


def test_cancelled_and_failed_tasks_are_told_apart(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> dict[str, tuple[str, str]]:
        sleeper = asyncio.create_task(asyncio.sleep(60), name="sleeper")
        await asyncio.sleep(0)
        sleeper.cancel()
        await asyncio.gather(sleeper, asyncio.create_task(fail(), name="failing"), return_exceptions=True)
        del sleeper
        gc.collect()
        records = [tracker.record_ended(one) for one in tracker.ended()]
        return {record.name: (record.state, record.error) for record in records}

    assert track(main) == {"sleeper": ("cancelled", ""), "failing": ("raised", "ValueError: expected")}


def test_the_history_is_bounded_and_keeps_failures_longest(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> list[str]:
        tracker.history.resize(finished=3, failed=2)
        await asyncio.gather(fail(), return_exceptions=True)
        for _ in range(10):
            await asyncio.create_task(nothing())
        await asyncio.sleep(0)  # the last one's wake-up has held on to it
        return [one.state for one in tracker.ended()]

    assert track(main) == ["raised", "returned", "returned", "returned"]


@pytest.mark.parametrize("spawn", ["create_task", "loop", "gather", "group", "wait_for"])
def test_the_spawn_site_is_the_users_line(track: Callable[..., Any], spawn: str) -> None:
    async def main(tracker: Tracker) -> set[str]:
        if spawn == "create_task":
            await asyncio.create_task(nothing())
        elif spawn == "loop":
            await asyncio.get_running_loop().create_task(nothing())
        elif spawn == "gather":
            await asyncio.gather(nothing())
        elif spawn == "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(nothing())
        else:
            await asyncio.wait_for(asyncio.ensure_future(nothing()), 5)
        return {tracker.record_ended(one).spawn_site.partition(":")[0] for one in tracker.ended()}

    assert track(main) == {"test_tracker.py"}


def test_sites_are_told_apart_however_they_take_turns(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> list[list[int]]:
        loop = asyncio.get_running_loop()
        began = line_here()
        lines = []
        for _ in range(3):
            tasks = [asyncio.create_task(nothing()) for _ in range(3)]
            tasks.append(loop.create_task(nothing()))
            tasks.append(asyncio.create_task(nothing()))
            await asyncio.gather(nothing(), nothing())
            await asyncio.gather(nothing(), *tasks)
            records = [tracker.record_ended(one) for one in tracker.ended()[-8:]]
            lines.append([int(record.spawn_site.rpartition(":")[2]) - began for record in records])
        return lines

    assert track(main) == [[3, 3, 3, 4, 5, 6, 6, 7]] * 3


def line_here() -> int:
    return sys._getframe(1).f_lineno


def test_a_task_knows_its_cell_and_its_parent(track: Callable[..., Any]) -> None:
    cell = CellRef("a", 3)

    async def main(tracker: Tracker) -> tuple[CellRef | None, bool]:
        cells.current_cell.set(cell)
        task = asyncio.create_task(asyncio.sleep(60))
        record = tracker.record(task)
        current = asyncio.current_task()
        assert current is not None
        task.cancel()
        return record.cell, record.parent == tracker.number_of(current)

    assert track(main) == (cell, True)


def test_a_task_that_dies_pending_is_reported_by_asyncio_as_ever(track: Callable[..., Any]) -> None:
    async def main(_tracker: Tracker) -> list[str]:
        loop = asyncio.get_running_loop()
        told: list[str] = []
        loop.set_exception_handler(lambda _loop, context: told.append(context["message"]))

        async def lost() -> None:
            await loop.create_future()

        asyncio.create_task(lost())  # noqa: RUF006  nobody holds it: that is what is tested
        await asyncio.sleep(0)
        gc.collect()
        return told

    assert track(main) == ["Task was destroyed but it is pending!"]


@pytest.mark.parametrize("how", ["gather", "group", "wait", "task"])
def test_where_follows_the_tasks_that_are_awaited(track: Callable[..., Any], how: str) -> None:
    async def leaf() -> None:
        await asyncio.sleep(60)

    async def waiting() -> None:
        task = asyncio.create_task(leaf(), name="leaf")
        if how == "gather":
            await asyncio.gather(task)
        elif how == "wait":
            await asyncio.wait([task])
        elif how == "task":
            await task
        else:
            async with asyncio.TaskGroup() as group:
                group.create_task(leaf(), name="leaf")
                task.cancel()

    async def main(tracker: Tracker) -> str:
        task = asyncio.create_task(waiting(), name="top")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        text = "\n".join(chains.where_lines(tracker, task))
        for one in tracker.live():
            if one is not asyncio.current_task():
                one.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return text

    shown = track(main)
    assert "'leaf'" in shown
    assert "leaf()  test_tracker.py:" in shown
    assert shown.endswith("waits for sleep()")


def test_an_unknown_task_is_an_error_that_lists_the_others(track: Callable[..., Any]) -> None:
    async def main(tracker: Tracker) -> None:
        with pytest.raises(TaskNotFoundError):
            tracker.find("nobody")

    track(main)


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
        self.reported += [(cell, one.name) for one in failures]

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
        await asyncio.sleep(0.01)
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


def test_all_runs_of_a_cell_are_meant_by_the_number_of_one() -> None:
    from contextvars import Context

    runs = CellRuns()
    first, other, again = CellRef("a", 1), CellRef("b", 2), CellRef("a", 3)
    for cell in (first, other, again):
        runs.begin(cell, Context())

    assert [runs.every_run_of(1)(cell) for cell in (first, other, again, None)] == [True, False, True, False]
    assert [runs.is_outdated(cell) for cell in (first, other, again)] == [True, False, False]


def test_an_error_is_one_line_even_if_its_text_fails() -> None:
    class BadError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert error_text(BadError()) == "BadError: (its text cannot be made)"
    assert error_text(ValueError("two\nlines")) == "ValueError: two lines"
    assert error_text(ValueError()) == "ValueError"


@pytest.mark.parametrize(("coro", "options"), [(5, {}), (nothing, {"nme": "a typo"})])
def test_a_spawn_that_is_refused_shows_no_frame_of_ours_and_leaves_nothing(
    track: Callable[..., Any], coro: Any, options: dict[str, Any]
) -> None:
    async def main(_tracker: Tracker) -> list[str]:
        made = coro() if callable(coro) else coro
        try:
            asyncio.get_running_loop().create_task(made, **options)
        except TypeError as error:
            return [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        finally:
            if made is not coro:
                made.close()
        return ["not refused"]

    assert track(main) == [__file__]


def test_a_name_is_kept_if_anybody_has_given_or_asked_for_it(track: Callable[..., Any]) -> None:
    """The default name is made when it is first asked for, on Python 3.12 and later."""

    async def main(tracker: Tracker) -> tuple[list[str], str, list[str]]:
        asked = asyncio.create_task(nothing())
        name = asked.get_name()
        renamed = asyncio.create_task(nothing())
        renamed.set_name("renamed")
        given = asyncio.create_task(nothing(), name="given")
        async with asyncio.TaskGroup() as group:
            group.create_task(nothing())
        await asyncio.gather(asked, renamed, given)
        del asked, renamed, given
        ended = tracker.ended()
        return [one.name for one in ended], name, [tracker.record_ended(one).label for one in ended]

    names, default, labels = track(main)

    assert default.startswith("Task-")
    assert names[-4:] == [default, "renamed", "given", ""]
    assert labels[-2:][0].endswith("'given'")
    assert "'" not in labels[-1]


def test_tasks_of_the_users_factory_are_told_of_while_they_live(track: Callable[..., Any]) -> None:
    factories: list[Any] = [lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options)]
    if sys.version_info >= (3, 12):
        factories.append(asyncio.eager_task_factory)

    async def main(tracker: Tracker) -> list[tuple[str, bool]]:
        loop, found = asyncio.get_running_loop(), []
        own = loop.get_task_factory()
        for factory in factories:
            loop.set_task_factory(factory)
            assert loop.get_task_factory() is factory
            task = asyncio.create_task(asyncio.sleep(60))
            record = tracker.record(task)
            found.append((record.spawn_site.partition(":")[0], record.parent is not None))
            task.cancel()
        assert factory.__qualname__ in tracker.notes()[0]
        loop.set_task_factory(None)
        assert loop.get_task_factory() is own
        return found

    assert track(main) == [("test_tracker.py", True)] * len(factories)


def test_what_a_users_factory_has_made_is_not_kept_alive(track: Callable[..., Any]) -> None:
    async def main(_tracker: Tracker) -> list[object]:
        loop = asyncio.get_running_loop()

        async def waits() -> None:
            await loop.create_future()

        loop.set_task_factory(lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options))
        tasks = [asyncio.create_task(waits()) for _ in range(5)]
        await asyncio.sleep(0)
        for task in tasks:
            silence_destroyed_warning(task)
        refs = [weakref.ref(task) for task in tasks]
        tasks.clear()
        del task
        gc.collect()
        loop.set_task_factory(None)
        return [ref() for ref in refs]

    assert track(main) == [None] * 5


def test_options_go_to_the_users_factory_as_they_are(track: Callable[..., Any]) -> None:
    seen: list[dict[str, Any]] = []

    async def main(_tracker: Tracker) -> None:
        def factory(loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
            seen.append(options)
            return asyncio.Task(coro, loop=loop)

        loop: Any = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        options = {"priority": 3, "name": None} if sys.version_info >= (3, 14) else {}
        await loop.create_task(nothing(), **options)
        assert seen == [options]
        loop.set_task_factory(None)

    track(main)
