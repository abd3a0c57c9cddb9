"""What `loopnb.show()` shows where there can be no widget."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

import loopnb.widgets

if TYPE_CHECKING:
    from tests.shells import Notebook


@pytest.mark.parametrize("missing", ["anywidget", "ipywidgets"])
def test_without_a_widget_show_gives_a_table_that_says_how_to_refresh_it(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for name in [name for name in sys.modules if name.split(".")[0] in {"anywidget", "ipywidgets"}]:
        if name != missing:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "loopnb.widgets.model", raising=False)
    monkeypatch.delattr(loopnb.widgets, "model", raising=False)
    shown: list[dict[str, str]] = []

    def display(table: Any) -> None:
        shown.append(table._repr_mimebundle_())

    monkeypatch.setattr("IPython.display.display", display)

    notebook.run(
        """
        task = asyncio.create_task(asyncio.sleep(60), name="feed")
        loopnb.show()
        task.cancel()
        """
    )

    assert set(shown[0]) == {"text/html", "text/plain"}
    for text in shown[0].values():
        assert "feed" in text
        assert f"not live: import of {missing} halted; None in sys.modules. Run the cell again" in text
