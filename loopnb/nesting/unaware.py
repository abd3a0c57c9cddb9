"""Cancel requests to parked tasks of a class that cannot tell us of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loopnb.internals.cancel_flag import cancel_message, clear_cancel_flag, has_cancel_flag

if TYPE_CHECKING:
    import asyncio

    from loopnb.nesting.waits import Wait


class UnawareTasks:
    """The waits of tasks born before nesting, or under somebody else's task factory.

    Attributes:
        seen: Those waits, each with its task's count of cancel requests when last looked at.

    `LoopTask.cancel` knows that its task is parked. Another task's only leaves a note in it, so
    the notes of these few are looked at after each pass.
    """

    def __init__(self) -> None:
        self.seen: dict[Wait, int] = {}

    def enrol(self, wait: Wait, task: asyncio.Task[Any]) -> None:
        """Watch *wait*, whose *task* is parked."""
        self.seen[wait] = task.cancelling()

    def forget(self, wait: Wait) -> None:
        """Watch *wait* no more."""
        self.seen.pop(wait, None)

    def poll(self) -> None:
        """Deliver what has been noted since the last time."""
        for wait in list(self.seen):
            self.look_at(wait)

    def look_at(self, wait: Wait) -> None:
        """Deliver what has been noted for *wait*, if it is one of these."""
        seen = self.seen.get(wait)
        if seen is None or wait.task is None:
            return
        now = wait.task.cancelling()
        # Where the note cannot be taken back it stays, and the count alone tells a new one.
        if now != seen:
            self.seen[wait] = now
        if has_cancel_flag(wait.task) and (now > seen or clear_cancel_flag(wait.task)):
            deliver_noted(wait, wait.task)


def deliver_noted(wait: Wait, task: asyncio.Task[Any]) -> None:
    """Have *wait* end in the cancel request that its *task* has noted in the middle of its step."""
    message = cancel_message(task)
    clear_cancel_flag(task)
    wait.cancel(message)
