"""What the tracked tasks of these tests run."""

from __future__ import annotations


async def nothing() -> None:
    """Return at once."""


async def fail(text: str = "expected") -> None:
    """Fail at once."""
    raise ValueError(text)
