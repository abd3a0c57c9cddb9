"""What a cell may have left damaged, noticed after it, mended and told once."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from loopnb.internals import loop_health
from loopnb.internals.layers import MethodLayer
from loopnb.internals.patching import PatchSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType


class Healer:
    """Mends the persistent loop's surroundings after each cell.

    Args:
        loop: The persistent loop.
        warn: Shows a warning in the cell that has ended.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, warn: Callable[[str], None]) -> None:
        self._loop = loop
        self._warn = warn
        self._policy = loop_health.current_policy()

    def after_cell(self) -> None:
        """Look at what user code may have changed. The loop's thread."""
        if loop_health.mend_default_executor(self._loop):
            self._warn(
                "The loop's default executor had been shut down; it will make a new one when "
                "asyncio.to_thread() or run_in_executor() next needs it."
            )
        if loop_health.loop_set_here() not in (None, self._loop):
            asyncio.set_event_loop(self._loop)

    def notes(self) -> tuple[str, ...]:
        """Return what `%loopnb` should say: the policy, if it has been changed. Any thread."""
        policy = loop_health.current_policy()
        if policy is self._policy:
            return ()
        kind = f"{type(policy).__module__}.{type(policy).__name__}"
        return (
            f"the event loop policy has been set to {kind}: loops made from now on are its; this one stays",
        )


class ClosedLoops:
    """Remembers where other loops were closed, and says so when one is used.

    Limits: uvloop's loops cannot be patched. Asyncio's error for a task or future that was made while its
    loop was open, and is awaited on another one, has the note where IPython shows it, and of a future
    only if it has a name there. A package's own error that stands for it, such as asyncpg's
    InterfaceError, has none; the one it was raised from has.

    Args:
        place: Returns the user's place in the code that runs now, such as `In[3], line 4`.
    """

    def __init__(self, place: Callable[[], str]) -> None:
        self._place = place
        self._closed_at: WeakKeyDictionary[asyncio.AbstractEventLoop, str] = WeakKeyDictionary()
        self._layer = MethodLayer(asyncio.base_events.BaseEventLoop, "close", self._close)
        self._used = PatchSet(loop_health.annotate_futures(), loop_health.annotate_bound(self._annotate))

    def start(self) -> None:
        """Remember closed loops from now on."""
        self._layer.install()

    def stop(self) -> None:
        """Forget all of it, and leave the closed loops as they were."""
        self._layer.restore()
        self._used.restore()
        for loop in list(self._closed_at):
            loop_health.forget_closed(loop)

    def where(self, loop: asyncio.AbstractEventLoop) -> str:
        """Return where *loop* was closed ("" if that went unseen: by C code, or before we came)."""
        return self._closed_at.get(loop, "")

    def explain(self, error: BaseException | None) -> None:
        """Add the note to *error* if it is of a task or a future that a closed loop has left unfinished.

        Awaited on another loop, asyncio's error comes out of a C task, where nobody can see it pass.
        To be called before an error is shown.
        """
        if not isinstance(error, RuntimeError) or not str(error).endswith("attached to a different loop"):
            return
        text = str(error)
        for loop in list(self._closed_at):
            known = [*asyncio.all_tasks(loop), *_futures_in(error.__traceback__, loop)]
            if any(f"got Future {future!r} attached" in text for future in known):
                self._annotate(loop, error)

    def _close(self, close_loop: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        was_closed = loop.is_closed()
        close_loop()
        if loop.is_closed() and not was_closed:
            self._remember(loop)

    def _remember(self, loop: asyncio.AbstractEventLoop) -> None:
        self._closed_at[loop] = where = self._place()
        loop_health.annotate_closed(loop, partial(_add_note, type(loop).__name__, where))
        self._used.install()  # not before there is a closed loop: every future goes through one of these

    def _annotate(self, loop: asyncio.AbstractEventLoop, error: RuntimeError) -> None:
        where = self._closed_at.get(loop)
        if where is not None:
            _add_note(type(loop).__name__, where, error)


def _futures_in(
    tb: TracebackType | None, loop: asyncio.AbstractEventLoop
) -> Iterator[asyncio.Future[object]]:
    """Yield the futures of *loop* that the frames of *tb* have a name for."""
    while tb is not None:
        for value in list(tb.tb_frame.f_locals.values()):
            if issubclass(type(value), asyncio.Future) and value.get_loop() is loop:  # a proxy may raise
                yield value
        tb = tb.tb_next


def _add_note(kind: str, where: str, error: RuntimeError) -> None:
    text = (
        f"This object belongs to another event loop, a {kind}, which was closed at {where}. "
        "The notebook's own loop is open: create the object again in a new cell, "
        "with `await` or asyncio.run()."
    )
    if text not in getattr(error, "__notes__", ()):
        error.add_note(text)
