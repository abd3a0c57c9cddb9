"""Keep a table above the live view, in an output of its own, for readers of the saved notebook.

The wish. The table is stored with the notebook. Readers see it wherever there is no kernel, but not beside
the live view. It is updated while the view goes on.

What does not work. A widget may have HTML beside the view in one output. But JupyterLab prefers the view, and
shows "Error displaying widget: model not found" without its kernel. And updating that output builds the view
anew, which closes what the user has opened.

The solution. The table is an output of its own, before that of the view. While a view is in the page, a style
sheet of the view hides the tables of its session (`static/view.js`). A style sheet in the table's own HTML
hides JupyterLab's error below it. A notebook that is not trusted has no such sheet, but no error either:
JupyterLab makes no view there.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from IPython.display import display, update_display

from loopnb.widgets import stored

if TYPE_CHECKING:
    from loopnb.widgets.protocol import Shared, Window

EVERY_S = 2.0
"""The table is not stored twice within so many seconds."""

#: The class of an output, and that of the element in it that holds a view's error and nothing else: in
#: JupyterLab and Notebook 7, then in Notebook 6.
_ERRORS = (("jp-OutputArea-child", "jupyter-widgets"), ("output_area", "jupyter-widgets-view"))


class StoredTable:
    """The table of one widget in the notebook. The loop's thread.

    Args:
        epoch: Names the session, by letters and digits. While a view of it is in the page, the table is
            hidden.
    """

    def __init__(self, epoch: str) -> None:
        self._mark = f"loopnb-of-{epoch}"
        self._display_id = uuid.uuid4().hex
        self._said: tuple[Any, ...] | None = None  # what it says, without ages; None if it is shown nowhere
        self._cells_ended = 0
        self._due = 0.0

    def show(self, shared: Shared, window: Window, cells_ended: int) -> None:
        """Display the table in the current cell. Other places that show it are updated, too.

        Args:
            shared: The header.
            window: The rows.
            cells_ended: How many cells have ended.
        """
        self._note(shared, window, cells_ended)
        display(self._bundle(shared, window), raw=True, display_id=self._display_id)

    def is_due(self, shared: Shared, cells_ended: int) -> bool:
        """Return True if a cell has ended since it was stored, and none runs.

        A cell changes the notebook anyway. Storing the table at another time would make a notebook "unsaved"
        that the user has left alone.
        """
        is_shown = self._said is not None and shared["head"]["cell"] is None
        return is_shown and cells_ended != self._cells_ended and shared["clock_s"] >= self._due

    def store_again(self, shared: Shared, window: Window, cells_ended: int) -> None:
        """Update the table wherever it was displayed, if more than ages has changed."""
        before = self._said
        self._note(shared, window, cells_ended)
        if self._said != before:
            update_display(self._bundle(shared, window), raw=True, display_id=self._display_id)

    def _note(self, shared: Shared, window: Window, cells_ended: int) -> None:
        self._said = stored.gist(shared, window)
        self._cells_ended = cells_ended
        self._due = shared["clock_s"] + EVERY_S

    def _bundle(self, shared: Shared, window: Window) -> dict[str, str]:
        html = stored.html_of(shared, window)
        return {"text/html": _above_view(html, self._mark), "text/plain": stored.text_of(shared, window)}


def _above_view(html: str, mark: str) -> str:
    """Return *html* for the output above the view: a view can hide it, and it hides the view's error.

    Args:
        html: The table.
        mark: A class for it.
    """
    rules = (
        f".{output}:has(>*>.{mark})+.{output}:has(>.{view}):not(:has(>.{view}>*)){{display:none}}"
        for output, view in _ERRORS
    )
    return f'<style>{"".join(rules)}</style><div class="{mark}">{html}</div>'
