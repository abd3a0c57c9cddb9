"""Where tasks come from: the user's line, whoever made the task."""

from __future__ import annotations

import asyncio
import gc
import sys
import traceback
import tracemalloc
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.nesting._cpython import silence_destroyed_warning
from tests.tracking.coroutines import nothing

if TYPE_CHECKING:
    from collections.abc import Callable

    from loopnb.tracking.tracker import Tracker

HERE = Path(__file__).name


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
        return {tracker.record_ended(ended).spawn_site.partition(":")[0] for ended in tracker.ended()}

    assert track(main) == {HERE}


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
            records = [tracker.record_ended(ended) for ended in tracker.ended()[-8:]]
            lines.append([int(record.spawn_site.rpartition(":")[2]) - began for record in records])
        return lines

    assert track(main) == [[3, 3, 3, 4, 5, 6, 6, 7]] * 3


def line_here() -> int:
    return sys._getframe(1).f_lineno


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
        return [task.name for task in ended], name, [tracker.record_ended(task).label for task in ended]

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

    assert track(main) == [(HERE, True)] * len(factories)


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


def test_a_factory_that_fails_fails_at_the_users_line(track: Callable[..., Any]) -> None:
    def fails(_loop: Any, coro: Any, **_options: Any) -> Any:
        coro.close()
        raise LookupError("expected")

    async def main(_tracker: Tracker) -> list[str]:
        loop = asyncio.get_running_loop()
        no_function: Any = "no function"
        with pytest.raises(TypeError):
            loop.set_task_factory(no_function)
        loop.set_task_factory(fails)
        try:
            with pytest.raises(LookupError, match="expected") as caught:
                asyncio.create_task(nothing())  # noqa: RUF006  there is none
        finally:
            loop.set_task_factory(None)
        return [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]

    files = track(main)

    assert files[0] == files[-1] == __file__
    assert not [file for file in files if "/loopnb/" in file and "/tests/" not in file]


def test_a_tracked_task_takes_at_most_600_bytes_more(track: Callable[..., Any]) -> None:
    async def waits() -> None:
        await asyncio.Event().wait()

    async def main(_tracker: Tracker) -> float:
        loop = asyncio.get_running_loop()

        def bytes_of(make: Callable[[Any], asyncio.Task[None]], count: int = 2_000) -> float:
            gc.collect()
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            tasks = [make(waits()) for _ in range(count)]
            each = (tracemalloc.get_traced_memory()[0] - before) / count
            tracemalloc.stop()
            for task in tasks:
                task.cancel()
            return each

        return bytes_of(loop.create_task) - bytes_of(lambda coro: asyncio.Task(coro, loop=loop))

    assert 0 < track(main) <= 600
