"""Leaving and re-entering the `contextvars.Context` objects that a stack is inside of."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from greenlet import getcurrent

if TYPE_CHECKING:
    from contextvars import Context

# Public C API without a Python name; checked on CPython 3.11.7, 3.12.1, 3.13.0 and 3.14.10.
_exit_context = ctypes.pythonapi.PyContext_Exit
_exit_context.argtypes = [ctypes.py_object]
_exit_context.restype = ctypes.c_int
_enter_context = ctypes.pythonapi.PyContext_Enter
_enter_context.argtypes = [ctypes.py_object]
_enter_context.restype = ctypes.c_int


def exit_contexts() -> list[Context]:
    """Leave every Context that the calling stack has entered, so that others may enter them.

    Returns:
        What was left, innermost first; give it to `enter_contexts` on the same stack.
    """
    this = getcurrent()
    left: list[Context] = []
    while (context := this.gr_context) is not None:
        try:
            _exit_context(context)
        except RuntimeError:
            # The context a thread starts with is in force without ever having been entered.
            break
        left.append(context)
    return left


def enter_contexts(left: list[Context]) -> None:
    """Enter again what `exit_contexts` left."""
    for context in reversed(left):
        _enter_context(context)
