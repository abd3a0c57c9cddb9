"""What the doctor gathers: each fact is what it says, nothing is raised, and no code of the user's runs."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.tracking.failures import Failures
from loopnb.watch.doctor import count_steps

if TYPE_CHECKING:
    from tests.watch.wards import Ward


async def poll(*_ignored: object) -> None:
    """Spin."""
    while True:  # noqa: ASYNC110  this is what the doctor finds
        await asyncio.sleep(0)


async def forever(event: asyncio.Event) -> None:
    """Wait."""
    await event.wait()


async def hand_over(first: asyncio.Queue[int], second: asyncio.Queue[int]) -> None:
    """Take an item and pass it on, in every pass of the loop."""
    while True:
        await second.put(await first.get())


def test_a_task_that_spins_is_counted(ward: Ward) -> None:
    ward.start(poll(), "poll")
    spins = ward.loop.run_until_complete(count_steps(ward.loop, ward.tracker))

    assert [spin.task.name for spin in spins] == ["poll"]
    assert spins[0].steps == spins[0].passes


def test_tasks_that_wait_are_no_spins(ward: Ward) -> None:
    ward.start(forever(asyncio.Event()), "waits")
    ward.start(asyncio.sleep(60), "sleeps")

    assert ward.loop.run_until_complete(count_steps(ward.loop, ward.tracker)) == ()


def test_tasks_that_hand_work_to_each_other_are_no_spins(ward: Ward) -> None:
    here: asyncio.Queue[int] = asyncio.Queue()
    there: asyncio.Queue[int] = asyncio.Queue()
    here.put_nowait(1)
    ward.start(hand_over(here, there), "to")
    ward.start(hand_over(there, here), "fro")

    assert ward.loop.run_until_complete(count_steps(ward.loop, ward.tracker)) == ()


def test_a_failure_counts_until_it_was_awaited(ward: Ward) -> None:
    async def fail() -> None:
        raise ValueError("no")

    task = ward.start(fail(), "fails")
    before = ward.facts().failures
    assert isinstance(task.exception(), ValueError)

    assert [record.name for record in before] == ["fails"]
    assert before[0].error == "ValueError: no"
    assert ward.facts().failures == ()


def test_a_task_that_was_dropped_counts_and_a_kept_one_does_not(ward: Ward) -> None:
    async def forgotten() -> None:
        await asyncio.get_running_loop().create_future()

    kept = ward.start(forgotten(), "kept")
    ward.start(forgotten(), "dropped")
    gc.collect()

    assert [record.name for record in ward.facts().dropped] == ["dropped"]
    assert not kept.done()


def test_long_waits_tell_whether_a_timer_ends_them(ward: Ward) -> None:
    event = asyncio.Event()
    ward.start(forever(event), "waits")
    ward.start(asyncio.sleep(600), "sleeps")
    ward.facts()  # sees them waiting
    waits = ward.facts(long_wait_s=0.0).waits

    assert {wait.task.name: wait.has_timer for wait in waits} == {"waits": False, "sleeps": True}
    assert ward.facts().waits == ()


def test_pools_are_found_by_name_and_as_the_default(ward: Ward) -> None:
    done = threading.Event()
    with ThreadPoolExecutor(max_workers=1) as pool:
        ward.variables["pool"] = pool
        default = ward.loop.run_in_executor(None, done.wait)
        for _ in range(3):
            pool.submit(done.wait)
        pools = {found.name: found for found in ward.facts().pools}
        done.set()
        ward.loop.run_until_complete(default)

    assert (pools["pool"].busy, pools["pool"].most, pools["pool"].queued) == (1, 1, 2)
    assert pools["the loop's default executor"].is_default
    assert pools["the loop's default executor"].queued == 0


def test_objects_of_a_closed_loop_are_found_in_names_items_and_attributes(ward: Ward) -> None:
    other = asyncio.new_event_loop()
    future, done = other.create_future(), other.create_future()
    done.set_result(1)
    mine = ward.loop.create_future()
    ward.variables.update(
        future=future,
        listed=[1, other.create_future()],
        known={"a": other.create_future()},
        client=SimpleNamespace(answer=other.create_future()),
        _hidden=other.create_future(),
        other=other,
        done=done,
        mine=mine,
    )
    standing = ward.facts().strays
    other.close()
    closed = ward.facts().strays

    assert [stray.name for stray in closed] == ["future", "listed[1]", "known['a']", "client.answer"]
    assert [stray.kind for stray in closed] == ["Future"] * 4
    assert {(stray.is_closed, stray.closed_at) for stray in closed} == {(True, "In[2], line 1")}
    assert {(stray.is_closed, stray.closed_at) for stray in standing} == {(False, "")}


def test_looking_at_variables_runs_no_code_of_theirs(ward: Ward) -> None:
    class Touchy:
        @property
        def _loop(self) -> None:
            pytest.fail("a property was read")

        def __getattr__(self, name: str) -> Any:
            pytest.fail(f"{name} was asked for")

        def __eq__(self, other: object) -> bool:
            pytest.fail("it was compared")

        __hash__ = None  # type: ignore[assignment]  # an object that cannot be hashed

    ward.variables.update(touchy=Touchy(), several=[Touchy()], keyed={"a": Touchy()})

    assert ward.facts().strays == ()
    assert ward.facts().names == 3


def test_debug_mode_is_foreign(ward: Ward) -> None:
    before = ward.facts().foreign
    ward.loop.set_debug(True)
    (change,) = ward.facts().foreign
    ward.loop.set_debug(False)

    assert before == ()
    assert "debug mode" in change.what


def test_a_task_factory_of_the_users_is_foreign(ward: Ward) -> None:
    ward.loop.set_task_factory(lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options))
    (change,) = ward.facts().foreign
    ward.loop.set_task_factory(None)

    assert change.what.startswith("the loop's task factory is")
    assert ward.facts().foreign == ()


def test_a_fact_that_cannot_be_gathered_is_named_and_the_others_are_there(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ward.start(forever(asyncio.Event()), "waits")
    monkeypatch.setattr(Failures, "unseen", lambda _self: 1 / 0)
    with caplog.at_level(logging.CRITICAL, "loopnb"):
        facts = ward.facts()

    assert any("the failed tasks" in unknown for unknown in facts.unknown)
    assert [record.name for record in facts.tasks] == ["waits"]


def test_what_was_not_looked_at_is_named(ward: Ward) -> None:
    unknown = ward.doctor.facts(None).unknown

    assert unknown == ("whether a task spins", "what blocks the loop, as LoopNB.blocked_after is 0")


def test_the_doctor_keeps_nothing_alive(ward: Ward) -> None:
    ward.variables["pool"] = [ward.loop.create_future()]
    task = ward.start(forever(asyncio.Event()), "waits")
    ward.facts(long_wait_s=0.0)
    before = gc.get_referrers(task)
    ward.facts(long_wait_s=0.0)

    assert len(gc.get_referrers(task)) <= len(before)
