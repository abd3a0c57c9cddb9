"""A frame as text, and the source of what it runs."""

from __future__ import annotations

import ast
import linecache
from typing import NamedTuple

from loopnb._cpython import parse


class Frame(NamedTuple):
    """One frame of a stack, without the frame.

    Attributes:
        filename: The file name of its code.
        function: The qualified name of its function.
        line: The line that runs.
        instruction: The byte offset of the instruction that runs.
        is_coroutine: It belongs to a coroutine or an async generator.
        span: First and last line, first and last column of what runs. Known only for the innermost frame and
            for the user's innermost one; else None.
    """

    filename: str
    function: str
    line: int
    instruction: int
    is_coroutine: bool = False
    span: tuple[int, int, int, int] | None = None


def source_of(frame: Frame) -> str:
    """Return the source of what runs in *frame*, in one line; "" if unknown. May read a file."""
    line = linecache.getline(frame.filename, frame.line).strip()
    if frame.span is None:
        return _shortened(line)
    first, last, start, end = frame.span
    rows = [linecache.getline(frame.filename, number) for number in range(first, min(last, first + 20) + 1)]
    if not any(rows):
        return ""
    # Columns count bytes of UTF-8.
    if last == first:
        text = rows[0].encode()[start:end].decode(errors="replace")
    else:
        text = "".join((rows[0].encode()[start:].decode(errors="replace"), *rows[1:-1]))
        text += rows[-1].encode()[:end].decode(errors="replace")
    text = " ".join(text.split())
    if line.startswith(("with ", "async with ")) and not text.startswith("with "):
        return _shortened(line.rstrip(":"))
    return _shortened(text)


_LONGEST = 80


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def callee(call: str) -> str:
    """Return what a call calls: `time.sleep()` for `time.sleep(5)`. Other text comes back as it is."""
    try:
        (statement,) = parse(call).body
    except (SyntaxError, ValueError):  # it is cut, or several statements or none
        return call
    parsed = statement.value if isinstance(statement, ast.Expr) else None
    if isinstance(parsed, ast.Await):
        parsed = parsed.value
    return f"{ast.unparse(parsed.func)}()" if isinstance(parsed, ast.Call) else call
