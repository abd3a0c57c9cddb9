"""The widget of the session, made when it is first shown."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from loopnb import session

if TYPE_CHECKING:
    from loopnb.session import Session

_widgets: WeakKeyDictionary[Session, Any] = WeakKeyDictionary()


def show_widget() -> None:
    """Display the session's widget in the current cell."""
    from IPython.display import display

    display(_widget_of(session.current("show")))


def widget_fault(of: Session) -> str | None:
    """Return why the widget of a session has stopped; None if it has not."""
    widget = _widgets.get(of)
    return None if widget is None else widget.fault


def close_widget(of: Session) -> None:
    """Close the widget of a session that ends, if it was ever shown."""
    widget = _widgets.pop(of, None)
    if widget is not None:
        widget.close()


def _widget_of(of: Session) -> Any:
    # Imported late: anywidget and ipywidgets take longer to import than all of the rest.
    from loopnb.widget.model import LoopWidget
    from loopnb.widget.protocol import MAX_ROWS

    if of not in _widgets:
        _widgets[of] = LoopWidget(
            snapshot=partial(of.snapshot, MAX_ROWS),
            cancel=lambda number: f"cancelled {of.cancel_number(number).name}",
            loop=of.loop,
        )
    return _widgets[of]
