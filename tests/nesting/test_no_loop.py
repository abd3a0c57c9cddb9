"""`loopnb.noloop()`: the block sees no loop, its blocking calls nest, and all others see the loop."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

import greenlet
import pytest

import loopnb

if TYPE_CHECKING:
    from collections.abc import Callable

Run = Any


async def value() -> int:
    await asyncio.sleep(0)
    return 7


def sees() -> list[bool]:
    """Return what the calling stack sees: a running loop, a current task."""
    loop = asyncio._get_running_loop()
    try:
        return [loop is not None, asyncio.current_task() is not None]
    except RuntimeError:
        return [loop is not None, False]


BLOCKING: dict[str, Callable[[asyncio.AbstractEventLoop], Any]] = {
    "run": lambda _loop: asyncio.run(value()),
    "runner": lambda _loop: asyncio.Runner().run(value()),
    "until complete": lambda loop: loop.run_until_complete(value()),
}


@pytest.mark.parametrize("call", BLOCKING.values(), ids=list(BLOCKING))
def test_blocking_calls_nest_and_the_view_comes_back(run: Run, call: Callable[[Any], Any]) -> None:
    async def main() -> Any:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        ticks: list[list[bool]] = []
        loop.call_soon(lambda: ticks.append(sees()))
        with loopnb.noloop():
            before, running, current = sees(), loop.is_running(), asyncio.current_task(loop)
            result = call(loop)
            inside = sees(), loop.is_running()
        return (
            [before, running, current, result, inside, ticks],
            sees(),
            loop.is_running(),
            asyncio.current_task() is task,
            await value(),
        )

    inside, after, running, is_same, awaited = run(main())

    assert inside == [[False, False], False, None, 7, ([False, False], False), [[True, False]]]
    assert (after, running, is_same, awaited) == ([True, True], True, True, 7)


def test_the_runner_as_a_context_manager(run: Run) -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        with loopnb.noloop(), asyncio.Runner() as runner:
            return runner.get_loop() is loop, runner.run(value()), runner.run(value())

    assert run(main()) == (True, 7, 7)


def test_what_a_nested_run_calls_sees_the_loop(run: Run) -> None:
    async def looks() -> list[bool]:
        return sees()

    async def main() -> Any:
        with loopnb.noloop():
            return asyncio.run(looks())

    assert run(main()) == [True, True]


def test_two_stacks_keep_their_views_apart(run: Run) -> None:
    async def hidden(first: asyncio.Event, then: asyncio.Event) -> list[list[bool]]:
        await asyncio.sleep(0)  # the first step of an eager task would park its creator, too
        first.set()
        with loopnb.noloop():
            seen = [sees()]
            asyncio.run(then.wait())
            seen.append(sees())
        return [*seen, sees()]

    async def open_(event: asyncio.Event) -> list[bool]:
        await asyncio.sleep(0)
        asyncio.run(value())
        event.set()
        return sees()

    async def main() -> Any:
        event1, event2, event3 = asyncio.Event(), asyncio.Event(), asyncio.Event()
        first = asyncio.ensure_future(hidden(event1, event3))
        second = asyncio.ensure_future(hidden(event2, event1))
        third = asyncio.ensure_future(open_(event3))
        return await asyncio.gather(first, second, third)

    seen = [[False, False], [False, False], [True, True]]
    assert run(main()) == [seen, seen, [True, True]]


def test_a_cancellation_reaches_the_block(run: Run) -> None:
    async def begins() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def waits() -> None:
        await asyncio.sleep(0)  # the first step of an eager task would park its creator, too
        with loopnb.noloop():
            asyncio.run(begins())

    async def main() -> Any:
        task = asyncio.ensure_future(waits())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return sees()

    begun = asyncio.Event()
    assert run(main()) == [True, True]


def test_an_error_leaves_the_block_as_it_is(run: Run) -> None:
    async def fails() -> None:
        raise ValueError(7)

    async def main() -> Any:
        with pytest.raises(ValueError, match="7"), loopnb.noloop():
            asyncio.run(fails())
        return sees()

    assert run(main()) == [True, True]


def test_create_task_fails_as_in_a_script(run: Run) -> None:
    async def main() -> None:
        coro = value()
        with loopnb.noloop(), pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.create_task(coro)  # noqa: RUF006  there is none
        coro.close()

    run(main())


@pytest.mark.parametrize("kind", ["future", "bare"])
def test_an_await_inside_ends_in_an_error_and_harms_nobody_else(kind: str) -> None:
    reported: list[Any] = []

    async def other() -> list[bool]:
        await asyncio.sleep(0)
        return sees()

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: reported.append(context))
        beside = asyncio.create_task(other())

        async def awaits() -> Any:
            with pytest.raises(RuntimeError, match="cannot await inside"), loopnb.noloop():
                await (loop.create_future() if kind == "future" else asyncio.sleep(0))
            task = asyncio.current_task()
            assert task is not None
            return sees(), task.cancelling(), await value()

        return await asyncio.gather(asyncio.create_task(awaits()), beside)

    assert asyncio.run(main()) == [([True, True], 0, 7), [True, True]]
    assert reported == []


def test_a_report_made_inside_the_block_goes_where_reports_go(run: Run) -> None:
    reported: list[Any] = []

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: reported.append(context))
        done = loop.create_future()

        def callback() -> None:
            with loopnb.noloop():
                loop.call_exception_handler({"message": "mine"})
            done.set_result(sees())

        loop.call_soon(callback)
        return await done

    assert run(main()) == [True, False]
    assert reported == [{"message": "mine"}]


def test_another_loop_runs_as_it_does_in_a_script(run: Run) -> None:
    async def main() -> Any:
        with loopnb.noloop():
            loop = asyncio.new_event_loop()
            try:
                result = loop.run_until_complete(value())
            finally:
                loop.close()
            inside = sees()
        return result, inside, sees()

    assert run(main()) == (7, [False, False], [True, True])


if sys.version_info >= (3, 12):  # `asyncio.run` takes a `loop_factory`

    def test_a_loop_factory_makes_a_loop_beside(run: Run) -> None:
        async def where() -> Any:
            return asyncio.get_running_loop()

        async def main() -> Any:
            with loopnb.noloop():
                other = asyncio.run(where(), loop_factory=asyncio.new_event_loop)
            return other is asyncio.get_running_loop(), sees()

        assert run(main()) == (False, [True, True])


def test_blocks_nest_and_other_threads_see_their_own(run: Run) -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        in_thread: list[Any] = []
        with loopnb.noloop(), loopnb.noloop():
            thread = threading.Thread(
                target=lambda: in_thread.append((loop.is_running(), asyncio.run(value())))
            )
            thread.start()
            thread.join()
            result = asyncio.run(value())
        return result, in_thread, sees()

    assert run(main()) == (7, [(True, 7)], [True, True])


def test_outside_a_loop_it_does_nothing() -> None:
    with loopnb.noloop():
        assert asyncio.run(value()) == 7


def test_a_loop_that_a_greenlet_has_left_running_is_seen_in_the_next_block() -> None:
    async def main() -> Any:
        other = asyncio.new_event_loop()
        seen: list[Any] = []

        async def inside() -> None:
            user.switch()

        with loopnb.noloop():
            user = greenlet.getcurrent()
            library = greenlet.greenlet(lambda: other.run_until_complete(inside()))
            library.switch()
            seen.append(asyncio.get_running_loop() is other)
        seen.append(asyncio.run(value()))
        with loopnb.noloop():
            seen.append(asyncio.get_running_loop() is other)
            user = greenlet.getcurrent()
            library.parent = user
            library.switch()
            seen.append(sees())
        other.close()
        return [*seen, sees()]

    assert asyncio.run(main()) == [True, 7, True, [False, False], [True, True]]
