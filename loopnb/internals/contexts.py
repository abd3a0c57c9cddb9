"""Leaving and re-entering the `contextvars.Context` objects that a stack is inside of."""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from typing import TYPE_CHECKING

from loopnb.internals.greenlets import getcurrent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextvars import Context

    from greenlet import greenlet

# Public C API without a Python name; checked on CPython 3.11.7, 3.12.1, 3.13.0 and 3.14.10.
_exit_context = ctypes.pythonapi.PyContext_Exit
_exit_context.argtypes = [ctypes.c_void_p]  # with the `id`, in two thirds of the time of py_object
_exit_context.restype = None  # an error is raised without looking at it
_enter_context = ctypes.pythonapi.PyContext_Enter
_enter_context.argtypes = [ctypes.c_void_p]
_enter_context.restype = None


# A signal handler may raise in here. CPython looks for signals when a call ends, when a function
# begins and at a jump backwards. So there is none of these between the lines that say what is to be
# entered again and the calls that make it so.


def leave(this: greenlet, left: list[Context]) -> None:
    """Leave every Context that *this*, the calling stack, is inside of. Others may enter them then.

    Args:
        this: The stack.
        left: What to `enter` again, on the same stack, is added here; the innermost comes first.
    """
    while (context := this.gr_context) is not None:
        address = id(context)
        left += [context]
        try:
            _exit_context(address)
        except RuntimeError:
            # The context a thread starts with is in force without ever having been entered.
            del left[-1]
            break


def enter(left: list[Context]) -> None:
    """Enter again what the calling stack has left, and take it off the list."""
    while left:
        context = left[-1]
        address = id(context)
        del left[-1]
        _enter_context(address)


class LeftBelow:
    """The Contexts of the greenlets that the calling one stands on. Others may enter them until `enter`.

    A greenlet that somebody else started on a stack has Contexts of its own; those below it stay
    entered, so they are left, too.
    """

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: list[tuple[greenlet, list[Context]]] = []

    def leave(self, outermost: type[greenlet]) -> None:
        """Leave them, but for those below a stack of the class *outermost*: only a pass is there."""
        this = below = getcurrent()
        while not isinstance(below, outermost) and (below := below.parent) is not None:
            if below.gr_context is not None:
                self._left.append((below, []))
                with _in_place_of(this, below):
                    leave(this, self._left[-1][1])

    def enter(self) -> None:
        """Enter them again. On the same stack."""
        while self._left:
            below, left = self._left[-1]
            with _in_place_of(getcurrent(), below):
                enter(left)
            self._left.pop()


@contextmanager
def _in_place_of(this: greenlet, below: greenlet) -> Iterator[None]:
    # The C API leaves the Context in force, so those of another stack are put in force for this.
    own, this.gr_context = this.gr_context, below.gr_context
    try:
        yield
    finally:
        below.gr_context, this.gr_context = this.gr_context, own
