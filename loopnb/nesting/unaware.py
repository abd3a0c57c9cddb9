"""Cancel requests to parked tasks of a class that cannot tell us of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loopnb.internals.cancel_flag import cancel_message, clear_cancel_flag, has_cancel_flag
from loopnb.internals.tasks import LoopTask

if TYPE_CHECKING:
    import asyncio

    from loopnb.nesting.waits import Wait


class UnawareTasks:
    """The waits of tasks born before nesting, or under somebody else's task factory.

    `LoopTask.cancel` knows that its task is parked. Another task's only leaves a note in it, so
    the notes of these few are looked at after each pass.
    """

    def __init__(self) -> None:
        self.seen: dict[Wait, int] = {}

    def __bool__(self) -> bool:
        return bool(self.seen)

    def enrol(self, wait: Wait, task: asyncio.Task[Any]) -> None:
        """Watch *wait*, whose *task* is parked, if need be."""
        if isinstance(task, LoopTask):
            task.parked = wait
        else:
            self.seen[wait] = task.cancelling()
        if has_cancel_flag(task):
            # As with `await`: what is waited for is cancelled as soon as it has begun.
            _deliver(wait, task)

    def forget(self, wait: Wait, task: asyncio.Task[Any]) -> None:
        """Watch *wait* of *task* no more."""
        if isinstance(task, LoopTask):
            del task.parked
        else:
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
            _deliver(wait, wait.task)


def _deliver(wait: Wait, task: asyncio.Task[Any]) -> None:
    message = cancel_message(task)
    clear_cancel_flag(task)
    wait.cancel(message)
