"""The messages between the widget's model and its views; the front end reads the same vectors/*.json."""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopnb.widgets import protocol
from loopnb.widgets.protocol import (
    Ask,
    AskDetail,
    AskTimeline,
    AskTrace,
    AskTree,
    BadMessage,
    Cancel,
    Query,
    Visible,
)

VECTORS = Path(__file__).parent / "vectors"


def vectors(name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    return cases


def claim(case: dict[str, Any]) -> str:
    return str(case["claim"])


APPLY: dict[str, Any] = {
    "shared": protocol.apply_shared,
    "window": protocol.apply_window,
    "timeline": protocol.apply_timeline,
}


@pytest.mark.parametrize(
    ("kind", "case"),
    [pytest.param(kind, case, id=f"{kind}: {claim(case)}") for kind in APPLY for case in vectors(kind)],
)
def test_messages_add_up(kind: str, case: dict[str, Any]) -> None:
    untouched = json.dumps(case["before"])

    assert reduce(APPLY[kind], case["messages"], case["before"]) == case["after"]
    assert json.dumps(case["before"]) == untouched


@pytest.mark.parametrize("case", vectors("gaps"), ids=claim)
def test_a_message_that_does_not_fit_is_noticed(case: dict[str, Any]) -> None:
    assert APPLY[case["kind"]](case["state"], case["message"]) is None


@pytest.mark.parametrize("case", vectors("window"), ids=claim)
def test_what_has_changed_among_the_rows_is_said(case: dict[str, Any]) -> None:
    after, messages = protocol.window_messages(case["before"], case["after"])

    assert [{"epoch": "e", "view": "v", **message} for message in messages] == case["messages"]
    assert after == case["after"]


@pytest.mark.parametrize("case", vectors("timeline"), ids=claim)
def test_what_has_changed_on_the_timeline_is_said(case: dict[str, Any]) -> None:
    after, messages = protocol.timeline_messages(case["before"], case["after"])

    assert [{"epoch": "e", "view": "v", **message} for message in messages] == case["messages"]
    assert after == case["after"]


def test_what_has_changed_in_the_header_is_said() -> None:
    [case] = [case for case in vectors("shared") if case["claim"] == "a cell begins"]

    assert [protocol.head_message(case["before"], case["after"])] == case["messages"]
    later: Any = {**case["before"], "clock_s": 99.0}

    assert protocol.head_message(case["before"], later) is None


# -- the law ---------------------------------------------------------------------------------------

VALUES = st.none() | st.booleans() | st.floats(0, 9) | st.text(max_size=4)
HEADS = st.fixed_dictionaries(dict.fromkeys(("text", "cell", "tasks"), VALUES))
ROWS = st.dictionaries(
    st.sampled_from([f"t{number}" for number in range(9)]),
    st.dictionaries(st.sampled_from(["name", "state"]), VALUES | st.sampled_from(["x" * 9_000])),
)


@st.composite
def windows(draw: st.DrawFn, queries: tuple[int, ...] = (0, 1)) -> protocol.Window:
    rows = draw(ROWS)
    keys = draw(st.permutations(list(rows)))
    query = {"offset": draw(st.sampled_from(queries))}
    total, offset = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    return {"query": query, "wseq": 7, "total": total, "offset": offset, "keys": keys, "rows": rows}


@settings(deadline=None)
@given(st.none() | windows(), windows())
def test_the_messages_between_two_windows_lead_from_one_to_the_other(
    before: protocol.Window | None, after: protocol.Window
) -> None:
    numbered, messages = protocol.window_messages(before, after)

    assert reduce(protocol.apply_window, messages, before) == numbered
    assert numbered == {**after, "wseq": numbered["wseq"]}
    assert all(protocol.size_of(message) <= protocol.MOST_BYTES for message in messages)


@settings(deadline=None)
@given(HEADS, HEADS)
def test_the_message_between_two_headers_leads_from_one_to_the_other(before: Any, after: Any) -> None:
    old: Any = {"epoch": "e", "seq": 1, "clock_s": 1.0, "taken_at": 1.0, "head": before, "block": None}
    new: Any = {"epoch": "e", "seq": 2, "clock_s": 2.0, "taken_at": 2.0, "head": after, "block": None}
    message = protocol.head_message(old, new)

    assert (message is None) == (before == after)
    assert message is None or protocol.apply_shared(old, message) == new


@settings(deadline=None)
@given(st.none() | ROWS, ROWS, st.lists(st.sampled_from(["In[1]", "In[2]"])))
def test_the_messages_between_two_timelines_lead_from_one_to_the_other(
    before: Any, after: Any, lanes: Any
) -> None:
    old: Any = before and {"tseq": 3, "now_s": 1.0, "lanes": [], "bars": before, "blocks": []}
    new: Any = {"tseq": 0, "now_s": 2.0, "lanes": lanes, "bars": after, "blocks": lanes}
    numbered, messages = protocol.timeline_messages(old or None, new)
    left: Any = reduce(protocol.apply_timeline, messages, old or None)

    assert left == numbered
    assert {**left, "tseq": 0, "now_s": 2.0} == new


def test_texts_that_fill_a_window_travel_in_several_messages() -> None:
    rows = {f"t{number}": {"name": protocol.cut("\N{PILE OF POO}" * 300)} for number in range(120)}
    window: protocol.Window = {
        "query": {}, "wseq": 0, "total": 120, "offset": 0, "keys": list(rows), "rows": rows,
    }  # fmt: skip
    _after, messages = protocol.window_messages(None, window)

    assert len(messages) > 1
    assert all(protocol.size_of(message) <= protocol.MOST_BYTES for message in messages)


# -- texts -----------------------------------------------------------------------------------------


def test_any_name_can_be_sent() -> None:
    assert protocol.cut("\ud800") == "?"
    assert len(protocol.cut("x" * 10_000)) == protocol.MOST_TEXT
    assert protocol.cut("x" * protocol.MOST_TEXT) == "x" * protocol.MOST_TEXT


@settings(deadline=None)
@given(st.lists(st.text(max_size=2_000)))
def test_a_long_text_travels_in_pieces(texts: list[str]) -> None:
    pieces = list(protocol.in_pieces(text * 10 for text in texts))

    assert pieces
    assert "".join(pieces) == "".join(text * 10 for text in texts)
    assert all(protocol.size_of(piece) <= protocol.MOST_BYTES for piece in pieces)


def test_lines_that_do_not_fit_are_counted() -> None:
    lines = [{"text": "x" * protocol.MOST_TEXT} for _ in range(1_000)]
    found, left_out = protocol.fitting(lines)

    assert len(found) + left_out == 1_000
    assert protocol.size_of(found) <= protocol.MOST_BYTES


# -- what views say --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"op": "cancel", "id": "v:1", "number": 7}, Cancel("v:1", 7)),
        ({"op": "cancel", "id": "v:1", "view": "v", "group": "gabc"}, Cancel("v:1", view="v", group="gabc")),
        ({"op": "cancel", "id": "v:1", "leftovers": True}, Cancel("v:1", leftovers=True)),
        ({"op": "visible", "view": "v", "visible": True}, Visible("v", visible=True)),
        ({"op": "visible", "view": "v", "visible": False, "more": 1}, Visible("v", visible=False)),
        ({"op": "query", "view": "v", "query": {"text": "x"}}, Ask("v", Query(text="x"))),
        ({"op": "resync", "view": "v", "query": {}}, Ask("v", Query(), is_resync=True)),
        ({"op": "detail", "view": "v", "number": 3}, AskDetail("v", 3)),
        ({"op": "detail", "view": "v", "number": None}, AskDetail("v", None)),
        ({"op": "tree", "view": "v", "kind": "awaits"}, AskTree("v", "awaits")),
        ({"op": "timeline", "view": "v", "shown": True}, AskTimeline("v", shown=True)),
        ({"op": "trace", "view": "v", "id": "v:2"}, AskTrace("v", "v:2")),
    ],
)
def test_messages_of_views_are_read(content: object, message: object) -> None:
    assert protocol.parse(content) == message


@pytest.mark.parametrize(
    ("content", "request_id"),
    [
        ({"op": "cancel", "id": "v:1", "number": "7"}, "v:1"),
        ({"op": "cancel", "id": "v:1", "number": True}, "v:1"),
        ({"op": "cancel", "id": "v:1", "group": "gabc"}, "v:1"),
        ({"op": "cancel", "id": "v:1"}, "v:1"),
        ({"op": "cancel", "number": 7}, None),
        ({"op": "visible", "view": "v", "visible": 1}, None),
        ({"op": "query", "view": "v", "query": {"sort": "secret"}}, None),
        ({"op": "query", "view": "v", "query": {"states": "waiting"}}, None),
        ({"op": "query", "view": "v", "query": {"offset": 1.5}}, None),
        ({"op": "detail", "view": "v", "number": "3"}, None),
        ({"op": "tree", "view": "v", "kind": "family"}, None),
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


def test_a_query_is_sent_back_as_it_came() -> None:
    content = {"tab": "finished", "states": ["raised"], "open": ["gabc"], "limit": 10_000, "offset": -1}
    query = protocol.read_query(content)

    assert query is not None
    assert (query.limit, query.offset) == (protocol.MOST_ROWS, 0)
    assert protocol.read_query(json.loads(json.dumps(query.as_json()))) == query


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["sort", "open"]), inner),
)


@settings(deadline=None)
@given(ANYTHING)
def test_no_message_makes_the_reader_raise(content: object) -> None:
    assert isinstance(protocol.parse(content), BadMessage)
    protocol.parse({"op": content, "id": content, "number": content})
    for op in ("cancel", "visible", "query", "resync", "detail", "tree", "timeline", "trace"):
        protocol.parse({"op": op, "id": content, "number": content, "view": "v", "query": content})
        protocol.parse({"op": op, "view": content, "kind": content, "shown": content, "group": content})
