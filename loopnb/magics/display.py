"""Make the widgets of a session, and display them."""

from __future__ import annotations

import time
from html import escape
from typing import TYPE_CHECKING

from loopnb import session
from loopnb.kernel._ipykernel import is_run_by_program
from loopnb.widgets import stored
from loopnb.widgets.monitor import Monitor
from loopnb.widgets.protocol import Query

if TYPE_CHECKING:
    from loopnb.records import Finding, LoopState
    from loopnb.session import Session, Widget
    from loopnb.tracking.tracker import Tracker
    from loopnb.watch.watch import Watch


LEAST_HEIGHT = 100
"""The least height of a widget, in CSS pixels: the header and two rows."""


def current_widget(what: str, *, height: int | None = None, group: bool = True) -> Widget:
    """Return the widget of the session that is loaded. The loop's thread.

    Args:
        what: The public function that asks for it, for the error.
        height: As for `loopnb.show`.
        group: As for `loopnb.show`.

    Raises:
        NotLoadedError: No session is loaded.
        ValueError: *height* is below 100.
    """
    if height is not None and height < LEAST_HEIGHT:
        raise ValueError(f"height is {height!r}; it takes CSS pixels from {LEAST_HEIGHT} on, or None.")
    return session.current(what).widget(height=height, group=group)


def display_widget(widget: Widget) -> None:
    """Display *widget* in the current cell. The loop's thread.

    If a program runs the notebook, this displays only the table, which needs no kernel. Otherwise readers of
    the saved notebook would see an empty widget, or none without a network.
    """
    from IPython import get_ipython

    if is_run_by_program(get_ipython()):
        widget.show_table()
    else:
        widget.show()


def make_widget(of: Session, height: int | None, group: bool) -> Widget:
    """Return a new widget that shows the tasks of a session, or a table if there can be no widget.

    The loop's thread.
    """
    source = SessionsSource(of)
    try:
        # Import it late: anywidget and ipywidgets take longer to import than everything else.
        from loopnb.widgets.model import LoopWidget
    except ImportError as error:  # the user has uninstalled one of them, or the host has an odd version
        return Table(source, str(error))
    return LoopWidget(source, of.loop, height=height, group=group)


class Table:
    """Stands in for the widget where anywidget or ipywidgets cannot be imported. The loop's thread.

    Args:
        source: What it shows.
        why: Why there is no widget, as a clause.
    """

    fault: str | None = None

    def __init__(self, source: SessionsSource, why: str) -> None:
        self._source = source
        self._note = (
            f"This table is not live: {why}. Run the cell again to refresh it, or run "
            "'%pip install anywidget ipywidgets' and '%reload_ext loopnb' for the widget."
        )

    def end(self, why: str) -> None:
        """Do nothing, since the table is text on a page."""

    def show(self) -> None:
        """Display it in the current cell."""
        from IPython.display import display

        display(self)

    show_table = show

    def _repr_mimebundle_(self, **_kwargs: object) -> dict[str, str]:
        """Return the table as of now, and a line that says how to refresh it."""
        monitor = Monitor(self._source, _send_nowhere, time.monotonic)
        monitor.look_at_once()
        shared, window = monitor.shared, monitor.window_of(Query())
        monitor.rest()
        return {
            "text/html": f"{stored.html_of(shared, window)}<div>{escape(self._note)}</div>",
            "text/plain": f"{stored.text_of(shared, window)}\n\n{self._note}",
        }


def _send_nowhere(_message: object) -> None: ...


class SessionsSource:
    """A session as a widget sees it: its `Source`. The loop's thread, unless it says otherwise.

    Args:
        session: The session.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def epoch(self) -> str:
        """Names the session. Any thread."""
        return self._session.epoch

    @property
    def tracker(self) -> Tracker:
        """Knows the tasks."""
        return self._session.tracker

    @property
    def watch(self) -> Watch:
        """Watches the loop. Any thread."""
        return self._session.watch

    def loop_state(self) -> LoopState:
        """Return the loop's state, at once. Any thread."""
        return self._session.loop_state(looks_closely=False)

    def cell_since(self) -> float | None:
        """Return when the cell that executes began, in monotonic seconds. Any thread."""
        return self._session.cell_since

    @property
    def cells_ended(self) -> int:
        """How many cells have ended. Any thread."""
        return self._session.cells_ended

    def findings(self) -> list[Finding]:
        """Return what the doctor knows, worst first. It may take some milliseconds."""
        return self._session.findings()
