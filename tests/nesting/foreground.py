"""Stacks that a user is waiting for, without a shell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection


class WaitingUser:
    """A `Foreground`: a user waits for some tasks, and interrupts cancel what they wait for.

    Args:
        tasks: The tasks.

    Attributes:
        changes: +1 for each stack that was parked, -1 for each that went on.
    """

    def __init__(self, tasks: Collection[asyncio.Task[Any]]) -> None:
        self._tasks = tasks
        self.changes: list[int] = []

    def is_awaited(self, task: asyncio.Task[Any]) -> bool:
        return task in self._tasks

    def stack_parked(self) -> None:
        self.changes.append(+1)

    def stack_resumed(self) -> None:
        self.changes.append(-1)

    def cancel(self, future: asyncio.Future[Any]) -> None:
        future.cancel()

    def finish(self, _future: asyncio.Future[Any]) -> bool:
        return False

    def take_fatal(self, _error: BaseException) -> bool:
        return False

    def loop_set_aside(self) -> None:
        """Do nothing: nothing was asked."""
