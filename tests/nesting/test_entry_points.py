"""asyncio.run, Runner and run_until_complete: what they take, give, raise and leave, nested and not."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
import sys
import threading
import warnings
from asyncio import run as imported_before  # as a cell or a library may have it
from typing import Any, get_type_hints

import anyio
import pytest

from loopnb import nesting
from loopnb.errors import NestingError
from loopnb.nesting.other_loops import set_aside_by

Run = Any


async def value() -> int:
    await asyncio.sleep(0)
    return 7


def test_a_name_bound_before_nests_too(run: Run) -> None:
    async def main() -> Any:
        return imported_before(value())

    assert run(main()) == 7
    assert imported_before is asyncio.run


def test_methods_tell_signature_and_help_of_the_stock_ones() -> None:
    names: list[tuple[type, str]] = [
        (asyncio.Runner, "run"),
        (asyncio.Runner, "get_loop"),
        (asyncio.Runner, "close"),
    ]
    names += [(asyncio.BaseEventLoop, "run_until_complete"), (asyncio.BaseEventLoop, "run_forever")]

    def told() -> list[Any]:
        methods = [getattr(kind, name) for kind, name in names]
        return [
            (inspect.signature(method), method.__qualname__, method.__doc__, get_type_hints(method))
            for method in methods
        ]

    nested = told()
    nesting.remove()

    assert nested == told()


def test_the_signature_is_stock() -> None:
    names = list(inspect.signature(asyncio.run).parameters)
    assert names == ["main", "debug"] + (["loop_factory"] if sys.version_info >= (3, 12) else [])
    assert asyncio.run.__doc__ is not None
    assert asyncio.run.__module__ == "asyncio.runners"


def test_errors_are_stock(run: Run) -> None:
    async def fails() -> None:
        raise LookupError("mine")

    async def main() -> None:
        with pytest.raises(LookupError, match="mine"):
            asyncio.run(fails())
        with pytest.raises((ValueError, TypeError)):
            asyncio.run(12)  # type: ignore[arg-type] # that is the point

    run(main())


def test_debug_holds_for_the_run_and_not_longer(run: Run) -> None:
    async def debug() -> bool:
        return asyncio.get_running_loop().get_debug()

    async def main() -> list[bool]:
        return [await debug(), asyncio.run(debug(), debug=True), await debug()]

    assert run(main()) == [False, True, False]


def test_overlapping_runs_leave_the_debug_flag_as_it_was() -> None:
    async def nests(delay: float, debug: bool) -> None:
        await asyncio.sleep(0)
        asyncio.run(asyncio.sleep(delay), debug=debug)

    async def main() -> bool:
        await asyncio.gather(nests(0.01, True), nests(0.03, False), nests(0.02, True))
        return asyncio.get_running_loop().get_debug()

    assert asyncio.run(main()) is False
    assert asyncio.run(main(), debug=True) is True


def test_a_runner_that_runs_the_loop_runs_again_inside_it() -> None:
    nesting.apply()
    try:
        with asyncio.Runner() as runner:

            async def outer() -> str:
                return str(runner.run(asyncio.sleep(0, "inner")))

            assert runner.run(outer()) == "inner"
            assert runner.run(asyncio.sleep(0, "after")) == "after"
    finally:
        nesting.remove()


def test_a_runner_nests_and_ends_only_what_was_spawned_in_it(run: Run) -> None:
    ended: list[str] = []

    async def lives(name: str) -> None:
        try:
            await asyncio.sleep(10)
        finally:
            ended.append(name)

    async def spawns() -> int:
        asyncio.ensure_future(lives("inside"))  # noqa: RUF006  left behind on purpose
        await asyncio.sleep(0)
        return 7

    async def main() -> list[str]:
        outside = asyncio.ensure_future(lives("outside"))
        await asyncio.sleep(0)
        with asyncio.Runner() as runner:
            assert runner.get_loop() is asyncio.get_running_loop()
            assert runner.run(spawns()) == 7
        seen = list(ended)
        outside.cancel()
        await asyncio.wait([outside])
        return seen

    seen = run(main())
    # Under the user's own factory nothing says what was spawned in the runner; it lives on.
    assert "outside" not in seen


def test_a_closed_runner_refuses(run: Run) -> None:
    async def main() -> None:
        runner = asyncio.Runner()
        runner.run(value())
        runner.close()
        runner.close()
        coro = value()
        with pytest.raises(RuntimeError, match="Runner is closed"):
            runner.run(coro)
        coro.close()

    run(main())


def test_anyio_run_nests(run: Run) -> None:
    async def main() -> tuple[int, str]:
        async def with_a_task_group() -> str:
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 0.001)
            return await anyio.to_thread.run_sync(lambda: "thread")

        return anyio.run(value), anyio.run(with_a_task_group)

    assert run(main()) == (7, "thread")


def test_anyio_run_is_stock_outside_and_after() -> None:
    function = anyio.run
    patched = function.__code__
    assert anyio.run(value) == 7
    nesting.remove()
    assert anyio.run is function
    assert function.__code__ is not patched

    async def main() -> None:
        with pytest.raises(RuntimeError, match="Already running"):
            anyio.run(value)

    asyncio.run(main())


def test_threads_subprocesses_and_async_generators_work_inside(run: Run) -> None:
    async def inner() -> tuple[int, int]:
        from_thread = await asyncio.to_thread(lambda: 7)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "raise SystemExit(3)")
        return from_thread, await process.wait()

    async def main() -> tuple[int, int]:
        return asyncio.run(inner())

    assert run(main()) == (7, 3)


def test_a_dropped_async_generator_is_finalized(run: Run) -> None:
    async def main() -> list[str]:
        seen: list[str] = []

        async def numbers() -> Any:
            try:
                yield 1
            finally:
                await asyncio.sleep(0)
                seen.append("finalized")

        async def takes_one() -> None:
            async for _ in numbers():
                break

        asyncio.run(takes_one())
        asyncio.run(asyncio.sleep(0.005))
        return seen

    assert run(main()) == ["finalized"]


# -- other loops ---------------------------------------------------------------------------------


def in_a_task(call: Any) -> Any:
    async def main() -> Any:
        return call()

    return asyncio.run(main())


def in_a_callback(call: Any) -> Any:
    async def main() -> Any:
        outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: outcome.set_result(call()))
        return await outcome

    return asyncio.run(main())


def run_own_loop(coro: Any) -> Any:
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coro)
    finally:
        loop.close()


def run_with_factory(coro: Any) -> Any:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(coro)


callers = pytest.mark.parametrize("caller", [in_a_task, in_a_callback])
runners = pytest.mark.parametrize("run_other", [run_own_loop, run_with_factory])


@callers
@runners
def test_another_loop_runs_as_it_would_and_then_the_first_goes_on(caller: Any, run_other: Any) -> None:
    async def on_other(outer: asyncio.AbstractEventLoop) -> tuple[bool, Any, bool]:
        this = asyncio.current_task()
        await asyncio.sleep(0.001)
        nested = asyncio.run(value())
        place = set_aside_by(outer)
        assert place is not None
        return asyncio.get_running_loop() is outer, nested, place[0] == __file__ and this is not None

    def call() -> Any:
        outer = asyncio.get_running_loop()
        task = asyncio.current_task()
        result = run_other(on_other(outer))
        assert asyncio.get_running_loop() is outer
        assert asyncio.current_task() is task
        assert set_aside_by(outer) is None
        return (*result, asyncio.run(value()))

    assert caller(call) == (False, 7, True, 7)


@callers
@runners
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, LookupError])
def test_an_exception_of_the_other_loop_brings_the_first_back(caller: Any, run_other: Any, kind: Any) -> None:
    async def fails() -> None:
        await asyncio.sleep(0.001)
        raise kind

    def call() -> Any:
        outer = asyncio.get_running_loop()
        with pytest.raises(kind):
            run_other(fails())
        assert asyncio.get_running_loop() is outer
        assert set_aside_by(outer) is None
        return asyncio.run(value())

    assert caller(call) == 7


if sys.version_info >= (3, 12):  # before, asyncio.run has no loop_factory

    def test_asyncio_run_with_a_factory_runs_on_its_loop(run: Run) -> None:
        made: list[asyncio.AbstractEventLoop] = []

        def factory() -> asyncio.AbstractEventLoop:
            made.append(asyncio.new_event_loop())
            return made[-1]

        async def where() -> asyncio.AbstractEventLoop:
            return asyncio.get_running_loop()

        async def main() -> bool:
            used = asyncio.run(where(), loop_factory=factory)
            return [used] == made and used.is_closed()

        assert run(main())


def test_a_loop_that_runs_already_below_gives_the_stock_error() -> None:
    async def main() -> None:
        outer = asyncio.get_running_loop()

        async def inner() -> None:
            coro = value()
            with pytest.raises(RuntimeError, match="already running"):
                outer.run_until_complete(coro)
            coro.close()

        run_own_loop(inner())

    asyncio.run(main())


def test_outside_a_running_loop_loops_are_closed_in_every_thread() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert asyncio.run(value()) == 7
        results: list[int] = []
        thread = threading.Thread(target=lambda: results.append(asyncio.run(value())))
        thread.start()
        thread.join()
    assert results == [7]


def test_a_loop_that_cannot_be_turned_is_refused_with_the_reason() -> None:
    class Odd(asyncio.SelectorEventLoop):
        def _run_once(self) -> None:
            super()._run_once()  # type: ignore[misc] # private

    loop = Odd()

    async def main() -> str:
        coro = value()
        with pytest.raises(NestingError) as caught:
            asyncio.run(coro)
        coro.close()
        return caught.value.reason

    assert "_run_once" in loop.run_until_complete(main())
    loop.close()


def test_where_nobody_wants_it_the_error_is_stock() -> None:
    nesting.remove()

    async def main() -> None:
        coro = value()
        with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
            asyncio.run(coro)
        coro.close()

    asyncio.run(main())


def test_a_task_that_nests_on_itself_is_told_so() -> None:
    async def main() -> None:
        current = asyncio.current_task()
        assert current is not None
        asyncio.get_running_loop().run_until_complete(current)

    with pytest.raises(RuntimeError, match="cannot await on itself"):
        asyncio.run(main())


METHODS: list[Any] = [asyncio.Runner.run, asyncio.SelectorEventLoop.close, asyncio.BaseEventLoop.run_forever]


@pytest.mark.parametrize(("method", "code"), [(method, method.__code__) for method in METHODS])
def test_the_patched_methods_can_be_pickled(method: Any, code: Any) -> None:
    name = method.__qualname__
    patched = functools.reduce(
        getattr, name.split(".")[1:], getattr(sys.modules[method.__module__], name.split(".")[0])
    )

    assert patched.__code__ is not code
    assert pickle.loads(pickle.dumps(patched)) is patched


class Odd(asyncio.Task[Any]):
    """A task whose class is wrong."""

    def get_coro(self) -> Any:
        raise ZeroDivisionError


def test_another_task_does_not_hide_why_a_run_has_failed(run: Run) -> None:
    def fails(_loop: Any, coro: Any, **_options: Any) -> Any:
        coro.close()
        raise ValueError("from the factory")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        factory, odd = loop.get_task_factory(), Odd(value())
        loop.set_task_factory(fails)
        try:
            asyncio.run(value())
        finally:
            loop.set_task_factory(factory)
            await odd

    with pytest.raises(ValueError, match="from the factory"):
        run(main())
