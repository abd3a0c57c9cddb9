"""What the widget's header says the loop does. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from loopnb.records import Block, CellRef, Finding, Lag, LoopState, TaskRecord
from loopnb.widgets import head
from loopnb.widgets.table import Tasks

if TYPE_CHECKING:
    from loopnb.records import TaskState

CELL = CellRef("x", 7)


def loop(condition: Any = "idle", detail: str = "", cell: CellRef | None = None) -> LoopState:
    return LoopState("Loop", condition, detail, 2, "handoff", 3, cell, ("a policy was reset", "a loop too"))


@pytest.mark.parametrize(
    ("state", "states", "said"),
    [
        (loop(), {}, ("idle", "idle")),
        (loop(), {"waiting": 9, "parked": 2, "cancelling": 1}, ("idle", "idle")),
        (loop(), {"ready": 1}, ("busy", "1 task runs")),
        (loop(), {"ready": 1_000, "running": 1}, ("busy", "1,001 tasks run")),
        (loop("running", cell=CELL), {"ready": 1}, ("running", "In[7] runs")),
        (loop("nested", cell=CELL), {}, ("nested", "In[7] runs, and waits in a nested run")),
        (loop("nested", "waits in run_forever()", CELL), {}, ("nested", "waits in run_forever()")),
        (loop("set aside", "set aside by In[2], line 1"), {}, ("set aside", "set aside by In[2], line 1")),
        (loop("closed"), {"ready": 1}, ("closed", "closed")),
    ],
)
def test_idle_means_that_nothing_runs(
    state: LoopState, states: dict[str, int], said: tuple[str, str]
) -> None:
    assert head.doing(state, states) == said


def test_the_header_counts_and_names() -> None:
    tasks = Tasks()
    states: list[TaskState] = ["waiting", "waiting", "scheduled"]
    for number, state in enumerate(states):
        record = TaskRecord(number, "", "f", state, 0.0, CellRef("x", number // 2), "", "", "")
        tasks.put(record._replace(note="left over" if number else ""))
    finding = Finding("deadlock", "error", "Two tasks wait for each other.", "Cancel one.")
    found = head.head_of(
        loop("running", cell=CELL),
        tasks,
        since=5.0,
        ended=(4, 1),
        lag=head.lag_of(Lag(0.0012, 0.5, 1.0, 9), [0.0, 0.25]),
        findings=[finding, finding],
    )

    assert found["tasks"] == 3
    assert found["counts"] == {
        "waiting": 2, "ready": 1, "running": 0, "parked": 0, "cancelling": 0, "finished": 4, "failed": 1,
    }  # fmt: skip
    assert found["leftovers"] == 2
    assert found["cells"] == ["In[1]", "In[0]"]
    assert found["lag"] == {"p50_ms": 1.2, "p99_ms": 500.0, "max_ms": 1000.0, "recent": [0.0, 250.0]}
    assert found["finding"] == {
        "severity": "error", "summary": finding.summary, "remedy": "Cancel one.", "more": 1,
    }  # fmt: skip
    assert found["mended"] == "a policy was reset; a loop too"
    assert head.lag_of(Lag(0.0, 0.0, 0.0, 0), []) is None


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"call": "time.sleep(9)"}, "In[7], line 3: time.sleep"),
        ({"how": "computes"}, "In[7], line 3: computing"),
        ({"how": "computes", "call": "s"}, "In[7], line 3: computing"),
        ({"place": "", "how": "computes"}, "In[7]: computing"),
        (
            {"by": "task", "name": "task 5 'hog'", "call": "requests.get(url)"},
            "task 5 'hog', In[7], line 3: requests.get",
        ),
        (
            {"by": "kernel", "name": "the kernel", "place": "", "how": "gil"},
            "the kernel: C code holds the GIL",
        ),
    ],
)
def test_who_blocks_is_said_in_one_line(block: dict[str, Any], text: str) -> None:
    facts: dict[str, Any] = {
        "number": 0, "began_at": 0.0, "lasted_s": 1.5, "is_over": False, "by": "cell", "name": "In[7]",
        "cell": CELL, "task": None, "how": "sleep", "place": "In[7], line 3",
    }  # fmt: skip
    found = head.block_of(Block(**facts | block), 100.0, None)

    assert found["text"] == text
    assert found["since_s"] == 98.5
