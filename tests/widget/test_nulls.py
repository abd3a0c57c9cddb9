"""Messages where None is no null: in Pyodide."""

from __future__ import annotations

from typing import Any

import pytest

from loopnb.widgets import nulls


@pytest.fixture
def null(monkeypatch: pytest.MonkeyPatch) -> object:
    """What Pyodide makes of null."""
    found = object()
    monkeypatch.setattr(nulls, "_null", found)
    return found


def test_elsewhere_a_message_is_sent_as_it_is() -> None:
    message: dict[str, Any] = {"op": "head", "head": {"cell": None}}

    assert nulls.to_view(message) is message
    assert nulls.from_view(message) is message


def test_none_is_null_for_the_view_and_null_is_none_for_the_kernel(null: object) -> None:
    told = {"wbase": None, "rows": {"t1": {"cell": None, "busy": 0}}, "bars": [{"to_s": None}], "text": ""}
    sent = {"wbase": null, "rows": {"t1": {"cell": null, "busy": 0}}, "bars": [{"to_s": null}], "text": ""}

    assert nulls.to_view(told) == sent
    assert nulls.from_view(sent) == told
    assert told["wbase"] is None, "the message itself was changed"
