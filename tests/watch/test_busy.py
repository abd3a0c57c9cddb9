"""Who keeps the loop busy: added up from looks, and held against what tasks really burnt."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

import pytest

from loopnb.records import CellRef, Shares
from loopnb.watch.busy import BusyTable, RecentShares, RecentTasks
from loopnb.watch.looking import Look, TaskFacts
from loopnb.watch.sources import Frame
from tests.watch.conftest import PATIENCE_S, until

if TYPE_CHECKING:
    from tests.watch.conftest import Watched

FRAME = Frame("/home/me/app.py", "fetch", 3, 0)


def step(number: int, coro: str, cell: int) -> Look:
    """Return a look at a step of that task."""
    return Look("step", task=TaskFacts(number, f"t{number}", coro, CellRef(None, cell), False, None))


def test_time_is_added_up_by_task_cell_and_coroutine() -> None:
    table = BusyTable()
    for look, seconds in (
        (step(1, "fetch", 3), 0.5),
        (step(2, "fetch", 4), 0.25),
        (step(1, "fetch", 3), 0.5),
        (Look("select"), 0.75),
    ):
        table.add(look, seconds)
    busy = table.busy()

    assert (busy.seconds, busy.looks) == (2.0, 4)
    assert [(row.name, row.share) for row in busy.tasks] == [("task 1 't1'", 0.5), ("task 2 't2'", 0.125)]
    assert [(row.name, row.busy_s) for row in busy.cells] == [("In[3]", 1.0), ("In[4]", 0.25)]
    assert [(row.name, row.share) for row in busy.coroutines] == [("fetch", 0.625)]


def test_a_table_is_bounded() -> None:
    table = BusyTable()
    for number in range(3_000):
        table.add(step(number, "fetch", 3), 1.0)
    busy = table.busy()

    assert len(busy.tasks) <= 1_001
    assert busy.tasks[0].name == "all others"
    assert sum(row.busy_s for row in busy.tasks) == 3_000


def test_the_shares_of_tasks_are_those_of_the_last_minute() -> None:
    tasks = RecentTasks()
    tasks.add(step(9, "fetch", 3), 9.0, 0.0)
    tasks.add(step(1, "fetch", 3), 1.0, 65.0)
    tasks.add(step(2, "fetch", 3), 0.5, 71.0)
    tasks.add(Look("select"), 2.5, 71.0)
    tasks.add(Look("elsewhere"), 5.0, 71.0)

    assert tasks.shares(72.0) == {1: 0.25, 2: 0.125}
    assert RecentTasks().shares(0.0) == {}


def test_shares_are_those_of_the_last_minute() -> None:
    shares = RecentShares()
    shares.add(step(1, "fetch", 3), 9.0, 0.0)
    shares.add(Look("select"), 3.0, 30.0)
    shares.add(Look("kernel"), 1.0, 31.0)
    shares.add(Look("elsewhere"), 5.0, 32.0)

    assert shares.shares(70.0) == Shares(user=0.0, kernel=0.25, select=0.75, seconds=4.0)
    assert shares.shares(200.0) is None


def burn(seconds: float) -> float:
    """Use so many CPU seconds, and return how many it were."""
    began = time.thread_time()
    while (used := time.thread_time() - began) < seconds:
        pass
    return used


def burn_on(watched: Watched, unit_s: float, *, looks: int) -> dict[str, tuple[float, float]]:
    """Have three tasks burn 60, 30 and 10 % of the time, until so many looks were taken.

    Returns:
        For each task, the share that was seen and the share that is true.
    """
    burnt = dict.fromkeys(("six", "three", "one"), 0.0)

    async def worker(name: str, seconds: float) -> None:
        while True:
            burnt[name] += burn(seconds)
            await asyncio.sleep(0)

    async def main() -> None:
        parts = {"six": 0.6, "three": 0.3, "one": 0.1}
        tasks = [asyncio.create_task(worker(name, part * unit_s), name=name) for name, part in parts.items()]
        watched.watch.watch_busy("test")

        def has_seen() -> bool:
            busy = watched.watch.busy()
            return busy is not None and busy.looks >= looks

        await until(has_seen, patience_s=120)
        watched.watch.unwatch_busy("test")
        for task in tasks:
            task.cancel()

    watched.run(main())
    busy = watched.watch.busy()
    assert busy is not None
    seen = {row.name.split("'")[1]: row.busy_s for row in busy.tasks if "'" in row.name}
    mine = {name: seen.get(name, 0.0) for name in burnt}
    return {name: (mine[name] / sum(mine.values()), burnt[name] / sum(burnt.values())) for name in burnt}


@pytest.mark.parametrize("unit_s", [0.1, 0.002])
def test_shares_come_near_the_truth_also_for_short_steps(watched: Watched, unit_s: float) -> None:
    found = burn_on(watched, unit_s, looks=150)

    for seen, true in found.values():
        assert abs(seen - true) < 0.16  # 150 looks at 60 % scatter by 4 points; four times that


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("unit_s", [0.1, 0.002])
def test_shares_come_as_near_as_the_readme_says(watched: Watched, unit_s: float) -> None:
    # 500 looks scatter by 2.2 points. So look until the mean is right: a share that is wrong by itself never
    # comes near enough.
    rounds: list[dict[str, tuple[float, float]]] = []
    while len(rounds) < 10:
        rounds.append(burn_on(watched, unit_s, looks=250))
        off = [
            abs(sum(found[name][0] - found[name][1] for found in rounds)) / len(rounds) for name in rounds[0]
        ]
        if len(rounds) > 1 and max(off) < 0.05:
            return
    pytest.fail(f"After {len(rounds)} rounds the shares are off by {off}.")


def test_short_steps_are_not_taken_for_waiting(watched: Watched) -> None:
    burn_on(watched, 0.002, looks=60)
    shares = watched.watch.pace().shares

    assert shares is not None
    assert shares.select < 0.5
    assert shares.user > shares.select


def test_the_switch_interval_is_what_it_was(watched: Watched) -> None:
    before = sys.getswitchinterval()
    burn_on(watched, 0.01, looks=10)

    assert sys.getswitchinterval() == before


def test_passes_are_counted_while_somebody_watches(watched: Watched) -> None:
    selector = watched.loop._selector  # type: ignore[attr-defined]  # private
    before = dict(vars(selector))

    async def main() -> None:
        assert watched.watch.pace().passes_per_s is None
        watched.watch.watch_busy("a")
        watched.watch.watch_busy("b")
        watched.watch.unwatch_busy("a")
        for _ in range(100):
            await asyncio.sleep(0)
        found = watched.watch.pace().passes_per_s
        assert found is not None
        assert found > 0
        watched.watch.unwatch_busy("b")
        assert watched.watch.pace().passes_per_s is None
        assert dict(vars(selector)) == before

    watched.run(main())


def test_stopping_while_somebody_watches_leaves_no_trace(watched: Watched) -> None:
    selector = watched.loop._selector  # type: ignore[attr-defined]  # what is patched
    before = dict(vars(selector))

    async def main() -> None:
        watched.watch.watch_busy("a")
        assert dict(vars(selector)) != before

    watched.run(main())

    assert dict(vars(selector)) == before
    assert not watched.watch.is_busy_watched


def test_a_block_counts_for_as_long_as_it_lasts(watched: Watched) -> None:
    async def hog() -> None:
        task = asyncio.current_task()
        assert task is not None
        number = watched.tracker.number_of(task)
        give_up_at = time.monotonic() + PATIENCE_S
        while watched.watch.busy_shares().get(number, 0.0) < 0.5:
            assert time.monotonic() < give_up_at
            time.sleep(0.01)  # noqa: ASYNC251  it is to block

    async def main() -> None:
        pace = watched.watch.pace
        await until(lambda: pace().shares is not None)  # some looks find that the loop waits
        await asyncio.create_task(hog())

    watched.run(main())
