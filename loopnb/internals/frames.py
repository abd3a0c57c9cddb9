"""Frames and tracebacks: which are this package's own, and how to leave them out."""

from __future__ import annotations

import inspect
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

_MAY_GO_ON = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

#: The folder of this package.
PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


def is_ours(filename: str) -> bool:
    """Say whether that file is this package's."""
    return filename.startswith(PACKAGE)


def calling_frame(depth: int) -> FrameType | None:
    """Return the frame of the *depth*-th caller of the caller (`sys._getframe`)."""
    return sys._getframe(depth + 1)


def frame_outside() -> FrameType | None:
    """Return the innermost frame that is not this package's: who has called us."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_ours(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def without_any_frames_of(
    tb: TracebackType | None, code_is_ours: Callable[[str], bool]
) -> TracebackType | None:
    """Return *tb* without any frame whose file *code_is_ours* says to hide."""
    kept: list[TracebackType] = []
    while tb is not None:
        if code_is_ours(tb.tb_frame.f_code.co_filename):
            _clear(tb.tb_frame)
        else:
            kept.append(tb)
        tb = tb.tb_next
    shown: TracebackType | None = None
    for entry in reversed(kept):
        entry.tb_next = shown
        shown = entry
    return shown


def without_frames_of(tb: TracebackType | None, code_is_ours: Callable[[str], bool]) -> TracebackType | None:
    """Return *tb* without its outermost frames whose file *code_is_ours* says to hide."""
    while tb is not None and code_is_ours(tb.tb_frame.f_code.co_filename):
        _clear(tb.tb_frame)
        tb = tb.tb_next
    return tb


def _clear(frame: FrameType) -> None:
    # The frame of a signal handler that has raised still knows it as its caller. What it refers to may
    # be a stack that in turn keeps the error, and the garbage collector does not look into stacks. Not so
    # a coroutine's, which may still go on: cleared, it would be closed.
    if is_ours(frame.f_code.co_filename) and not frame.f_code.co_flags & _MAY_GO_ON:
        with suppress(RuntimeError):  # it still executes
            frame.clear()
