"""The table above the view: when it is stored, and when again."""

from __future__ import annotations

from typing import Any

import pytest

from loopnb.widgets import storing
from loopnb.widgets.storing import EVERY_S, StoredTable

from .test_stored import HEAD, ROW, SHARED, window


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str], str]]:
    """What is displayed: whether anew, the data, and the id."""
    shown: list[tuple[str, dict[str, str], str]] = []

    def noting(what: str) -> Any:
        return lambda data, *, raw, display_id: shown.append((what, data, display_id))

    monkeypatch.setattr(storing, "display", noting("new"))
    monkeypatch.setattr(storing, "update_display", noting("again"))
    return shown


def shared(clock_s: float = 100.0, cell: str | None = None) -> Any:
    return {**SHARED, "clock_s": clock_s, "head": {**HEAD, "cell": cell}}


def test_what_is_displayed_can_be_hidden_and_has_no_script(shown: list[Any]) -> None:
    StoredTable("e").show(shared(), window({**ROW, "name": "<script>"}), 1)

    [(_, data, _)] = shown
    assert '<div class="loopnb-of-e">' in data["text/html"]
    assert "<script>" not in data["text/html"]
    assert "<script>" in data["text/plain"]


def test_it_is_stored_again_after_a_cell_and_not_while_one_runs() -> None:
    table = StoredTable("e")
    assert not table.is_due(shared(200.0), 5)  # it was never displayed
    table.show(shared(), window(ROW), 1)

    assert not table.is_due(shared(200.0), 1)
    assert not table.is_due(shared(200.0, cell="In[2]"), 2)
    assert not table.is_due(shared(100.0 + EVERY_S / 2), 2)
    assert table.is_due(shared(100.0 + EVERY_S), 2)


def test_it_is_updated_only_if_it_says_something_else(shown: list[Any]) -> None:
    table = StoredTable("e")
    table.show(shared(), window(ROW), 1)
    table.store_again(shared(200.0), window(ROW), 2)  # only the age is another
    assert [what for what, _, _ in shown] == ["new"]
    assert not table.is_due(shared(300.0), 2)
    table.store_again(shared(300.0), window({**ROW, "name": "other"}), 3)

    assert [what for what, _, _ in shown] == ["new", "again"]
    assert "other" in shown[1][1]["text/html"]
    assert shown[0][2] == shown[1][2]
