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
        seen: Those waits, each with such tasks and their counts of cancel requests when last looked at.
            A creator of an eager task is one as well, whatever its class.

    `LoopTask.cancel` knows that its task is parked. Another task's only leaves a note in it, so
    the notes of these few are looked at after each pass.
    """

    def __init__(self) -> None:
        self.seen: dict[Wait, dict[asyncio.Task[Any], int]] = {}

    def enrol(self, wait: Wait, task: asyncio.Task[Any]) -> None:
        """Watch *task*, whose stack is parked in *wait*."""
        self.seen.setdefault(wait, {})[task] = task.cancelling()

    def forget(self, wait: Wait) -> None:
        """Watch *wait* no more."""
        self.seen.pop(wait, None)

    def poll(self) -> None:
        """Deliver what has been noted since the last time."""
        for wait in list(self.seen):
            self.look_at(wait)

    def look_at(self, wait: Wait) -> None:
        """Deliver what has been noted for *wait*, if it is one of these."""
        tasks = self.seen.get(wait, {})
        for task, seen in tuple(tasks.items()):
            now = task.cancelling()
            # Where the note cannot be taken back it stays, and the count alone tells a new one.
            if now != seen:
                tasks[task] = now
            if task is not wait.task:
                if now > seen:
                    wait.cancel(cancel_message(task))  # and the note stays: it is not this wait's task's
            elif has_cancel_flag(task) and (now > seen or clear_cancel_flag(task)):
                deliver_noted(wait, task)


def deliver_noted(wait: Wait, task: asyncio.Task[Any]) -> None:
    """Have *wait* end in the cancel request that its *task* has noted in the middle of its step."""
    message = cancel_message(task)
    clear_cancel_flag(task)
    wait.cancel(message)
