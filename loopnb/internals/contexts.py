"""Leaving and re-entering the `contextvars.Context` objects that a stack is inside of."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from loopnb.internals.greenlets import getcurrent

if TYPE_CHECKING:
    from contextvars import Context

    from greenlet import greenlet

# Public C API without a Python name; checked on CPython 3.11.7, 3.12.1, 3.13.0 and 3.14.10.
_exit_context = ctypes.pythonapi.PyContext_Exit
_exit_context.argtypes = [ctypes.c_void_p]  # with the `id`, in two thirds of the time of py_object
_exit_context.restype = ctypes.c_int
_enter_context = ctypes.pythonapi.PyContext_Enter
_enter_context.argtypes = [ctypes.c_void_p]
_enter_context.restype = ctypes.c_int


def leave(this: greenlet) -> list[Context]:
    """Leave every Context that *this*, the calling stack, is inside of. Others may enter them then.

    Returns:
        What to `enter` again, on the same stack; the innermost comes first.
    """
    left: list[Context] = []
    while (context := this.gr_context) is not None:
        try:
            _exit_context(id(context))
        except RuntimeError:
            # The context a thread starts with is in force without ever having been entered.
            break
        left.append(context)
    return left


def enter(left: list[Context]) -> None:
    """Enter again what the calling stack has left."""
    for context in reversed(left):
        _enter_context(id(context))


class LeftBelow:
    """The Contexts of the greenlets that the calling one stands on. Others may enter them until `enter`.

    A greenlet that somebody else started on a stack has Contexts of its own; those below it stay
    entered, so they are left, too.

    Args:
        outermost: The class of greenlet on which nothing stands but a pass of the loop.
    """

    __slots__ = ("_left",)

    def __init__(self, outermost: type[greenlet]) -> None:
        self._left: list[tuple[greenlet, list[Context]]] = []
        this = below = getcurrent()
        while not isinstance(below, outermost) and (below := below.parent) is not None:
            if below.gr_context is not None:
                self._left.append((below, _leave_in_place_of(this, below)))

    def enter(self) -> None:
        """Enter them again. On the same stack."""
        for below, left in reversed(self._left):
            this = getcurrent()
            own, this.gr_context = this.gr_context, below.gr_context
            enter(left)
            below.gr_context, this.gr_context = this.gr_context, own


def _leave_in_place_of(this: greenlet, below: greenlet) -> list[Context]:
    # The C API leaves the Context in force, so those of another stack are put in force for this.
    own, this.gr_context = this.gr_context, below.gr_context
    left = leave(this)
    below.gr_context, this.gr_context = this.gr_context, own
    return left
