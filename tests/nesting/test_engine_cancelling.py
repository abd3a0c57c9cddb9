"""A cancel request reaches a nested wait at once and is delivered once, whoever made the task."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from loopnb import nesting
from loopnb.nesting.loop_task import LoopTask, cancel_requests
from loopnb.nesting.scope import engine_of
from tests.loops import turns
from tests.nesting.foreground import WaitingUser

if TYPE_CHECKING:
    from collections.abc import Coroutine

Run = Any


def new_task(kind: str, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Make a task: by the factory in force, or as some library would, behind the engine's back."""
    loop = asyncio.get_running_loop()
    if kind == "own":
        return loop.create_task(coro)
    made: asyncio.Task[Any] = CLASSES[kind](coro, loop=loop)
    return made


#: The C task, what is in use where there is none, and a task class of somebody else's.
CLASSES: dict[str, Any] = {
    "foreign": asyncio.Task,
    "subclass": type("TheirTask", (asyncio.Task,), {}),
}
if sys.version_info < (3, 14):  # from there on `current_task()` does not see one, nested or not
    CLASSES["in Python"] = asyncio.tasks._PyTask  # type: ignore[attr-defined]  # private
kinds = pytest.mark.parametrize("kind", ["own", *CLASSES])


@kinds
def test_cancel_reaches_a_nested_wait_at_once(run: Run, kind: str) -> None:
    async def main() -> tuple[bool, int]:
        async def nests() -> None:
            await asyncio.sleep(0)
            asyncio.run(asyncio.Event().wait())  # which nobody sets

        task = new_task(kind, nests())
        await turns()
        assert task.cancel()
        await asyncio.wait([task])
        return task.cancelled(), task.cancelling()

    assert run(main()) == (True, 1)


@kinds
def test_a_cancel_is_delivered_once(run: Run, kind: str) -> None:
    async def main() -> list[str]:
        seen: list[str] = []

        async def nests() -> None:
            await asyncio.sleep(0)
            try:
                asyncio.run(asyncio.sleep(10))
            except asyncio.CancelledError:
                seen.append("cancelled")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append("went on")

        task = new_task(kind, nests())
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return seen

    assert run(main()) == ["cancelled", "went on"]


@kinds
def test_the_message_arrives(run: Run, kind: str) -> None:
    async def main() -> tuple[Any, ...]:
        async def nests() -> tuple[Any, ...]:
            await asyncio.sleep(0)
            try:
                asyncio.run(asyncio.sleep(10))
            except asyncio.CancelledError as error:
                return error.args
            return ("not cancelled",)

        task = new_task(kind, nests())
        await turns()
        task.cancel("because")
        args: tuple[Any, ...] = await task
        return args

    assert run(main()) == ("because",)


@kinds
@pytest.mark.parametrize("order", ["cancel first", "result first"])
def test_cancel_and_result_in_one_pass_meet_as_they_do_for_await(run: Run, kind: str, order: str) -> None:
    async def outcome(nested: bool) -> list[str]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        seen: list[str] = []

        async def waits() -> None:
            await asyncio.sleep(0)
            try:
                if nested:
                    loop.run_until_complete(future)
                else:
                    await future
                seen.append("result")
            except asyncio.CancelledError:
                seen.append("cancelled")
            try:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                seen.append("cancelled later")

        task = new_task(kind, waits())
        await turns()

        def set_result() -> None:
            if not future.done():
                future.set_result(None)

        if order == "cancel first":
            loop.call_soon(task.cancel)
            loop.call_soon(set_result)
        else:
            loop.call_soon(set_result)
            loop.call_soon(task.cancel)
        await asyncio.wait([task])
        # A foreign task's request is found after the pass, when the future may have its result.
        return [*seen, str(task.cancelling()), str(not isinstance(task, LoopTask) or future.cancelled())]

    async def main() -> tuple[list[str], list[str]]:
        asyncio.run(asyncio.sleep(0))
        return await outcome(nested=True), await outcome(nested=False)

    nested, awaited = run(main())
    assert nested == awaited
    assert nested.count("cancelled") == 1


@kinds
def test_uncancel_balances(run: Run, kind: str) -> None:
    async def main() -> list[int]:
        counts: list[int] = []

        async def nests() -> None:
            await asyncio.sleep(0)
            this = asyncio.current_task()
            assert this is not None
            try:
                asyncio.run(asyncio.sleep(10))
            except asyncio.CancelledError:
                counts.append(this.cancelling())
                counts.append(this.uncancel())
            await asyncio.sleep(0)
            counts.append(this.cancelling())

        task = new_task(kind, nests())
        await turns()
        task.cancel()
        await task
        return counts

    assert run(main()) == [1, 0, 0]


@kinds
def test_two_requests_count_twice_and_end_one_wait(run: Run, kind: str) -> None:
    async def main() -> tuple[str, int, int]:
        async def nests() -> str:
            await asyncio.sleep(0)
            try:
                asyncio.run(asyncio.sleep(10))
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                return "once"
            return "never"

        task = new_task(kind, nests())
        await turns()
        task.cancel()
        task.cancel()
        return await task, task.cancelling(), cancel_requests(task)

    assert run(main()) == ("once", 2, 2)


def test_a_task_that_is_marked_before_it_nests_is_cancelled_at_once(run: Run) -> None:
    async def main() -> list[str]:
        async def nests() -> str:
            await asyncio.sleep(0)
            this = asyncio.current_task()
            assert this is not None
            this.cancel()
            try:
                asyncio.run(asyncio.Event().wait())  # which nobody sets
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                return "at once"
            return "not at all"

        return [await new_task(kind, nests()) for kind in ("own", "foreign")]

    assert list(run(main())) == ["at once", "at once"]


def test_a_plain_future_is_cancelled_like_one_that_is_awaited(run: Run) -> None:
    async def main() -> tuple[bool, bool]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        async def nests() -> None:
            await asyncio.sleep(0)
            loop.run_until_complete(future)

        task = loop.create_task(nests())
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled(), future.cancelled()

    assert run(main()) == (True, True)


def test_a_nested_coroutine_can_refuse(run: Run) -> None:
    async def main() -> str:
        async def stubborn() -> str:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                return "refused"
            return "slept"

        async def nests() -> str:
            await asyncio.sleep(0)
            return asyncio.run(stubborn())

        task = asyncio.get_running_loop().create_task(nests())
        await turns()
        task.cancel()
        return await task

    assert run(main()) == "refused"


@kinds
def test_timeout_around_a_nested_run(run: Run, kind: str) -> None:
    async def main() -> tuple[str, int]:
        async def nests() -> tuple[str, int]:
            await asyncio.sleep(0)
            this = asyncio.current_task()
            assert this is not None
            try:
                async with asyncio.timeout(0.02):  # noqa: ASYNC100  the nested run is the checkpoint
                    asyncio.run(asyncio.sleep(10))
            except TimeoutError:
                await asyncio.sleep(0)
                return "timed out", this.cancelling()
            return "slept", -1

        result: tuple[str, int] = await new_task(kind, nests())
        return result

    assert run(main()) == ("timed out", 0)


def test_wait_for_around_a_nested_run(run: Run) -> None:
    async def main() -> str:
        async def nests() -> None:
            await asyncio.sleep(0)
            asyncio.run(asyncio.sleep(10))

        try:
            await asyncio.wait_for(nests(), 0.02)
        except TimeoutError:
            return "timed out"
        return "slept"

    assert run(main()) == "timed out"


def test_an_abort_of_a_task_group_reaches_nested_runs(run: Run) -> None:
    async def main() -> list[str]:
        ended: list[str] = []

        async def nests() -> None:
            await asyncio.sleep(0)
            try:
                asyncio.run(asyncio.sleep(10))
            except asyncio.CancelledError:
                ended.append("child")
                raise

        async def fails() -> None:
            await turns()
            raise LookupError("abort")

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(nests())
                group.create_task(fails())
        except* LookupError:
            ended.append("group")
        return ended

    assert run(main()) == ["child", "group"]


def test_an_abort_reaches_the_body_of_the_task_group(run: Run) -> None:
    async def main() -> tuple[list[str], int]:
        ended: list[str] = []

        async def fails() -> None:
            await turns()
            raise LookupError("abort")

        this = asyncio.current_task()
        assert this is not None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fails())
                try:
                    asyncio.run(asyncio.sleep(10))
                except asyncio.CancelledError:
                    ended.append("body")
                    raise
        except* LookupError:
            ended.append("group")
        await asyncio.sleep(0)
        return ended, this.cancelling()

    assert run(main()) == (["body", "group"], 0)


def test_a_cancel_scope_of_anyio_reaches_a_nested_run(run: Run) -> None:
    async def main() -> tuple[bool, int]:
        this = asyncio.current_task()
        assert this is not None
        with anyio.move_on_after(0.02) as scope:  # noqa: ASYNC100  as above
            asyncio.run(asyncio.sleep(10))
        await asyncio.sleep(0)
        return scope.cancelled_caught, this.cancelling()

    assert run(main()) == (True, 0)


def test_an_error_of_the_caller_cancels_what_it_waited_for(run: Run) -> None:
    async def main() -> bool:
        inner: list[asyncio.Task[Any]] = []

        async def sleeps() -> None:
            this = asyncio.current_task()
            assert this is not None
            inner.append(this)
            await asyncio.sleep(10)

        async def nests() -> None:
            await asyncio.sleep(0)
            asyncio.run(sleeps())

        task = asyncio.ensure_future(nests())
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return inner[0].cancelled()

    assert run(main())


def test_current_task_is_a_c_task_and_none_while_its_stack_is_parked(run: Run) -> None:
    async def main() -> tuple[bool, list[Any]]:
        loop = asyncio.get_running_loop()
        seen: list[Any] = []

        async def nests() -> None:
            await asyncio.sleep(0)
            before = asyncio.current_task()
            loop.call_soon(lambda: seen.append(asyncio.current_task()))
            asyncio.run(asyncio.sleep(0.005))
            seen.append(asyncio.current_task() is before)

        await asyncio.ensure_future(nests())
        import _asyncio

        return isinstance(asyncio.current_task(), _asyncio.Task), seen

    assert run(main()) == (True, [None, True])


def test_tasks_are_no_slower_ones_than_stock(run: Run) -> None:
    classes = asyncio.Task, asyncio.Future, asyncio.current_task, asyncio.get_running_loop

    async def kind() -> type:
        return type(asyncio.current_task())

    async def main() -> tuple[type, type]:
        return asyncio.run(kind()), await asyncio.ensure_future(kind())

    for found in run(main()):
        assert issubclass(found, asyncio.Task)
        assert found is asyncio.Task or vars(found).keys() >= {"__slots__"}
    assert classes == (asyncio.Task, asyncio.Future, asyncio.current_task, asyncio.get_running_loop)


def test_a_cancel_reaches_tasks_born_before_nesting_was_on() -> None:
    nesting.remove()
    gate, all_wait = asyncio.Event(), asyncio.Event()
    waiting: list[bool] = []

    async def nests() -> str:
        await gate.wait()
        try:
            async with asyncio.timeout(0.01):  # noqa: ASYNC100  the nested run is the checkpoint
                asyncio.run(asyncio.sleep(10))
        except TimeoutError:
            waiting.append(True)
            if len(waiting) == 3:
                all_wait.set()
            asyncio.run(asyncio.sleep(10))
        return "slept"

    async def main() -> list[Any]:
        tasks = [asyncio.ensure_future(nests()) for _ in range(3)]
        await asyncio.sleep(0)
        nesting.apply()
        gate.set()
        await all_wait.wait()
        await turns()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return [(task.cancelled(), task.cancelling()) for task in tasks]

    assert asyncio.run(main()) == [(True, 1)] * 3


def test_names_are_stock(run: Run) -> None:
    async def main() -> tuple[bool, str]:
        asyncio.run(asyncio.sleep(0))
        unnamed = asyncio.get_running_loop().create_task(asyncio.sleep(0))
        named = asyncio.get_running_loop().create_task(asyncio.sleep(0), name="mine")
        await asyncio.gather(unnamed, named)
        return unnamed.get_name().startswith("Task-"), named.get_name()

    starts_right, name = run(main())
    # 3.13.0 calls every task "None" that comes from somebody's factory.
    assert starts_right or sys.version_info[:3] == (3, 13, 0)
    assert name == "mine"


if sys.version_info >= (3, 12):  # tasks can be eager

    def eager_under(stock: bool) -> Any:
        """Return an eager factory: asyncio's, or one whose tasks are ours."""
        return asyncio.eager_task_factory if stock else asyncio.create_eager_task_factory(LoopTask)

    async def nests() -> None:
        asyncio.run(asyncio.sleep(60))  # type: ignore[unused-awaitable,unused-ignore]  # it returns None

    @pytest.mark.parametrize("stock", [True, False])
    @pytest.mark.parametrize("depth", [1, 3])
    def test_a_timeout_reaches_what_an_eager_task_nests_in_its_first_step(depth: int, stock: bool) -> None:
        async def child(depth: int) -> str:
            if depth > 1:
                return await asyncio.create_task(child(depth - 1))
            asyncio.run(asyncio.sleep(60))
            return "too late"

        async def main() -> tuple[int, str]:
            asyncio.get_running_loop().set_task_factory(eager_under(stock))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.create_task(child(depth))
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                assert sys.version_info < (3, 13)  # where `uncancel()` takes no note back
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling(), await asyncio.create_task(asyncio.sleep(0, "goes on"))

        nesting.apply()
        assert asyncio.run(main()) == (0, "goes on")
        nesting.remove()

    @pytest.mark.parametrize("stock", [True, False])
    def test_a_timeout_ends_a_creator_that_does_not_await_it(stock: bool) -> None:
        async def main() -> bool:
            asyncio.get_running_loop().set_task_factory(eager_under(stock))
            try:
                async with asyncio.timeout(0.01):
                    task = asyncio.create_task(nests())
                    await asyncio.sleep(60)
            except TimeoutError:
                return task.cancelled()
            return False

        nesting.apply()
        assert asyncio.run(main())
        nesting.remove()

    @pytest.mark.parametrize("stock", [True, False])
    def test_a_groups_abort_reaches_it(stock: bool) -> None:
        async def creates() -> None:
            await asyncio.create_task(nests())

        async def fails() -> None:
            await turns()  # the other parks
            raise LookupError

        async def main() -> None:
            asyncio.get_running_loop().set_task_factory(eager_under(stock))
            async with asyncio.TaskGroup() as group:
                group.create_task(fails())
                group.create_task(creates())

        nesting.apply()
        with pytest.raises(ExceptionGroup) as caught:
            asyncio.run(main())
        nesting.remove()
        assert [type(error) for error in caught.value.exceptions] == [LookupError]

    @pytest.mark.parametrize("is_cell_eager", [True, False])
    def test_an_interrupt_reaches_it(is_cell_eager: bool) -> None:
        async def cell(cells: list[Any]) -> str:
            if not is_cell_eager:
                await asyncio.sleep(0)
            cells.append(asyncio.current_task())
            try:
                await asyncio.create_task(nests())
            except KeyboardInterrupt:
                return "interrupted"
            return "too late"

        async def main() -> str:
            loop = asyncio.get_running_loop()
            loop.set_task_factory(asyncio.eager_task_factory)
            engine = engine_of(loop)
            assert engine is not None
            cells: list[Any] = []
            engine.set_foreground(WaitingUser(cells))
            loop.call_later(0.01, engine.interrupt)
            return await asyncio.create_task(cell(cells))

        nesting.apply()
        assert asyncio.run(main()) == "interrupted"
        nesting.remove()
