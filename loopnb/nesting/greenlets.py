"""greenlet, or stand-ins, so that the other modules can be imported where greenlet is missing.

In that case `scope.attach` refuses and names `why_missing`, so no stand-in is ever used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextvars import Context

    from greenlet import GreenletExit, getcurrent, greenlet, settrace

    why_missing: str | None
else:
    try:
        from greenlet import GreenletExit, getcurrent, greenlet, settrace

        why_missing = None
    except ImportError as error:
        why_missing = str(error)

        class greenlet:
            """Stands in for the class that `Driver` inherits from."""

            def switch(self) -> Any:
                """Is never called."""

        class GreenletExit(BaseException):
            """Is never raised."""

        def getcurrent() -> Any:
            """Is never called."""
            raise ImportError(why_missing)

        def settrace(_callback: Any) -> Any:
            """Is never called."""


class Driver(greenlet):  # type: ignore[misc]  # greenlet is untyped
    """A greenlet that turns a loop. Its class tells it from the stacks of users and libraries."""


def current_context() -> Context | None:
    """Return the Context in force, and not a copy. None without greenlet, or where none was ever entered."""
    if why_missing is not None:
        return None
    context: Context | None = getcurrent().gr_context
    return context


__all__ = ["Driver", "GreenletExit", "current_context", "getcurrent", "greenlet", "settrace", "why_missing"]
