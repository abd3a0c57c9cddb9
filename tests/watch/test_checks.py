"""Each check of the doctor finds what it is for, and lets its near misses pass."""

from __future__ import annotations

from typing import Any

import pytest

from loopnb.records import Block, CellRef, Deadlock, Finding, Kept, TaskRecord
from loopnb.watch import texts
from loopnb.watch.checks import (
    CHECKS,
    Facts,
    Foreign,
    LongWait,
    Pool,
    Spin,
    Stray,
    examine,
    looked_at,
)

FIRST, SECOND, THIRD = (CellRef("a", count) for count in (4, 6, 9))


def task(number: int = 5, **changes: Any) -> TaskRecord:
    """Return the record of a task that waits, with some changes."""
    fields: dict[str, Any] = {
        "number": number,
        "name": f"Task-{number}",
        "coro": "fetch",
        "state": "waiting",
        "spawned_at": 0.0,
        "cell": FIRST,
        "spawn_site": "In[4], line 1",
        "waits_at": "fetch In[4], line 2",
        "waits_for": "an HTTP response",
    }
    return TaskRecord(**(fields | changes))


def block(**changes: Any) -> Block:
    """Return a block by a cell that sleeps, which ended just now, with some changes."""
    fields: dict[str, Any] = {
        "number": 1,
        "began_at": 994.0,
        "lasted_s": 6.0,
        "is_over": True,
        "by": "cell",
        "name": "In[4]",
        "cell": FIRST,
        "task": None,
        "how": "sleep",
        "place": "In[4], line 2",
        "call": "time.sleep(6)",
        "kept": Kept(ready=2, tasks=("feed",)),
    }
    return Block(**(fields | changes))


HOG = {
    "by": "task",
    "name": "task 5 'hog'",
    "task": 5,
    "coroutine": "hog",
    "lasted_s": 1.0,
    "began_at": 999.0,
}
DEADLOCK = Deadlock("circle", (5, 6), "deadlock: task 5 waits for task 6; interrupt the cell, or cancel one")


def facts(**changes: Any) -> Facts:
    """Return the facts of a notebook in which nothing is wrong, with some changes."""
    fields: dict[str, Any] = {"wall_s": 1_000.0, "tasks": (task(),), "spins": ()}
    return Facts(**(fields | changes))


def waiting(waited_s: float, **changes: Any) -> Facts:
    """Return facts with a task that has waited for so long."""
    fields: dict[str, Any] = {"text": "Queue.get of jobs", "line": "In[4], line 2", "has_timer": False}
    return facts(waits=(LongWait(task(), waited_s, **(fields | changes)),))


def many(count: int, **changes: Any) -> Facts:
    """Return facts with so many tasks that do the same."""
    return facts(tasks=tuple(task(number, **changes) for number in range(count)))


POSITIVE = {
    "deadlock": facts(deadlocks=(DEADLOCK,)),
    "blocked-by-coroutine": facts(blocks=(block(**HOG),)),
    "unobserved-failure": facts(failures=(task(state="raised", error="ValueError: no"),)),
    "dropped-while-pending": facts(dropped=(task(state="dropped"),)),
    "blocked-by-cell": facts(blocks=(block(),)),
    "left-over": facts(outdated=frozenset({FIRST}), runs=((FIRST, SECOND, THIRD),)),
    "spins": facts(spins=(Spin(task(), 290, 300, 0.05),)),
    "unbounded-fan-out": many(1_001),
    "executor-saturated": facts(pools=(Pool("the loop's default executor", True, 8, 8, 31),)),
    "object-of-other-loop": facts(strays=(Stray("client", "ClientSession", True, False, "In[2], line 1"),)),
    "waits-for-long": waiting(301.0),
    "foreign-patch": facts(foreign=(Foreign("the loop is in debug mode", "set_debug(False)"),)),
}
NEAR_MISSES = {
    "waits for a task, and no circle": facts(),
    "a coroutine that blocked long ago": facts(blocks=(block(**HOG | {"began_at": 300.0}),)),
    "a coroutine of a cell that was run again": facts(
        blocks=(block(**HOG),), outdated=frozenset({FIRST}), tasks=()
    ),
    "a cell that nobody waited for": facts(blocks=(block(kept=Kept(messages=True)),)),
    "a cell that blocked for 4.9 s": facts(blocks=(block(lasted_s=4.9),)),
    "a failure of a cell that was run again": facts(
        failures=(task(state="raised", error="ValueError: no"),), outdated=frozenset({FIRST}), tasks=()
    ),
    "a lost task of a cell that was run again": facts(
        dropped=(task(state="dropped"),), outdated=frozenset({FIRST}), tasks=()
    ),
    "tasks of the latest run": facts(
        tasks=(task(cell=THIRD),), outdated=frozenset({FIRST}), runs=((FIRST, THIRD),)
    ),
    "steps in each pass, 2 ms each": facts(spins=(Spin(task(), 25, 25, 0.05),)),
    "steps in every other pass": facts(spins=(Spin(task(), 150, 300, 0.05),)),
    "1,000 tasks": many(1_000),
    "2,000 tasks behind a semaphore": many(2_000, waits_for="Semaphore.acquire()"),
    "2,000 workers without work": many(2_000, waits_for="Queue.get()"),
    "2,000 tasks that wait at 2 lines": facts(
        tasks=tuple(task(number, waits_at=f"fetch In[4], line {number % 2}") for number in range(2_000))
    ),
    "a full pool without a queue": facts(pools=(Pool("pool", False, 8, 8, 0),)),
    "a queue that is just being taken up": facts(pools=(Pool("pool", False, 7, 8, 1),)),
    "a queue of another thread's loop": facts(strays=(Stray("jobs", "Queue", False, True, ""),)),
    "a wait of five minutes": waiting(300.0),
    "workers that a later cell may wake": facts(deadlocks=(DEADLOCK._replace(kind="starved"),)),
    "a wait that a timer ends": waiting(600.0, text="sleep", has_timer=True),
}


@pytest.mark.parametrize("code", POSITIVE)
def test_each_check_finds_what_it_is_for(code: str) -> None:
    (finding,) = examine(POSITIVE[code])

    assert finding.code == code
    assert finding.summary.endswith(".")
    assert finding.remedy


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_near_misses_are_no_findings(name: str) -> None:
    assert examine(NEAR_MISSES[name]) == []


def test_every_check_has_a_positive() -> None:
    found = [[finding.code for finding in check(facts)] for facts in POSITIVE.values() for check in CHECKS]

    assert len(CHECKS) == len(POSITIVE) == len([codes for codes in found if codes])


def test_the_worst_comes_first() -> None:
    found = examine(
        facts(
            deadlocks=(DEADLOCK,),
            foreign=(Foreign("the loop is in debug mode", "set_debug(False)"),),
            pools=(Pool("pool", False, 8, 8, 31),),
        )
    )

    assert [finding.severity for finding in found] == ["error", "warning", "note"]


def test_a_block_that_lasts_is_worse_than_one_that_is_over() -> None:
    (over,) = examine(facts(blocks=(block(**HOG),)))
    (lasting,) = examine(facts(blocks=(block(**HOG), block(**HOG | {"is_over": False, "lasted_s": 0.7}))))

    assert (over.severity, lasting.severity) == ("warning", "error")
    assert "2 times, for 1.7 s in all" in lasting.summary


def test_left_over_tasks_are_counted_with_the_runs_of_their_cell() -> None:
    tasks = tuple(task(number, cell=(FIRST, SECOND)[number % 2]) for number in range(80))
    (finding,) = examine(
        facts(tasks=tasks, outdated=frozenset({FIRST, SECOND}), runs=((FIRST, SECOND, THIRD),))
    )

    assert "In[9] was run 3 times (before as In[4], In[6]), and 80 of the tasks" in finding.summary
    assert "%loopnb cancel --cell 9" in finding.remedy


def test_a_fan_out_says_to_use_a_semaphore() -> None:
    (finding,) = examine(many(2_500))

    assert finding.summary == "2,500 tasks of fetch() all wait for an HTTP response."
    assert "asyncio.Semaphore" in finding.remedy
    assert finding.place == "fetch In[4], line 2"


def test_failures_of_one_kind_are_one_finding() -> None:
    failures = tuple(task(number, state="raised", error="ValueError: no") for number in range(200))
    (finding,) = examine(facts(failures=failures))

    assert finding.summary.startswith("200 tasks of fetch() of In[4]")


def test_a_deadlock_is_no_long_wait_as_well() -> None:
    long = waiting(600.0).waits
    (finding,) = examine(facts(deadlocks=(DEADLOCK,), waits=long))

    assert finding.code == "deadlock"
    assert finding.summary == "Deadlock: task 5 waits for task 6."
    assert finding.remedy == "'%loopnb cancel 5' ends one of them."


def test_a_long_wait_says_that_only_a_cell_can_end_it() -> None:
    asleep = DEADLOCK._replace(kind="starved")
    (finding,) = examine(facts(deadlocks=(asleep,), waits=waiting(600.0).waits))

    assert finding.code == "waits-for-long"
    assert finding.summary.endswith("only a later cell can.")


def test_a_finding_reads_well() -> None:
    finding = Finding("spins", "warning", "It spins.", "Wait for an Event.", "In[3], line 2")

    assert repr(finding) == "<warning spins at In[3], line 2: It spins. Remedy: Wait for an Event.>"


def test_nothing_found_says_what_was_looked_at() -> None:
    healthy = facts(names=31, unknown=("whether a task spins",))
    text = texts.findings_text(examine(healthy), looked_at(healthy))

    assert text.startswith("Nothing found. Looked at 1 live task, 0 blocks,")
    assert "31 names of the notebook" in text
    assert text.endswith("Not looked at: whether a task spins.")


def test_the_status_counts_the_findings() -> None:
    finding = Finding("spins", "warning", "It spins.", "Wait for an Event.")

    assert texts.findings_count([]) == "nothing found"
    assert texts.findings_count([finding]) == "1 finding: spins; '%loopnb doctor' explains"
    assert texts.findings_count([finding, finding]).startswith("2 findings, the worst: spins;")
