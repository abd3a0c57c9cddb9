"""What a snapshot and a list of tasks look like as text and as HTML."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from IPython.core.formatters import DisplayFormatter

from loopnb import views
from loopnb.records import CellRef, LoopState, Snapshot, TaskRecord

if TYPE_CHECKING:
    from loopnb.records import LoopCondition

AGES = json.loads((Path(__file__).parent / "widget" / "vectors" / "ages.json").read_text(encoding="utf-8"))

#: The monotonic clock when these tasks are looked at.
NOW = 1_000.0


def loop(condition: LoopCondition = "idle", *, detail: str = "", cell: CellRef | None = None) -> LoopState:
    return LoopState("Loop", condition, detail, 1, "handoff", 0, cell)


def task(number: int, name: str, *, cell: CellRef | None = None) -> TaskRecord:
    return TaskRecord(number, name, "tick", "waiting", NOW - 12.3, cell, "In[4]:1", "tick In[4]:3", "sleep")


def snapshot(*tasks: TaskRecord) -> Snapshot:
    return Snapshot("epoch", 1_800_000_000.0, NOW, loop(), tasks)


class Tags(HTMLParser):
    """Collects the tags of a page, and checks that each is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(("age_s", "text"), AGES)
def test_an_age_is_said_as_people_do(age_s: float, text: str) -> None:
    assert views.age_text(age_s) == text


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (loop(), "idle"),
        (loop("closed"), "closed"),
        (loop("running", cell=CellRef("x", 4)), "running, In[4] is executing"),
        (loop("running"), "running, a cell is executing"),
        (loop("nested", cell=CellRef(None, 4)), "running, In[4] waits in a nested run"),
        (loop("set aside", detail="set aside by In[4]:1"), "set aside by In[4]:1"),
        (loop("idle", detail="no nesting"), "idle (no nesting)"),
    ],
)
def test_the_condition_is_one_clause(state: LoopState, text: str) -> None:
    assert views.condition_text(state) == text


def test_a_record_says_what_its_task_does_and_where() -> None:
    waiting = task(1, "feed")

    assert waiting.doing == "waiting for sleep at tick In[4]:3"
    assert waiting._replace(waits_for="", waits_at="", state="scheduled").doing == "scheduled"


def test_the_status_is_aligned_lines() -> None:
    assert views.status_text(snapshot(task(1, "feed"))).splitlines() == [
        "loop    #1, Loop, idle",
        "engine  handoff",
        "parked  0 stacks",
        "tasks   1 live",
    ]


def test_the_table_is_aligned() -> None:
    shown = views.tasks_text(snapshot(task(3, "feed"), task(12, "ticker", cell=CellRef("x", 4))))

    assert shown.splitlines() == [
        " #  name    coroutine  state    age   spawned by  waits for",
        " 3  feed    tick       waiting  12 s  -           sleep at tick In[4]:3",
        "12  ticker  tick       waiting  12 s  In[4]       sleep at tick In[4]:3",
    ]


def test_without_tasks_the_table_says_so() -> None:
    assert views.tasks_text(snapshot()) == "No live tasks."


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31mred", "bell\a", "\u202eback", "\ud800"])
def test_a_name_can_neither_break_a_line_nor_drive_a_terminal(name: str) -> None:
    shown = views.tasks_text(snapshot(task(1, name)))

    assert len(shown.splitlines()) == 2
    assert all(char.isprintable() for char in shown.replace("\n", ""))


def test_a_long_name_is_cut() -> None:
    shown = views.tasks_text(snapshot(task(1, "n" * 500)))

    assert max(map(len, shown.splitlines())) < 120


def test_the_page_escapes_what_users_wrote() -> None:
    page = views.table_html([task(1, '<script>alert("1")</script>')], NOW)

    assert "script" not in Tags(page).seen
    assert "&lt;script&gt;" in page


def test_the_page_is_one_table_with_a_row_per_task() -> None:
    tags = Tags(views.table_html([task(1, "a"), task(2, "b")], NOW))

    assert tags.open == []
    assert tags.seen.count("tr") == 3
    assert tags.seen.count("th") == len(views.COLUMNS)


def test_the_page_sets_no_colour_of_text_or_background() -> None:
    page = views.table_html([task(1, "a")], NOW)

    assert "background" not in page
    assert ";color:" not in page


def test_a_long_page_says_what_it_leaves_out() -> None:
    tasks = views.TaskList([task(number, "a") for number in range(207)], now=NOW, most=200)
    page = tasks._repr_html_() or ""

    assert Tags(page).seen.count("tr") == 201
    assert "7 more tasks are not shown" in page
    assert "7 more tasks are not shown" in repr(tasks)
    assert len(repr(tasks).splitlines()) == 202
    assert len(tasks) == len(tasks.filter(name="a")) == 207


def test_tasks_that_were_not_looked_at_are_counted() -> None:
    many = Snapshot("epoch", 0.0, NOW, loop(), (task(1, "feed"),), more=9_999)

    assert "10000 live" in views.status_text(many)
    assert "9,999 more tasks are not shown." in views.tasks_text(many)


#: What `loopnb.tasks()` returns.
TASKS = views.TaskList(
    [task(1, "a", cell=CellRef("x", 4)), task(2, "b"), task(3, "a")._replace(state="running")], now=NOW
)


@pytest.mark.parametrize(
    ("conditions", "numbers"),
    [({}, [1, 2, 3]), ({"name": "a"}, [1, 3]), ({"name": "a", "state": "running"}, [3]), ({"cell": 4}, [1])],
)
def test_a_list_is_filtered_by_all_that_is_given(conditions: dict[str, Any], numbers: list[int]) -> None:
    assert [task.number for task in TASKS.filter(**conditions)] == numbers


def test_a_list_is_a_table_in_text_and_in_html() -> None:
    assert " ".join(repr(TASKS).splitlines()[0].split()) == "# name coroutine state age spawned by waits for"
    assert (TASKS._repr_html_() or "").count("<tr>") == 4
    assert repr(views.TaskList()) == "No tasks."


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
    assert {round(row["age_s"], 1) for row in made["rows"]} == {12.3}
    assert [row["cell"] for row in made["rows"]] == ["In[4]", None, None]


def test_ipython_shows_a_list_as_a_table() -> None:
    data, _metadata = DisplayFormatter().format(views.TaskList([task(1, "<ticker>")]))

    assert "&lt;ticker&gt;" in data["text/html"]
    assert "<ticker>" in data["text/plain"]
