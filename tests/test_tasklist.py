"""The list that `loopnb.tasks()` returns."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from loopnb.records import CellRef, TaskRecord
from loopnb.views import TaskList


def task(number: int, name: str, state: Any = "waiting", cell: CellRef | None = None) -> TaskRecord:
    return TaskRecord(number, name, "tick", state, 1.0, cell, "In[4], line 1", "", "sleep()")


TASKS = TaskList([task(1, "a", cell=CellRef("x", 4)), task(2, "b"), task(3, "a", "running")])


@pytest.mark.parametrize(
    ("conditions", "numbers"),
    [({}, [1, 2, 3]), ({"name": "a"}, [1, 3]), ({"name": "a", "state": "running"}, [3]), ({"cell": 4}, [1])],
)
def test_it_is_filtered_by_all_that_is_given(conditions: dict[str, Any], numbers: list[int]) -> None:
    assert [one.number for one in TASKS.filter(**conditions)] == numbers


def test_it_is_a_table_in_text_and_in_html() -> None:
    assert " ".join(repr(TASKS).splitlines()[0].split()) == "# name coroutine state age spawned by waits for"
    assert (TASKS._repr_html_() or "").count("<tr>") == 4
    assert repr(TaskList()) == "No tasks."


def test_pandas_is_needed_only_for_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(ModuleNotFoundError, match="pip install pandas"):
        TASKS.to_pandas()


def test_a_data_frame_has_a_row_for_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}
    pandas: Any = ModuleType("pandas")
    pandas.DataFrame = lambda rows, columns: made.update(rows=rows, columns=columns)
    monkeypatch.setitem(sys.modules, "pandas", pandas)

    TASKS.to_pandas()

    assert made["columns"][:3] == ["number", "name", "coro"]
    assert [row["cell"] for row in made["rows"]] == ["In[4]", None, None]
