"""What is bound to a closed loop says where that was closed, whoever catches the error."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.loop.closed import ClosedLoops

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def closed_loops() -> Iterator[None]:
    """Remember where loops are closed."""
    loops = ClosedLoops(lambda: "In[3], line 1")
    loops.start()
    yield
    loops.stop()


def closed(make: Any) -> Any:
    """Return what *make* makes of a loop that is then closed."""
    loop = asyncio.new_event_loop()
    made = make(loop)
    if isinstance(made, asyncio.Task):
        made._log_destroy_pending = False  # type: ignore[attr-defined]  # private
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    return made


MAKE = {
    "future": lambda loop: loop.create_future(),
    "task": lambda loop: loop.create_task(asyncio.sleep(60)),
}


async def _awaits(left: asyncio.Future[None]) -> list[str]:
    with pytest.raises(RuntimeError, match="attached to a different loop") as caught:
        await left
    return caught.value.__notes__


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize("kind", ["Task", "_PyTask"])
def test_an_error_has_its_note_before_anybody_can_catch_it(make: Any, kind: str) -> None:
    left = closed(make)
    loop = asyncio.new_event_loop()
    task = getattr(asyncio.tasks, kind)(_awaits(left), loop=loop)

    (note,) = loop.run_until_complete(task)

    assert "closed at In[3], line 1." in note
    loop.close()


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_awaited_again_it_says_the_same(make: Any) -> None:
    left = closed(make)

    async def awaits_twice() -> list[str]:
        return await _awaits(left) + await _awaits(left)

    first, second = asyncio.run(awaits_twice())

    assert first == second


def test_a_future_of_an_open_loop_gets_none() -> None:
    closed(lambda loop: loop)
    other = asyncio.new_event_loop()

    async def awaits() -> bool:
        try:
            await other.create_future()
        except RuntimeError as error:
            return hasattr(error, "__notes__")
        return True

    assert asyncio.run(awaits()) is False
    other.close()


def test_saying_its_repr_elsewhere_touches_nothing() -> None:
    left = closed(MAKE["future"])
    stock = asyncio.BaseEventLoop.call_soon

    async def says() -> None:
        repr(left)
        asyncio.get_running_loop().call_soon(repr, left)
        await asyncio.sleep(0)

    repr(left)
    asyncio.run(says())

    assert asyncio.BaseEventLoop.call_soon is stock
