"""`asyncio.Runner` inside a running loop, as test runners use it: it ends what is its own, in any order."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


async def leave_a_task() -> asyncio.Task[None]:
    return asyncio.create_task(asyncio.sleep(60))


def handle_first(_loop: Any, _context: Any) -> None: ...


def handle_second(_loop: Any, _context: Any) -> None: ...


def test_what_a_run_leaves_in_a_context_of_its_own_ends_with_the_runner() -> None:
    async def main() -> bool:
        context = contextvars.copy_context()
        with asyncio.Runner() as runner:
            left = runner.run(leave_a_task(), context=context)
            assert not left.done()
        mine = context.run(asyncio.create_task, asyncio.sleep(0.001))
        await mine
        return left.cancelled() and not mine.cancelled()

    assert asyncio.run(main())


def test_a_run_in_the_callers_own_context_is_still_one() -> None:
    async def main() -> bool:
        context = contextvars.copy_context()
        with asyncio.Runner() as runner:
            return context.run(runner.run, asyncio.sleep(0, True), context=context)

    assert asyncio.run(main())


def test_what_was_run_on_a_runners_loop_ends_with_the_runner() -> None:
    async def main() -> bool:
        with asyncio.Runner() as runner:
            left = runner.get_loop().run_until_complete(leave_a_task())
            assert not left.done()
        return left.cancelled()

    assert asyncio.run(main())


def test_what_was_run_on_the_loop_without_asking_the_runner_lives_on() -> None:
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        with asyncio.Runner() as runner:
            runner.run(asyncio.sleep(0))
            mine = loop.run_until_complete(leave_a_task())
        with asyncio.Runner() as closed:
            closed.get_loop()
        also_mine = loop.run_until_complete(leave_a_task())
        alive = not mine.done() and not also_mine.done()
        mine.cancel()
        also_mine.cancel()
        await asyncio.wait([mine, also_mine])
        return alive

    assert asyncio.run(main())


def test_a_future_of_another_loop_is_refused_as_without_nesting() -> None:
    other = asyncio.new_event_loop()
    future = other.create_future()

    async def main() -> None:
        with asyncio.Runner() as runner:
            for loop in (asyncio.get_running_loop(), runner.get_loop()):
                with pytest.raises(ValueError, match="belongs to a different loop"):
                    loop.run_until_complete(future)

    asyncio.run(main())
    other.close()


def in_order(first: asyncio.Runner, second: asyncio.Runner) -> None:
    second.close()
    first.close()


def out_of_order(first: asyncio.Runner, second: asyncio.Runner) -> None:
    first.close()
    assert asyncio.get_running_loop().get_exception_handler() is handle_second
    second.close()


def check_handlers(close: Callable[[asyncio.Runner, asyncio.Runner], None]) -> None:
    def before(_loop: Any, _context: Any) -> None: ...

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(before)
        first, second = asyncio.Runner(), asyncio.Runner()
        first.get_loop().set_exception_handler(handle_first)
        second.get_loop().set_exception_handler(handle_second)
        close(first, second)
        assert loop.get_exception_handler() is before

    asyncio.run(main())


def test_exception_handlers_end_with_their_runners() -> None:
    check_handlers(in_order)


def test_exception_handlers_end_with_their_runners_out_of_order() -> None:
    check_handlers(out_of_order)


def test_a_later_runner_does_not_bring_back_an_earlier_ones_handler() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        first, second = asyncio.Runner(), asyncio.Runner()
        first.get_loop().set_exception_handler(handle_first)
        second.get_loop()
        first.close()
        assert loop.get_exception_handler() is None
        second.close()
        assert loop.get_exception_handler() is None

    asyncio.run(main())
