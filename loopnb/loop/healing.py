"""Find what a cell has left damaged, repair it after the cell, and say so once."""

from __future__ import annotations

import asyncio

from loopnb.loop._cpython import loop_set_here, mend_default_executor, mend_signal_handlers
from loopnb.nesting._cpython import current_policy
from loopnb.nesting.no_loop import end_view, mend_running_loop


class Healer:
    """Mends the persistent loop's surroundings. The loop's thread, unless said otherwise.

    Args:
        loop: The persistent loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._policy = current_policy()

    def mend(self) -> list[str]:
        """Undo what user code has done to the running loop, executor, signal handlers and `get_event_loop()`.

        Returns:
            What the user should know about it, each a sentence.
        """
        said = []
        end_view()
        if mend_running_loop(self._loop):
            said.append(
                "The cell has left another event loop marked as running, as Playwright's sync API does. The "
                "notebook's loop goes on. Put %%noloop on top of each cell that uses that library, and each "
                "await into another cell."
            )
        if mend_default_executor(self._loop):
            said.append(
                "The loop's default executor had been shut down; it will make a new one when "
                "asyncio.to_thread() or run_in_executor() next needs it."
            )
        mend_signal_handlers(self._loop)
        if loop_set_here() not in (None, self._loop):
            asyncio.set_event_loop(self._loop)
        return said

    def notes(self) -> tuple[str, ...]:
        """Return a note for `%loopnb` if the event loop policy has been changed. Any thread."""
        policy = current_policy()
        if policy is self._policy:
            return ()
        kind = f"{type(policy).__module__}.{type(policy).__name__}"
        return (f"the event loop policy has been set to {kind}: new loops come from it, and this one stays",)
