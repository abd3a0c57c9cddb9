"""What a saved notebook shows of the widget."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopnb.widgets import stored

HEAD = {
    "text": "In[7] runs",
    "tasks": 313,
    "counts": {"waiting": 312, "ready": 0, "running": 1, "finished": 0, "failed": 2},
    "mended": "",
    "finding": None,
}
SHARED: Any = {"epoch": "e", "seq": 1, "clock_s": 100.0, "taken_at": 1_795_000_000.0, "head": HEAD}
ROW = {
    "key": "t1", "number": 1, "name": "feed", "coro": "tick", "state": "waiting", "spawned_s": 60.0,
    "cell": "In[3]", "waits_for": "sleep", "waits_at": "tick In[3], line 2", "note": "",
}  # fmt: skip
GROUP = {
    "key": "g1", "count": 312, "coro": "fetch", "state": "waiting", "oldest_s": 88.0, "cell": "In[4]",
    "waits_for": "bytes from [::1]:8080", "waits_at": "fetch In[4], line 3",
    "line": "In[4], line 3: await read()",
}  # fmt: skip


def window(*rows: dict[str, Any], total: int | None = None) -> Any:
    named = {f"{row['key']}-{index}": row for index, row in enumerate(rows)}
    return {"keys": list(named), "rows": named, "total": len(rows) if total is None else total}


class Tags(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag not in {"tr", "td", "th"}:  # their end tags may be left out
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def test_tasks_of_one_kind_are_one_row() -> None:
    page = Tags(stored.html_of(SHARED, window(GROUP, ROW)))

    assert page.open == []
    assert page.seen.count("tr") == 3
    assert (
        "312 x fetch waiting In[4] oldest 12 s In[4], line 3: await read() (bytes from [::1]:8080)"
        in page.text
    )
    assert "feed waiting In[3] 40 s tick In[3], line 2 (sleep)" in page.text
    assert "In[7] runs; 313 tasks: 312 waiting, 1 running, 2 failed" in page.text
    assert "As of 2026-11-18" in page.text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"note": "refused to cancel (twice)"}, "refused to cancel (twice); tick In[3], line 2 (sleep)"),
        ({"waits_for": ""}, "tick In[3], line 2"),
        ({"waits_at": ""}, "sleep"),
        ({"waits_for": "", "waits_at": ""}, ""),
    ],
)
def test_the_users_line_is_first(change: dict[str, str], text: str) -> None:
    page = Tags(stored.html_of(SHARED, window({**ROW, **change})))

    assert f"40 s {text}".rstrip() + " As of" in re.sub(" +", " ", page.text)


def test_the_text_says_the_same() -> None:
    lines = stored.text_of(SHARED, window(GROUP, ROW)).splitlines()

    assert lines[0] == "loopnb: In[7] runs; 313 tasks: 312 waiting, 1 running, 2 failed"
    assert re.split(" {2,}", lines[2])[:4] == ["312 x fetch", "waiting", "In[4]", "oldest 12 s"]
    assert lines[-1].startswith("As of 2026-")


def test_no_more_than_fifty_rows_are_stored_and_the_rest_is_counted() -> None:
    page = stored.html_of(SHARED, window(*[ROW] * 60, total=9_000))

    assert Tags(page).seen.count("tr") == stored.MOST_ROWS + 1
    assert "8,950 more rows are not shown." in page
    assert "8,950 more rows are not shown." in stored.text_of(SHARED, window(*[ROW] * 60, total=9_000))


def test_fifty_usual_rows_take_less_than_12_kb() -> None:
    assert len(stored.html_of(SHARED, window(*[ROW] * 50)).encode()) <= stored.MOST_BYTES
    assert Tags(stored.html_of(SHARED, window(*[ROW] * 50))).seen.count("tr") == 51


@settings(deadline=None)
@given(st.lists(st.text(max_size=200), min_size=1, max_size=60))
def test_whatever_the_names_are_it_is_small_and_nothing_but_text(names: list[str]) -> None:
    page = stored.html_of(SHARED, window(*({**ROW, "name": name or "x"} for name in names)))

    assert len(page.encode()) <= stored.MOST_BYTES + 200
    assert set(Tags(page).seen) <= {"div", "b", "table", "thead", "tbody", "tr", "th", "td"}


def test_what_turns_the_direction_of_writing_is_replaced() -> None:
    page = stored.html_of(SHARED, window({**ROW, "name": "a\u202eb\x1b[1m"}))

    assert "\u202e" not in page
    assert "\x1b" not in stored.text_of(SHARED, window({**ROW, "name": "a\u202eb\x1b[1m"}))


def test_nothing_is_said_of_tasks_if_there_are_none() -> None:
    head: Any = {**HEAD, "text": "idle", "tasks": 0, "counts": {}}
    shared: Any = {**SHARED, "head": head}
    page = stored.html_of(shared, window())

    assert "idle; no live tasks" in page
    assert "table" not in Tags(page).seen
