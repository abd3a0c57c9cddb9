"""Loops that were closed: what is bound to one says where that was."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from loopnb.internals import closed_loops
from loopnb.internals.patching import ImportWatch, MethodWrapper, PatchSet

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


class ClosedLoops:
    """Remembers where other loops were closed, and says so when one is used.

    Limits: what uvloop's transports refuse in C has no note. A package's own error that stands for
    asyncio's, such as asyncpg's InterfaceError, has none; the one it was raised from has. On 3.11 the
    ValueError of `wait_for()` has none, nor has the error of a future with a `__repr__` of its own.

    Args:
        place: Returns the user's place in the code that runs now, such as `In[3], line 4`.
    """

    def __init__(self, place: Callable[[], str]) -> None:
        self._place = place
        self._closed_at: WeakKeyDictionary[asyncio.AbstractEventLoop, str] = WeakKeyDictionary()
        self._wrappers = [MethodWrapper(asyncio.BaseEventLoop, "close", self._close)]
        self._uvloop = ImportWatch({"uvloop": self._watch_uvloop})
        self._used = PatchSet(
            closed_loops.annotate_bound(self._annotate),
            closed_loops.annotate_awaited(self._closed_at.__contains__, self._annotate),
        )

    def start(self) -> None:
        """Remember closed loops from now on."""
        self._wrappers[0].install()
        self._uvloop.install()

    def stop(self) -> None:
        """Forget all of it, and leave the closed loops as they were."""
        self._uvloop.restore()
        for wrapper in self._wrappers:
            wrapper.restore()
        del self._wrappers[1:]
        self._used.restore()
        for loop in list(self._closed_at):
            closed_loops.forget_closed(loop)

    def where(self, loop: asyncio.AbstractEventLoop) -> str:
        """Return where *loop* was closed ("" if that went unseen: by C code, or before we came)."""
        return self._closed_at.get(loop, "")

    def _watch_uvloop(self, module: ModuleType) -> None:
        self._wrappers.append(MethodWrapper(module.Loop, "close", self._close))
        self._wrappers[-1].install()

    def _close(self, close_loop: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        was_closed = loop.is_closed()
        close_loop()
        if loop.is_closed() and not was_closed:
            self._remember(loop)

    def _remember(self, loop: asyncio.AbstractEventLoop) -> None:
        self._closed_at[loop] = where = self._place()
        closed_loops.annotate_closed(loop, partial(_add_note, type(loop).__name__, where))
        self._used.install()  # not before there is a closed loop

    def _annotate(self, loop: asyncio.AbstractEventLoop, error: RuntimeError) -> None:
        where = self._closed_at.get(loop)
        if where is not None:
            _add_note(type(loop).__name__, where, error)


def _add_note(kind: str, where: str, error: RuntimeError) -> None:
    text = (
        f"This object belongs to another event loop, a {kind}, which was closed at {where}. "
        "The notebook's own loop is open: create the object again in a new cell, "
        "with `await` or asyncio.run()."
    )
    if text not in getattr(error, "__notes__", ()):
        error.add_note(text)
