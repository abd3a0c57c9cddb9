"""Frames and tracebacks: which are this package's own, and how to leave them out."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import sysconfig
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType, TracebackType

_MAY_GO_ON = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

#: The folder of this package.
PACKAGE = os.path.dirname(__file__) + os.sep


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


_STDLIB_FOLDER = sysconfig.get_path("stdlib") + os.sep


def is_users(code: CodeType) -> bool:
    """Say whether *code* is neither the standard library's nor this package's."""
    filename = code.co_filename
    if filename.startswith("<frozen") or is_ours(filename):
        return False
    return not filename.startswith(_STDLIB_FOLDER) or "site-packages" in filename


_ASYNCIO = os.path.dirname(asyncio.__file__) + os.sep

_STDLIB = os.path.dirname(os.__file__) + os.sep
_HIDDEN = (PACKAGE, _ASYNCIO, _STDLIB + "contextlib.py")


def users_frames(tb: TracebackType | None) -> TracebackType | None:
    """Return *tb* without the frames of this package that it begins with, or that are all of it.

    An interrupt may be raised anywhere in here, and in what is called from here: then it ends where the
    user has called us.
    """
    users = without_frames_of(tb, is_ours)
    frame, was_ours = users, False
    while frame is not None and _is_nobodys(filename := frame.tb_frame.f_code.co_filename):
        was_ours = was_ours or is_ours(filename)
        frame = frame.tb_next
    return None if frame is None and was_ours else users


def _is_nobodys(filename: str) -> bool:
    if filename.startswith((PACKAGE, "<frozen ")):
        return True
    return filename.startswith(_STDLIB) and "site-packages" not in filename


def without_loops_frames(tb: TracebackType | None) -> TracebackType | None:
    """Return *tb* without the frames of this package and of asyncio that it begins with."""
    return without_frames_of(tb, lambda filename: filename.startswith(_HIDDEN))


def place_outside_asyncio() -> tuple[str, int]:
    """Return file and line of the innermost frame that is neither ours nor asyncio's."""
    frame: FrameType | None = calling_frame(1)
    while frame is not None and frame.f_code.co_filename.startswith(_HIDDEN):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("?", 0)


#: Stands for the file of code that the loop itself has called, such as `loop.call_later(1, loop.stop)`.
_NOBODYS = "?"


def users_place() -> tuple[str, int]:
    """Return file and line of the innermost frame that a user wrote or installed."""
    frame = calling_frame(1)
    while frame is not None and not is_users(frame.f_code):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else (_NOBODYS, 0)
