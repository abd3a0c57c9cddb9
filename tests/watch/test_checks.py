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
AGAIN = frozenset({FIRST})
STARVED = DEADLOCK._replace(kind="starved")
POOL = Pool("pool", False, 8, 8, 31)
FAILED = task(state="raised", error="ValueError: no")
SPIN = Spin(task(), 290, 300, 0.05)
STRAY = Stray("client", "ClientSession", True, False, "In[2], line 1")


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
    "unobserved-failure": facts(failures=(FAILED,)),
    "dropped-while-pending": facts(dropped=(task(state="dropped"),)),
    "blocked-by-cell": facts(blocks=(block(),)),
    "left-over": facts(outdated=frozenset({FIRST}), runs=((FIRST, SECOND, THIRD),)),
    "spins": facts(spins=(SPIN,)),
    "unbounded-fan-out": many(1_001),
    "executor-saturated": facts(pools=(Pool("the loop's default executor", True, 8, 8, 31),)),
    "object-of-other-loop": facts(strays=(STRAY,)),
    "waits-for-long": waiting(301.0),
    "foreign-patch": facts(foreign=(Foreign("the loop is in debug mode", "set_debug(False)"),)),
}


def blocked(**changes: Any) -> Facts:
    """Return facts with such a block by a cell."""
    return facts(blocks=(block(**changes),))


def hogged(**changes: Any) -> Facts:
    """Return facts with such a block by a coroutine."""
    return blocked(**HOG | changes)


def fanned(waits_for: str) -> Facts:
    """Return facts with 2,000 tasks that wait for that."""
    return many(2_000, waits_for=waits_for)


def left(*tasks: TaskRecord, **changes: Any) -> Facts:
    """Return facts with those tasks, in a notebook whose first cell was run three times."""
    fields: dict[str, Any] = {"outdated": frozenset({FIRST, SECOND}), "runs": ((FIRST, SECOND, THIRD),)}
    return facts(tasks=tasks, **(fields | changes))


#: What looks like a finding and is healthy, for each check. `test_near_misses.py` has what must be gathered.
NEAR_MISSES: dict[str, dict[str, Facts]] = {
    "deadlock": {
        "a task that waits for another": facts(),
        "workers that a later cell may wake": facts(deadlocks=(STARVED,)),
        "two groups of such workers": facts(deadlocks=(STARVED, STARVED._replace(numbers=(7,)))),
    },
    "blocked-by-coroutine": {
        "it did so long ago": hogged(began_at=300.0),
        "its cell was run again": facts(blocks=(block(**HOG),), outdated=AGAIN, tasks=()),
        "a cell that sleeps": blocked(lasted_s=1.0),
        "a cell that computes": blocked(lasted_s=4.0, how="computes"),
        "a cell that calls C code": blocked(lasted_s=4.0, how="gil", is_late=True),
        "a cell in which the garbage collector runs": blocked(lasted_s=1.0, how="garbage", garbage_s=0.9),
        "a cell that runs a program": blocked(lasted_s=1.0, how="process", call="subprocess.run(['make'])"),
        "the kernel": blocked(by="kernel", name="the kernel", cell=None),
        "nobody knows who": blocked(by="unknown", name="something", cell=None),
        "a cell that blocks now": blocked(lasted_s=3.0, is_over=False),
    },
    "blocked-by-cell": {
        "nobody waited": blocked(kept=Kept()),
        "only messages waited": blocked(kept=Kept(messages=True)),
        "only callbacks of the kernel's waited": blocked(kept=Kept(ready=3)),
        "for 4.9 s": blocked(lasted_s=4.9),
        "for a second, while many waited": blocked(lasted_s=1.0, kept=Kept(900, 100, ("feed",))),
        "long ago": blocked(began_at=300.0),
        "it was run again": facts(blocks=(block(),), outdated=AGAIN, tasks=()),
        "many short blocks": facts(blocks=tuple(block(number=number, lasted_s=0.6) for number in range(50))),
        "the kernel": blocked(by="kernel", name="the kernel", cell=None),
        "nobody knows who": blocked(by="unknown", name="something", cell=None),
        "one that has only begun": blocked(lasted_s=0.7, is_over=False),
    },
    "unobserved-failure": {
        "its cell was run again": facts(failures=(FAILED,), outdated=AGAIN, tasks=()),
        "many, of a cell that was run again": facts(failures=(FAILED,) * 50, outdated=AGAIN, tasks=()),
    },
    "dropped-while-pending": {
        "its cell was run again": facts(dropped=(task(state="dropped"),), outdated=AGAIN, tasks=()),
        "many, of a cell that was run again": facts(
            dropped=(task(state="dropped"),) * 50, outdated=AGAIN, tasks=()
        ),
    },
    "left-over": {
        "tasks of the latest run": left(task(cell=THIRD)),
        "many of them": left(*(task(number, cell=THIRD) for number in range(80))),
        "no task at all": left(),
        "tasks of another cell": left(task(cell=CellRef("b", 5))),
        "a task of no cell": left(task(cell=None)),
        "what is held": left(task(), excused=frozenset({5})),
        "tasks that are ending": left(task(5), task(6, cell=SECOND), excused=frozenset({5, 6})),
        "a cell that was run once": facts(),
        "another cell was run again": left(
            task(), outdated=frozenset({CellRef("b", 5)}), runs=((CellRef("b", 5), CellRef("b", 7)),)
        ),
        "a background run of the latest run": left(task(cell=THIRD, name="server")),
    },
    "spins": {
        "steps in each pass, 2 ms each": facts(spins=(Spin(task(), 25, 25, 0.05),)),
        "steps in every other pass": facts(spins=(Spin(task(), 150, 300, 0.05),)),
        "computes 0.5 ms, then lets others run": facts(spins=(Spin(task(), 100, 100, 0.05),)),
        "two that compute 0.5 ms in turn": facts(
            spins=(Spin(task(5), 50, 50, 0.05), Spin(task(6), 50, 50, 0.05))
        ),
        "one that computes beside one that yields": facts(
            spins=(Spin(task(5), 60, 60, 0.05), Spin(task(6), 60, 60, 0.05))
        ),
        "a few steps": facts(spins=(Spin(task(), 3, 3, 0.0001),)),
        "a burst of steps that ends": facts(spins=(Spin(task(), 40, 300, 0.01),)),
        "a loop so fast that no time was seen": facts(spins=(Spin(task(), 300, 300, 0.0),)),
        "no steps": facts(spins=(Spin(task(), 0, 300, 0.05),)),
        "nobody counted": facts(spins=()),
    },
    "unbounded-fan-out": {
        "1,000 tasks": many(1_000),
        "behind a semaphore": fanned("Semaphore.acquire()"),
        "behind a limiter": fanned("CapacityLimiter.acquire()"),
        "behind a lock": fanned("Lock.acquire()"),
        "workers without work": fanned("Queue.get()"),
        "producers whom a full queue holds back": fanned("Queue.put()"),
        "at 2 lines": facts(
            tasks=tuple(task(number, waits_at=f"fetch In[4], line {number % 2}") for number in range(2_000))
        ),
        "heartbeats that sleep": fanned("sleep()"),
        "calls that the pool of threads limits": fanned("a thread"),
        "parents of other tasks": fanned("the tasks of its group"),
        "parents that gather": fanned("gather, 1 of 1 pending"),
        "those whose inner task waits, up to Python 3.11": fanned("wait_for()"),
        "those who wait to be notified": fanned("Condition.wait()"),
        "those who wait for each other": fanned("Barrier.wait()"),
        "about to step": many(2_000, state="scheduled", waits_for=""),
    },
    "executor-saturated": {
        "without a queue": facts(pools=(POOL._replace(queued=0),)),
        "whose queue is just being taken up": facts(pools=(POOL._replace(busy=7, queued=1),)),
        "that is idle": facts(pools=(POOL._replace(busy=0, queued=0),)),
        "the default one, without a queue": facts(pools=(Pool("the default", True, 8, 8, 0),)),
        "the default one, with a free thread": facts(pools=(Pool("the default", True, 7, 8, 3),)),
        "with a single thread, which makes one call after the other": facts(
            pools=(Pool("database", False, 1, 1, 12),)
        ),
        "with a single thread that is idle": facts(pools=(Pool("database", False, 0, 1, 0),)),
        "large and nearly full": facts(pools=(Pool("pool", False, 63, 64, 0),)),
        "ten that are full without a queue": facts(pools=(POOL._replace(queued=0),) * 10),
        "no pool": facts(),
    },
    "object-of-other-loop": {
        "a queue of a loop that runs in a thread": facts(
            strays=(STRAY._replace(is_closed=False, is_running=True),)
        ),
        "many of them": facts(strays=(STRAY._replace(is_closed=False, is_running=True),) * 10),
    },
    "waits-for-long": {
        "for five minutes": waiting(300.0),
        "for a second": waiting(1.0),
        "until a timer ends it": waiting(600.0, text="sleep", has_timer=True),
        "for an answer, with a time limit": waiting(900.0, text="bytes from 127.0.0.1:80", has_timer=True),
        "for less than was asked for": facts(long_wait_s=700.0, waits=waiting(600.0).waits),
    },
    "foreign-patch": {"nothing was changed": facts()},
}


@pytest.mark.parametrize("code", POSITIVE)
def test_each_check_finds_what_it_is_for(code: str) -> None:
    (finding,) = examine(POSITIVE[code])

    assert finding.code == code
    assert finding.summary.endswith(".")
    assert finding.remedy


@pytest.mark.parametrize(
    ("code", "name"), [(code, name) for code in NEAR_MISSES for name in NEAR_MISSES[code]]
)
def test_near_misses_are_no_findings(code: str, name: str) -> None:
    assert examine(NEAR_MISSES[code][name]) == []


def test_every_check_has_near_misses() -> None:
    assert NEAR_MISSES.keys() == POSITIVE.keys()


def test_tasks_that_spin_alike_are_one_finding() -> None:
    (finding,) = examine(facts(spins=tuple(Spin(task(number), 290, 300, 0.05) for number in range(20))))

    assert finding.summary.startswith("20 tasks of fetch() of In[4]")
    assert "make up to 5,800 steps a second each and wait for nothing: they poll" in finding.summary


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
