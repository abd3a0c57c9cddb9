"""Which closed loop an error is about, and where that was closed."""

from __future__ import annotations

import asyncio
import itertools
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.loop.closed import ClosedLoops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def loops() -> Iterator[ClosedLoops]:
    """Remember where loops are closed: in In[1], In[2] and so on."""
    numbers = itertools.count(1)
    loops = ClosedLoops(lambda: f"In[{next(numbers)}], line 1")
    loops.start()
    yield loops
    loops.stop()


def closed(make: Callable[[asyncio.AbstractEventLoop], Any]) -> Any:
    """Return what *make* makes of a loop that is then closed."""
    loop = asyncio.new_event_loop()
    made = make(loop)
    if isinstance(made, asyncio.Task):
        made._log_destroy_pending = False  # type: ignore[attr-defined]  # private
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    return made


def run(coro: Any, kind: str = "Task") -> BaseException:
    """Return what *coro* raises in a task of a loop that stays open meanwhile, and is not remembered."""
    loop = asyncio.new_event_loop()
    task = getattr(asyncio.tasks, kind)(coro, loop=loop)
    with pytest.MonkeyPatch.context() as patch:
        if kind == "_PyTask" and sys.version_info >= (3, 14):
            # There, the function written in C knows of no task written in Python. `wait_for` would refuse.
            patch.setattr(asyncio.tasks, "current_task", asyncio.tasks._py_current_task)  # type: ignore[attr-defined]  # private
        loop.run_until_complete(asyncio.wait([task]))
    task._log_traceback = False
    _kept.append(loop)
    error = task.exception()
    assert error is not None
    return error  # type: ignore[no-any-return]  # of a private kind of task


_kept: list[asyncio.AbstractEventLoop] = []


@pytest.fixture(autouse=True)
def _close_kept() -> Iterator[None]:
    yield
    while _kept:
        _kept.pop().close()


MAKE = {
    "future": lambda loop: loop.create_future(),
    "task": lambda loop: loop.create_task(asyncio.sleep(60)),
}


async def awaits(left: Any) -> None:
    await left


async def awaits_attribute(holder: Any) -> None:
    await holder.left


async def awaits_item(several: Any) -> None:
    await several[0]


async def awaits_inside(left: Any) -> None:
    await asyncio.wait_for(left, 60)


async def awaits_unbound(left: list[Any]) -> None:
    await left.pop()


WAYS: dict[str, Callable[[Any], Any]] = {
    "variable": awaits,
    "attribute": lambda left: awaits_attribute(SimpleNamespace(left=left)),
    "item": lambda left: awaits_item([left]),
    "wait_for": awaits_inside,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize("kind", ["Task", "_PyTask"])
def test_the_loop_is_found_by_what_the_awaiting_code_holds(
    loops: ClosedLoops, make: Any, kind: str, way: Any
) -> None:
    other = closed(lambda loop: loop)
    left = closed(make)
    _kept.append(other)

    note = loops.explain(run(way(left), kind))

    assert note is not None
    assert "closed at In[2], line 1. The" in note


def test_awaited_again_it_says_the_same(loops: ClosedLoops) -> None:
    """Then asyncio says something else."""
    left = closed(MAKE["future"])
    first, second = run(awaits(left)), run(awaits(left))

    assert str(first) != str(second)
    assert loops.explain(first) == loops.explain(second) is not None


def test_the_loop_that_has_run_the_code_is_not_taken_for_the_other(loops: ClosedLoops) -> None:
    lock = asyncio.Lock()

    async def waits() -> None:
        await asyncio.wait([asyncio.create_task(lock.acquire()) for _ in range(2)], timeout=0.01)

    asyncio.run(waits())
    with pytest.raises(RuntimeError, match="is bound to a different event loop") as caught:
        asyncio.run(lock.acquire())  # that loop is closed, too, when the error is shown

    note = loops.explain(caught.value)
    assert note is not None
    assert "closed at In[1], line 1. The" in note


def test_of_one_closed_loop_no_variable_need_lead_there(loops: ClosedLoops) -> None:
    held = closed(lambda loop: loop)
    future = held.create_future()

    note = loops.explain(run(awaits_unbound([future])))

    assert note is not None
    assert "closed at In[1], line 1. The" in note


@pytest.mark.parametrize(
    ("count", "places"),
    [
        (2, "In[2], line 1, or In[1], line 1. "),
        (5, "In[5], line 1, or In[4], line 1, or In[3], line 1, or elsewhere. "),
    ],
)
def test_of_several_all_that_are_possible_are_named_the_last_first(
    loops: ClosedLoops, count: int, places: str
) -> None:
    held = [closed(lambda loop: loop) for _ in range(count)]
    future = held[0].create_future()

    note = loops.explain(run(awaits_unbound([future])))

    assert note is not None
    assert f"closed at {places}" in note
    assert len(held) == count


@pytest.mark.parametrize(
    "use", [lambda loop: loop.call_soon(print), lambda loop: loop.run_until_complete(loop.create_future())]
)
def test_a_closed_loop_that_is_used_is_found_by_its_own_frame(loops: ClosedLoops, use: Any) -> None:
    first, second = closed(lambda loop: loop), closed(lambda loop: loop)

    with pytest.raises(RuntimeError) as caught:
        use(first)

    note = loops.explain(caught.value)
    assert note is not None
    assert f"a {type(first).__name__}, which was closed at In[1], line 1. The" in note
    assert second.is_closed()


def test_a_lock_is_found_by_its_own_frame(loops: ClosedLoops) -> None:
    lock = asyncio.Lock()

    async def binds() -> None:
        await lock.acquire()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lock.acquire(), 0.01)

    asyncio.run(binds())
    other = closed(lambda loop: loop)

    note = loops.explain(run(lock.acquire()))

    assert note is not None
    assert "closed at In[1], line 1. The" in note
    assert other.is_closed()


def test_objects_of_open_loops_are_not_explained(loops: ClosedLoops) -> None:
    held = closed(lambda loop: loop)
    other = asyncio.new_event_loop()
    _kept.append(other)

    assert loops.explain(run(awaits(other.create_future()))) is None
    assert held.is_closed()


@pytest.mark.parametrize("error", [RuntimeError("no"), ValueError("Event loop"), KeyError("k"), SystemExit()])
def test_other_errors_are_not_explained(loops: ClosedLoops, error: BaseException) -> None:
    held = closed(lambda loop: loop)

    assert loops.explain(error) is None
    assert held.is_closed()


def test_no_code_of_the_users_objects_is_run(loops: ClosedLoops) -> None:
    class Touchy:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

        @property
        def _loop(self) -> Any:
            raise AssertionError

    async def awaits_beside(left: Any, touchy: Any) -> None:
        await left
        touchy.attribute = left

    note = loops.explain(run(awaits_beside(closed(MAKE["future"]), Touchy())))

    assert note is not None


def test_stopped_it_knows_of_nothing(loops: ClosedLoops) -> None:
    error = run(awaits(closed(MAKE["future"])))

    loops.stop()

    assert loops.explain(error) is None


def test_a_closed_loop_is_not_kept_alive(loops: ClosedLoops) -> None:
    import gc

    closed(lambda _loop: None)
    gc.collect()

    assert not list(loops._closed_at)
