"""Make the widget of a session, and display it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from loopnb import session

if TYPE_CHECKING:
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

    return LoopWidget(
        snapshot=partial(of.snapshot, MAX_ROWS),
        cancel=lambda number: f"cancelled {of.cancel_number(number).name}",
        loop=of.loop,
    )
