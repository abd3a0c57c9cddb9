"""A value that each Context has for itself, with the newest one for threads."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any


class ByContext:
    """A value that each Context has for itself.

    Args:
        newest: The value of the calling Context at first; empty while the kernel starts.
    """

    def __init__(self, newest: Any) -> None:
        self._here: ContextVar[Any] = ContextVar("parent")
        if newest:
            self._here.set(newest)

    def get(self, newest: Any) -> Any:
        """Return the calling Context's value. Where none was set, as in threads, return *newest*."""
        return self._here.get(newest)

    def set(self, value: Any) -> None:
        """Set the calling Context's value."""
        self._here.set(value)
