"""The messages between the widget's model and its views; the front end reads the same deltas.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopnb.records import CellRef, LoopState, Snapshot, TaskRecord
from loopnb.widget import protocol
from loopnb.widget.protocol import BadMessage, Cancel, Resync, Visible

DELTAS = json.loads((Path(__file__).parent / "deltas.json").read_text(encoding="utf-8"))

LOOP = LoopState("Loop", "running", "", 1, "handoff", 2, CellRef("x", 4))
TASK = TaskRecord(7, "feed", "tick", "waiting", 47.5, CellRef("x", 3), "In[3]:1", "tick In[3]:2", "sleep")


def snapshot(*tasks: TaskRecord, clock_s: float = 50.0) -> Snapshot:
    return Snapshot("epoch", 100.0, clock_s, LOOP, tasks)


def test_a_snapshot_is_plain_json() -> None:
    state = protocol.encode(snapshot(TASK), seq=3)

    assert json.loads(json.dumps(state)) == state
    assert state["loop"] | {"cell": "In[4]", "tasks": 1, "parked": 2} == state["loop"]
    assert state["tasks"]["7"] | {"cell": "In[3]", "spawned_s": 47.5, "parent": None} == state["tasks"]["7"]


def test_no_more_rows_are_sent_than_a_page_can_bear() -> None:
    many = [TASK._replace(number=number) for number in range(protocol.MAX_ROWS + 10)]
    state = protocol.encode(snapshot(*many), seq=0)

    assert len(state["tasks"]) == protocol.MAX_ROWS
    assert "0" in state["tasks"]
    assert state["loop"]["tasks"] == protocol.MAX_ROWS + 10


def test_any_name_can_be_sent() -> None:
    odd = TASK._replace(name="\ud800", waits_for="x" * 10_000)
    row = protocol.encode(snapshot(odd), seq=0)["tasks"]["7"]

    assert row["name"] == "?"
    assert len(row["waits_for"]) == protocol.MAX_TEXT


@pytest.mark.parametrize("case", DELTAS, ids=lambda case: case["claim"])
def test_a_delta_says_what_has_changed(case: dict[str, Any]) -> None:
    assert protocol.delta(case["before"], case["after"]) == case["delta"]


def test_nothing_is_said_when_only_time_has_passed() -> None:
    before = protocol.encode(snapshot(TASK), seq=0)
    after = protocol.encode(snapshot(TASK, clock_s=50.6), seq=1)

    assert protocol.delta(before, after) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"op": "cancel", "id": "v:1", "number": 7}, Cancel("v:1", 7)),
        ({"op": "resync"}, Resync()),
        ({"op": "visible", "view": "v", "visible": True}, Visible("v", visible=True)),
        ({"op": "visible", "view": "v", "visible": False, "more": 1}, Visible("v", visible=False)),
    ],
)
def test_messages_of_views_are_read(content: object, message: object) -> None:
    assert protocol.parse(content) == message


@pytest.mark.parametrize(
    ("content", "request_id"),
    [
        ({"op": "cancel", "id": "v:1", "number": "7"}, "v:1"),
        ({"op": "cancel", "id": "v:1", "number": True}, "v:1"),
        ({"op": "cancel", "id": "v:1"}, "v:1"),
        ({"op": "cancel", "number": 7}, None),
        ({"op": "visible", "view": "v", "visible": 1}, None),
        ({"op": "shutdown", "id": "v:2"}, "v:2"),
        ({"op": None}, None),
        ({}, None),
        ([], None),
        ("cancel", None),
        (None, None),
    ],
)
def test_what_is_wrong_with_a_message_is_said(content: object, request_id: str | None) -> None:
    match protocol.parse(content):
        case BadMessage(found, reason):
            assert found == request_id
            assert reason.endswith(".")
        case other:
            pytest.fail(f"read as {other}")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_no_message_makes_the_reader_raise(content: object) -> None:
    assert isinstance(protocol.parse(content), BadMessage)
    protocol.parse({"op": content, "id": content, "number": content})
    protocol.parse({"op": "cancel", "id": content, "number": content})
