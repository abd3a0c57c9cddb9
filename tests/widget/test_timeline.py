"""The timeline as it is drawn, and as a file that Perfetto reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from loopnb.records import Block, CellRef, TaskRecord
from loopnb.widgets import timeline
from loopnb.widgets.table import Tasks

if TYPE_CHECKING:
    import pytest

NOW = 1_000.0
BASE = TaskRecord(
    1, "feed", "tick", "waiting", 990.0, CellRef("a", 3), "In[3], line 1", "tick In[3]", "sleep"
)


def live(*cells: int | None) -> Tasks:
    """Return live tasks, numbered from 0, of these cells."""
    tasks = Tasks()
    for number, cell in enumerate(cells):
        ref = None if cell is None else CellRef(f"c{cell}", cell)
        tasks.put(BASE._replace(number=number, cell=ref))
    return tasks


def ended(*records: TaskRecord, at: float = 998.0) -> timeline.History:
    """Return a history of these tasks."""
    history = timeline.History()
    for record in records:
        history.add(record, at)
    return history


def returned(_number: int) -> str:
    return "returned"


def test_lanes_are_cells_the_newest_first() -> None:
    drawn = timeline.timeline_of(live(None, 3, 12), ended(), [], NOW, returned)

    assert [lane["lane"] for lane in drawn["lanes"]] == ["In[12]", "In[3]", "other code"]


def test_the_kernels_own_tasks_have_no_bars() -> None:
    tasks = live(3)
    tasks.put(BASE._replace(number=1, cell=None, is_kernel=True))
    drawn = timeline.timeline_of(tasks, ended(), [], NOW, returned)

    assert drawn["lanes"] == [{"lane": "In[3]", "tasks": 1}]
    assert list(drawn["bars"]) == ["0"]


def test_of_many_tasks_some_are_drawn_and_all_are_counted() -> None:
    failed = ended(BASE._replace(number=20_001))
    drawn = timeline.timeline_of(live(*[3] * 10_000), failed, [], NOW, lambda _number: "raised")

    assert len(drawn["bars"]) <= timeline.MOST_BARS + 1
    assert "20001" in drawn["bars"]
    assert drawn["lanes"] == [{"lane": "In[3]", "tasks": 10_001}]
    fewer = timeline.timeline_of(live(*[3] * 9_950), failed, [], NOW, lambda _number: "raised")
    assert fewer["bars"].keys() <= drawn["bars"].keys()  # the same tasks stay chosen


def test_of_many_tasks_only_those_that_are_drawn_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, lane_of = live(*[3] * 10_000), timeline._lane_of
    asked: list[CellRef | None] = []

    def noted(cell: CellRef | None) -> str:
        asked.append(cell)
        return lane_of(cell)

    monkeypatch.setattr(timeline, "_lane_of", noted)
    timeline.timeline_of(tasks, ended(), [], NOW, returned)

    assert len(asked) <= 3 * timeline.MOST_BARS


def test_what_ended_long_ago_is_forgotten_and_no_more_counted() -> None:
    history = ended(BASE, at=800.0)
    history.add(BASE._replace(number=2), 950.0)
    history.forget_before(NOW - timeline.SECONDS)

    assert [at for _record, at in history.select(lambda _number: True)] == [950.0]
    drawn = timeline.timeline_of(live(), history, [], NOW, returned)
    assert drawn["lanes"] == [{"lane": "In[3]", "tasks": 1}]
    history.forget_before(NOW)
    assert timeline.timeline_of(live(), history, [], NOW, returned)["lanes"] == []


def test_blocks_are_drawn_where_they_were() -> None:
    wall_s = 1_795_000_000.0
    blocks = [
        Block(1, wall_s - 10, 2.0, True, "cell", "In[7]", CellRef("x", 7), None, "sleep", "In[7], line 1"),
        Block(2, wall_s - 500, 2.0, True, "cell", "In[1]", CellRef("y", 1), None, "sleep", "In[1], line 1"),
    ]
    [block] = timeline.blocks_of(blocks, NOW, wall_s)

    assert (block["from_s"], block["to_s"]) == (990.0, 992.0)
    assert "In[7] blocked the loop 2.0 s" in block["text"]


def test_a_trace_follows_the_trace_event_format() -> None:
    blocks = [{"from_s": 995.0, "to_s": 996.5, "text": "In[7] blocked the loop"}]
    gone = ended(BASE._replace(number=2, name=""))
    texts = timeline.trace_of(live(3, None), gone, blocks, NOW, returned)
    trace: dict[str, Any] = json.loads("".join(texts))

    assert trace["displayTimeUnit"] == "ms"
    lanes = {
        event["tid"]: event["args"]["name"]
        for event in trace["traceEvents"]
        if event["name"] == "thread_name"
    }
    assert lanes == {0: "the loop", 1: "In[3]", 2: "other code"}
    open_tasks: dict[int, dict[str, Any]] = {}
    for event in trace["traceEvents"]:
        assert event["pid"] == 1
        assert event["tid"] in lanes
        if event["ph"] == "M":
            continue
        assert isinstance(event["ts"], int)
        if event["ph"] == "X":
            assert (event["ts"], event["dur"]) == (995_000_000, 1_500_000)
        elif event["ph"] == "b":
            open_tasks[event["id"]] = event
        else:
            assert event["ph"] == "e"
            begun = open_tasks.pop(event["id"])
            assert (begun["cat"], begun["name"]) == (event["cat"], event["name"])
            assert begun["ts"] <= event["ts"]
    assert open_tasks == {}
