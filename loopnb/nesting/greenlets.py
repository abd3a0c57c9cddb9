"""greenlet, or where it cannot be imported, what lets the other modules be imported all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from greenlet import GreenletExit, getcurrent, greenlet, settrace

    why_missing: str | None
else:
    try:
        from greenlet import GreenletExit, getcurrent, greenlet, settrace

        why_missing = None
    except ImportError as error:
        why_missing = str(error)

        class greenlet:
            """Stands in for a class whose instances are never made: see `scope.attach`."""

            def switch(self) -> Any:
                """Is never called."""

        class GreenletExit(BaseException):
            """Is never raised."""

        def getcurrent() -> Any:
            """Is never called."""
            raise ImportError(why_missing)

        def settrace(_callback: Any) -> Any:
            """Is never called."""


__all__ = ["GreenletExit", "getcurrent", "greenlet", "settrace", "why_missing"]
