"""What blocks, lag and busy time read like."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loopnb.records import Block, Busy, BusyRow, CellRef, Kept, Lag, Pace, PlaceTotal, Shares
from loopnb.views import blocked_text, seconds_text
from loopnb.watch.texts import block_text, blocks_text, busy_text, kept_text, pace_text, remedy, status_line

HOG = Block(
    number=1,
    began_at=1_000.0,
    lasted_s=5.0,
    is_over=True,
    by="task",
    name="task 5 'hog'",
    cell=CellRef(None, 6),
    task=5,
    how="sleep",
    place="In[6], line 2",
    function="hog",
    coroutine="hog",
    call="time.sleep(5)",
    kept=Kept(3, 1, ("fetch-1", "fetch-2"), messages=True),
)
CELL = replace(
    HOG, by="cell", name="In[7]", task=None, how="computes", place="In[7], line 3", function="", coroutine=""
)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (
            HOG,
            "task 5 'hog' of In[6] blocked the loop 5.0 s: sleeps in time.sleep() at hog() In[6], line 2",
        ),
        (CELL, "In[7] blocked the loop 5.0 s: Python code computes at In[7], line 3"),
        (
            replace(CELL, is_over=False),
            "In[7] has blocked the loop for 5.0 s: Python code computes at In[7], line 3",
        ),
        (
            replace(CELL, how="gil", call="solve(x)"),
            "In[7] blocked the loop 5.0 s: C code holds the GIL, so this is reported late: solve() "
            "at In[7], line 3",
        ),
        (
            replace(CELL, by="unknown", name="unknown code", how="gil", call="", place=""),
            "unknown code blocked the loop 5.0 s: C code holds the GIL, so this is reported late",
        ),
        (
            replace(CELL, how="process", call="subprocess.run(['make'])"),
            "In[7] blocked the loop 5.0 s: waits for a process in subprocess.run() at In[7], line 3",
        ),
    ],
)
def test_a_block_is_a_sentence(block: Block, expected: str) -> None:
    assert block_text(block) == expected


def test_an_alarm_says_what_to_use_and_a_cell_is_left_alone() -> None:
    assert remedy(HOG) == "use `await asyncio.sleep(...)`"
    assert remedy(CELL) == ""
    assert remedy(replace(CELL, coroutine="solve")).startswith("move it to another process")


def test_the_status_says_how_long_ago() -> None:
    assert status_line(HOG, 1_017.0).endswith("line 2, 12 s ago; use `await asyncio.sleep(...)`")
    assert "ago" not in status_line(replace(CELL, is_over=False), 1_017.0)


def test_what_was_kept_waiting() -> None:
    assert kept_text(HOG) == (
        "3 ready callbacks (tasks 'fetch-1', 'fetch-2'), 1 overdue timer, messages of the front end"
    )
    assert kept_text(replace(HOG, kept=Kept())) == ""
    assert kept_text(replace(HOG, kept=Kept(messages=True))) == "messages of the front end"


def test_blocks_are_listed_with_totals() -> None:
    lines = blocks_text([HOG, CELL], [PlaceTotal("In[6], line 2", 3, 15.0, 5.0)]).splitlines()

    assert " ! task 5 'hog'" in lines[0]
    assert lines[1].strip().startswith("kept waiting: 3 ready callbacks")
    assert lines[2].strip() == "instead: use `await asyncio.sleep(...)`"
    assert "   In[7] blocked" in lines[3]
    assert lines[-1] == "   15.0 s  In[6], line 2, 3 times"


def test_pace() -> None:
    text = pace_text(
        Pace(Lag(0.0004, 0.02, 3.0, 240), Lag(0.0, 0.0, 0.0, 0), Shares(0.25, 0.05, 0.7, 60.0), 1_234.5)
    )

    assert [line.split() for line in text.splitlines()[:3]] == [
        ["lag", "p50", "p99", "max"],
        ["last", "60", "s", "0.4", "ms", "20", "ms", "3.0", "s"],
        ["since", "load", "-", "-", "-"],
    ]
    assert "25% your code, 5% the kernel's own, 70% waiting (last 60 s" in text
    assert text.splitlines()[-1].split() == ["passes", "1,234", "per", "second"]


def test_busy_rows() -> None:
    rows = tuple(BusyRow(f"task {number}", 0.1, 1.0) for number in range(12))
    text = busy_text(Busy(10.0, 500, rows, (), rows[:1]))

    assert text.splitlines()[0] == "Looked 500 times in 10.0 s."
    assert "10%     1.0 s  task 0" in text
    assert "and 2 more" in text
    assert busy_text(Busy(0.0, 0, (), (), ())) == "Nothing was seen yet."


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, "0 ms"), (0.00042, "0.42 ms"), (0.04, "40 ms"), (0.0996, "0.1 s"), (3.0, "3.0 s"), (125, "125 s")],
)
def test_seconds(seconds: float, expected: str) -> None:
    assert seconds_text(seconds) == expected


def test_a_task_that_has_not_blocked_says_nothing() -> None:
    assert blocked_text(0.0) == ""
    assert blocked_text(3.0) == "blocked the loop 3.0 s"
