"""What a cell may have left damaged, noticed after it, mended and told once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from loopnb.loop import _cpython as _cpython_loop
from loopnb.nesting import _cpython

if TYPE_CHECKING:
    from collections.abc import Callable


class Healer:
    """Mends the persistent loop's surroundings after each cell.

    Args:
        loop: The persistent loop.
        warn: Shows a warning in the cell that has ended.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, warn: Callable[[str], None]) -> None:
        self._loop = loop
        self._warn = warn
        self._policy = _cpython.current_policy()

    def after_cell(self) -> None:
        """Look at what user code may have changed. The loop's thread."""
        if _cpython_loop.mend_default_executor(self._loop):
            self._warn(
                "The loop's default executor had been shut down; it will make a new one when "
                "asyncio.to_thread() or run_in_executor() next needs it."
            )
        _cpython_loop.mend_signal_handlers(self._loop)
        if _cpython_loop.loop_set_here() not in (None, self._loop):
            asyncio.set_event_loop(self._loop)

    def notes(self) -> tuple[str, ...]:
        """Return what `%loopnb` should say: the policy, if it has been changed. Any thread."""
        policy = _cpython.current_policy()
        if policy is self._policy:
            return ()
        kind = f"{type(policy).__module__}.{type(policy).__name__}"
        return (
            f"the event loop policy has been set to {kind}: loops made from now on are its; this one stays",
        )
