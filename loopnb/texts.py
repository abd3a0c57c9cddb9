"""Write lines for the user, and describe objects whose own `str` or `repr` may fail."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Write `loopnb: ` and *line* to standard error, in the output of the caller's cell. Any thread."""
    sys.stderr.write(f"loopnb: {line}\n")
    sys.stderr.flush()


def error_text(error: BaseException | None) -> str:
    """Return *error* in one line, `ValueError: too long`. Empty for None.

    The user's `__str__` may raise, or return a very long text. This function then returns a short one.
    """
    if error is None:
        return ""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001  the user's code
        text = "(its text cannot be made)"
    kind = type(error).__name__
    return f"{kind}: {text[:200]}" if text else kind


def repr_text(value: object, most: int) -> str:
    """Return the repr of *value*, at most *most* characters of it. The user's `__repr__` may raise."""
    try:
        return repr(value)[:most]
    except Exception:  # noqa: BLE001  the user's code
        return f"<{type(value).__name__}, whose repr fails>"


def unquoted(text: str) -> str:
    """Return *text* without the quotes around it, if one pair encloses all of it."""
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if is_quoted else text
