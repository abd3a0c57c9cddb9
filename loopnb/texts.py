"""What is said of the user's objects, whose own `__str__` and `__repr__` may fail."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Write one line of loopnb's own to standard error."""
    sys.stderr.write(f"loopnb: {line}\n")
    sys.stderr.flush()


def error_text(error: BaseException | None) -> str:
    """Say an error in one line."""
    if error is None:
        return ""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001  the user's code
        text = "(its text cannot be made)"
    kind = type(error).__name__
    return f"{kind}: {text[:200]}" if text else kind


def repr_text(one: object, most: int) -> str:
    """Return the repr of *one*, at most so many characters."""
    try:
        return repr(one)[:most]
    except Exception:  # noqa: BLE001  the user's code
        return f"<{type(one).__name__}, whose repr fails>"
