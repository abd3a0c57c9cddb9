"""The timeline as it is drawn, and as a file that Perfetto reads."""

from __future__ import annotations

import json
from typing import Any

from loopnb.records import Block, CellRef, TaskRecord
from loopnb.widgets import timeline
from loopnb.widgets.table import LiveTask
from loopnb.widgets.timeline import EndedBar

NOW = 1_000.0
BASE = TaskRecord(
    1, "feed", "tick", "waiting", 990.0, CellRef("a", 3), "In[3], line 1", "tick In[3]", "sleep"
)


def live(number: int, cell: int | None = 3) -> LiveTask:
    ref = None if cell is None else CellRef(f"c{cell}", cell)
    return LiveTask(BASE._replace(number=number, cell=ref), "waiting", "")


def returned(_number: int) -> str:
    return "returned"


def test_lanes_are_cells_the_newest_first() -> None:
    drawn = timeline.timeline_of([live(1, None), live(2, 3), live(3, 12)], [], [], NOW, returned)

    assert [lane["lane"] for lane in drawn["lanes"]] == ["In[12]", "In[3]", "other code"]


def test_of_many_tasks_some_are_drawn_and_all_are_counted() -> None:
    tasks = [live(number) for number in range(10_000)]
    failed = [EndedBar(BASE._replace(number=20_001), 999.0)]
    drawn = timeline.timeline_of(tasks, failed, [], NOW, lambda _number: "raised")

    assert len(drawn["bars"]) <= timeline.MOST_BARS + 1
    assert "20001" in drawn["bars"]
    assert drawn["lanes"] == [{"lane": "In[3]", "tasks": 10_001}]
    fewer = timeline.timeline_of(tasks[:-50], failed, [], NOW, lambda _number: "raised")
    assert fewer["bars"].keys() <= drawn["bars"].keys()  # the same tasks stay chosen


def test_what_ended_long_ago_is_forgotten() -> None:
    history = timeline.History()
    for at in (800.0, 950.0):
        history.add(BASE, at)

    assert [ended.at for ended in history.since(NOW - timeline.SECONDS)] == [950.0]


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
    ended = [EndedBar(BASE._replace(number=2, name=""), 998.0)]
    text = timeline.trace_of([live(1), live(3, None)], ended, blocks, NOW, returned)
    trace: dict[str, Any] = json.loads(text)

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
