"""Make the widget of a session, and display it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from loopnb import session, views

if TYPE_CHECKING:
    from loopnb.records import Snapshot
    from loopnb.session import Session, Widget


def show_widget() -> None:
    """Display the widget of the session that is loaded, in the current cell. The loop's thread.

    Raises:
        NotLoadedError: No session is loaded.
    """
    display_widget(session.current("show"))


def display_widget(of: Session) -> None:
    """Display the widget of a session in the current cell. The loop's thread."""
    from IPython.display import display

    display(of.widget())


def make_widget(of: Session) -> Widget:
    """Return a new widget that shows the tasks of a session, or a table if there can be no widget.

    The loop's thread.
    """
    from loopnb.widget.protocol import MAX_ROWS

    tasks = SessionsTasks(of, MAX_ROWS)
    try:
        # Imported late: anywidget and ipywidgets take longer to import than all of the rest.
        from loopnb.widget.model import LoopWidget
    except ImportError as error:  # the user has uninstalled one of them, or the host has an odd version
        return Table(tasks, str(error))
    return LoopWidget(tasks, of.loop)


class Table:
    """Stands in for the widget where anywidget or ipywidgets cannot be imported. The loop's thread.

    Args:
        tasks: The tasks that it shows.
        why: Why there is no widget, as a clause.
    """

    fault: str | None = None

    def __init__(self, tasks: SessionsTasks, why: str) -> None:
        self._tasks = tasks
        self._note = (
            f"This table is not live: {why}. Run the cell again to refresh it, or run "
            "'%pip install anywidget ipywidgets' and '%reload_ext loopnb' for the widget."
        )

    def close(self) -> None:
        """Do nothing, since the table is text on a page."""

    def _repr_mimebundle_(self, **_kwargs: object) -> dict[str, str]:
        """Return what is to be seen now, and say how to refresh it."""
        now = self._tasks.snapshot()
        return {
            "text/html": f"{views.snapshot_html(now)}<div>{escape(self._note)}</div>",
            "text/plain": f"{views.status_text(now)}\n\n{views.tasks_text(now)}\n\n{self._note}",
        }


class SessionsTasks:
    """The tasks of a session, as a widget shows them: its `ShownTasks`. The loop's thread.

    Args:
        session: The session.
        most: How many tasks are shown at most.
    """

    def __init__(self, session: Session, most: int) -> None:
        self._session = session
        self._most = most

    def snapshot(self) -> Snapshot:
        """Return the loop's state and its live tasks."""
        return self._session.snapshot(self._most)

    def cancel(self, number: int) -> str:
        """Cancel the live task with this number, and say so."""
        return f"cancelled {self._session.cancel_number(number).name}"
