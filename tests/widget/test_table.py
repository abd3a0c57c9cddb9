"""The rows of a selection against the plain way: filter, sort and group everything each time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopnb.records import CellRef, TaskRecord
from loopnb.widgets.protocol import SORTS, Query
from loopnb.widgets.table import LiveTask, Order, Selection, Tasks, group_row, task_row

BASE = TaskRecord(0, "", "fetch", "waiting", 0.0, None, "", "", "")


def live(number: int, place: str = "a", name: str = "n", cell: int = 3) -> TaskRecord:
    return BASE._replace(
        number=number, name=name, spawned_at=float(number), cell=CellRef(f"id{cell}", cell), waits_at=place
    )


def put(tasks: Tasks, record: TaskRecord, state: str) -> None:
    """Take in a task that the views show in that state."""
    if state == "cancelling":
        tasks.put(record, LiveTask(record, "cancelling", "", 5.0))
    else:
        tasks.put(record._replace(state="scheduled" if state == "ready" else "waiting"))


def keys(selection: Selection, query: Query) -> list[str]:
    return [key for key, _depth in selection.window(query)[1]]


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.none()
        | st.tuples(
            st.sampled_from("abc"),
            st.sampled_from("xyz"),
            st.sampled_from(["waiting", "ready", "cancelling"]),
        ),
        st.booleans(),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(
    CHANGES,
    st.sampled_from(sorted(set(SORTS) - {"age", "number"})),
    st.booleans(),
    st.booleans(),
    st.sampled_from([(), ("ready",)]),
)
def test_rows_are_those_of_the_plain_way(
    changes: list[Any], sort: str, group: bool, desc: bool, states: tuple[str, ...]
) -> None:
    tasks = Tasks()
    query = Query(sort=sort, group=group, desc=desc, states=states, limit=120)
    selection = Selection(query, tasks, {})
    for number, change, settles in changes:
        if change is None:
            tasks.drop(number)
            selection.drop(number)
        else:
            place, name, state = change
            put(tasks, live(number, place, name), state)
            selection.put(number)
        if settles:
            selection.settle()
    selection.settle()
    fresh = Selection(query, tasks, {})
    for number in tasks.records:
        fresh.put(number)
    fresh.settle()

    assert selection.window(query) == fresh.window(query)
    wanted = [record for record in tasks.records.values() if not states or tasks.state_of(record) in states]
    by_place: dict[str, list[TaskRecord]] = {}
    for record in wanted:
        by_place.setdefault(record.waits_at, []).append(record)
    folded = sum(len(members) > 1 for members in by_place.values())
    single = sum(len(members) == 1 for members in by_place.values())
    total, shown = selection.window(query)
    assert total == len(shown) == (folded + single if group else len(wanted))
    assert sum(key[0] == "g" for key, _depth in shown) == (folded if group else 0)
    assert +tasks.states == Counter(map(tasks.state_of, tasks.records.values()))
    for row in selection.groups.values():
        assert +row.states == Counter(tasks.state_of(tasks.records[number]) for number in row.numbers)


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(1, 9), st.booleans())
def test_windows_put_together_are_the_whole(offset: int, limit: int, desc: bool) -> None:
    tasks = Tasks()
    query = Query(sort="number", desc=desc, limit=120)
    selection = Selection(query, tasks, {})
    for number in range(20):
        tasks.put(live(number, "abcdefgh"[number % 3] if number < 15 else str(number)))
        selection.put(number)
    selection.settle()
    opened = tuple(key for key, _depth in selection.window(query)[1] if key[0] == "g")[1:]
    whole = Query(sort="number", desc=desc, limit=120, open=opened)
    part = Query(sort="number", desc=desc, limit=limit, open=opened, offset=offset)
    total, rows = selection.window(whole)
    assert total == len(rows) == 8 + 10

    assert selection.window(part) == (total, rows[min(offset, 17) : min(offset, 17) + limit])


def test_a_group_stays_where_it_is_when_its_oldest_task_ends() -> None:
    tasks, query = Tasks(), Query()
    selection = Selection(query, tasks, {})
    for number, place in enumerate("abaca"):
        tasks.put(live(number, place))
        selection.put(number)
    selection.settle()
    before = keys(selection, query)
    assert [key[0] for key in before] == ["g", "t", "t"]

    tasks.drop(0)
    selection.drop(0)
    selection.settle()
    assert keys(selection, query) == before

    tasks.drop(2)
    selection.drop(2)
    selection.settle()
    assert keys(selection, query) == ["t1", "t3", "t4"]


def test_the_row_of_a_group_says_what_its_tasks_have_in_common() -> None:
    tasks, query = Tasks(), Query()
    selection = Selection(query, tasks, {})
    for number, name, waits in ((1, "a", "task x"), (2, "b", "task y")):
        tasks.put(live(number, name=name)._replace(waits_for=waits, waiting_since=5.0 - number))
        selection.put(number)
    selection.settle()
    [group] = selection.groups.values()
    row = group_row(group, tasks.records, is_open=False, busy=None, waits_for=None, line="")

    assert {name: row[name] for name in ("count", "name", "state", "cell", "waits_for", "oldest_s")} == {
        "count": 2,
        "name": "",
        "state": "waiting",
        "cell": "In[3]",
        "waits_for": "task",
        "oldest_s": 1.0,
    }
    assert row["waiting_since_s"] == 3.0


@pytest.mark.parametrize("text", ["#7", "FETCH", "in[3]", "line 9", "waiting", "feed"])
def test_a_text_finds_tasks_by_all_that_is_said_of_them(text: str) -> None:
    tasks = Tasks()
    tasks.put(live(7, "main line 9", "feed"))
    tasks.put(BASE._replace(number=1, coro="other", state="parked"))
    selection = Selection(Query(text=text), tasks, {})
    for number in (1, 7):
        selection.put(number)
    selection.settle()

    assert keys(selection, Query()) == ["t7"]


def test_the_busiest_come_first() -> None:
    tasks, busy = Tasks(), {1: 0.1, 2: 0.5}
    selection = Selection(Query(sort="busy", group=False), tasks, busy)
    for number in (1, 2, 3):
        tasks.put(live(number, str(number)))
        selection.put(number)
    selection.settle()
    query = Query(sort="busy", group=False)
    assert keys(selection, query) == ["t2", "t1", "t3"]

    busy[3] = 0.9
    selection.look_at_busy({3})
    selection.settle()
    assert keys(selection, query) == ["t3", "t2", "t1"]


def test_an_order_takes_many_changes_at_once() -> None:
    order, other = Order(), Order()
    for number in range(3_000):
        order.put(f"t{number}", -number, number)
    order.settle()
    for number in range(3_000):
        other.put(f"t{number}", -number, number)
        other.settle()
    for number in range(0, 3_000, 2):
        order.drop(f"t{number}")
        other.drop(f"t{number}")
    order.settle()
    other.settle()

    assert len(order) == 1_500
    assert order.keys(0, 3_000, desc=False) == other.keys(0, 3_000, desc=False)
    assert order.keys(0, 3_000, desc=True) == order.keys(0, 3_000, desc=False)[::-1]


def test_the_kernels_own_tasks_are_neither_counted_nor_shown_unless_asked_for() -> None:
    tasks = Tasks()
    tasks.put(BASE._replace(number=1, is_kernel=True))
    hidden, shown = Selection(Query(), tasks, {}), Selection(Query(kernels=True), tasks, {})
    for selection in (hidden, shown):
        selection.put(1)
        selection.settle()

    assert not tasks.states["waiting"]
    assert keys(hidden, Query()) == []
    assert keys(shown, Query()) == ["t1"]
    assert task_row(tasks.shown(tasks.records[1]), 0, None, "", "")["is_kernel"]


def test_a_task_is_counted_for_its_cell_even_if_that_is_known_late() -> None:
    """A user's factory may begin a task eagerly: its cell is known when its first step is over."""
    tasks, cell = Tasks(), CellRef("id3", 3)
    tasks.put(BASE._replace(number=1, state="parked"))
    tasks.put(BASE._replace(number=1, state="parked", cell=cell))
    assert tasks.cells == {3: 1}

    tasks.drop(1)

    assert tasks.cells == {}
