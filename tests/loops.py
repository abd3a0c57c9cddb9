"""A loop that waits for nothing, and turns of any loop."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


async def turns(count: int = 10) -> None:
    """Let the loop make *count* passes. Ten are enough for a task to begin and to park in a nested run."""
    for _ in range(count):
        await asyncio.sleep(0)


class FastLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Return the loop's own time."""
        return self.now

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """End the threads of `to_thread()`, without a time limit: that would be over at once."""
        await super().shutdown_default_executor()

    def pass_time(self, seconds: float) -> None:
        """Run the loop until *seconds* of its time have passed."""
        self.run_until_complete(asyncio.sleep(seconds))


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: FastLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        self._loop.now += timeout or 0.0
        return super().select(0)
