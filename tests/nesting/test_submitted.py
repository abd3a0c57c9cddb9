"""Results of `asyncio.run_coroutine_threadsafe`, asked for in the thread of the loop itself."""

from __future__ import annotations

import asyncio
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from loopnb import nesting
from loopnb.errors import NestingError
from loopnb.nesting import patches

if TYPE_CHECKING:
    import concurrent.futures

Run = Any


async def seven() -> int:
    await asyncio.sleep(0.001)
    return 7


async def fails() -> None:
    await asyncio.sleep(0)
    raise LookupError("mine")


def submit(coro: Any) -> concurrent.futures.Future[Any]:
    return asyncio.run_coroutine_threadsafe(coro, asyncio.get_running_loop())


@pytest.mark.timeout(20)
def test_the_result_is_waited_for_while_the_loop_goes_on(run: Run) -> None:
    async def child() -> Any:
        return submit(seven()).result()

    async def main() -> Any:
        return submit(seven()).result(5), await asyncio.gather(child(), child())

    assert run(main()) == (7, [7, 7])


@pytest.mark.timeout(20)
def test_the_error_is_that_of_the_coroutine(run: Run) -> None:
    async def main() -> str:
        assert isinstance(submit(fails()).exception(), LookupError)
        try:
            submit(fails()).result()
        except LookupError:
            return traceback.format_exc()
        return ""

    text = run(main())
    assert "LookupError: mine" in text
    assert "loopnb" not in text.replace(__file__, "")


@pytest.mark.timeout(20)
def test_the_timeout_ends_the_wait_and_not_the_coroutine(run: Run) -> None:
    async def main() -> Any:
        may_end = asyncio.Event()
        future = submit(may_end.wait())
        for ask in (future.result, future.exception):
            with pytest.raises(TimeoutError):
                ask(0.001)
        may_end.set()
        return future.result()

    assert run(main()) is True


@pytest.mark.timeout(20)
def test_a_cancelled_wait_cancels_the_coroutine(run: Run) -> None:
    futures: list[concurrent.futures.Future[Any]] = []

    async def waits() -> None:
        await asyncio.sleep(0)  # the first step of an eager task would park its creator, too
        asyncio.get_running_loop().call_soon(begun.set)
        futures.append(submit(asyncio.Event().wait()))
        futures[0].result()

    async def main() -> None:
        task = asyncio.create_task(waits())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    begun = asyncio.Event()
    run(main())
    assert futures[0].cancelled()


@pytest.mark.timeout(20)
def test_other_threads_wait_as_ever(run: Run) -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        return await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(seven(), loop).result(5))

    assert run(main()) == 7


@pytest.mark.timeout(20)
def test_what_another_thread_has_submitted_can_be_waited_for_here(run: Run) -> None:
    async def main() -> Any:
        loop, futures = asyncio.get_running_loop(), []
        thread = threading.Thread(
            target=lambda: futures.append(asyncio.run_coroutine_threadsafe(seven(), loop))
        )
        thread.start()
        thread.join()
        return futures[0].result()

    assert run(main()) == 7


def test_what_is_no_coroutine_is_refused_as_ever() -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="coroutine object is required"):
            submit(7)

    asyncio.run(main())


@pytest.mark.timeout(20)
def test_without_nesting_a_wait_is_refused_and_the_coroutine_goes_on() -> None:
    async def main() -> Any:
        future = submit(seven())
        for ask in (future.result, future.exception):
            with pytest.raises(NestingError, match="wrap_future"):
                ask(5)
        return await asyncio.wrap_future(future)

    nesting.remove()
    patches.guard_submitted("test")
    try:
        assert asyncio.run(main()) == 7
    finally:
        patches.unguard_submitted("test")


def test_the_function_stays_patched_until_both_nesting_and_guard_have_gone() -> None:
    submits, patched = asyncio.run_coroutine_threadsafe, asyncio.run_coroutine_threadsafe.__code__
    patches.guard_submitted("test")
    nesting.remove()
    assert submits.__code__ is patched
    nesting.apply()
    patches.unguard_submitted("test")
    assert submits.__code__ is patched

    nesting.remove()

    assert submits.__code__ is not patched
