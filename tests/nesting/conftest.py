"""Nesting on for each test, off and without a trace after it."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import TYPE_CHECKING, Any

import pytest

from loopnb import nesting
from loopnb.nesting import scope

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

FACTORIES: dict[str, Any] = {"default": None}
if sys.version_info >= (3, 12):
    FACTORIES["eager"] = asyncio.eager_task_factory


async def seven() -> int:
    """Return 7, a few passes of the loop later."""
    await asyncio.sleep(0.005)
    return 7


def new_loop(was_applied_before: bool) -> asyncio.AbstractEventLoop:
    """Return a loop, with nesting on for it already or not."""
    loop = asyncio.new_event_loop()
    if was_applied_before:
        nesting.apply(loop)
    return loop


@pytest.fixture(autouse=True)
def _nested() -> Iterator[None]:
    nesting.apply()
    yield
    nesting.remove()
    assert not scope.is_wanted()
    gc.collect()  # what a test has left behind is reported in that test


@pytest.fixture(params=list(FACTORIES))
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine as `asyncio.run` does, under each of asyncio's own task factories."""
    factory = FACTORIES[request.param]

    def run_under_factory(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner() as runner:
            if factory is not None:
                runner.get_loop().set_task_factory(factory)
            return runner.run(main)

    return run_under_factory
