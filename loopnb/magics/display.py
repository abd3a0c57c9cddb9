"""Make the widget of a session, and display it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loopnb import session

if TYPE_CHECKING:
    from loopnb.records import Snapshot
    from loopnb.session import Session
    from loopnb.widget.model import LoopWidget


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


def make_widget(of: Session) -> LoopWidget:
    """Return a new widget that shows the tasks of a session. The loop's thread."""
    # Imported late: anywidget and ipywidgets take longer to import than all of the rest.
    from loopnb.widget.model import LoopWidget
    from loopnb.widget.protocol import MAX_ROWS

    return LoopWidget(SessionsTasks(of, MAX_ROWS), of.loop)


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
