"""Tell how tasks go on that were asked to end: they clean up, or they refuse.

A cancelled task that still lives has had a CancelledError raised in it, or is about to. While it cleans up,
in a `finally`, an `except` or the end of an `async with`, that error stays on the stack of one of its
coroutines. If the error is on none of them and the task waits for something new, the task has swallowed it.

The loop's thread. Nothing here keeps a task or an error alive.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from loopnb.nesting.loop_task import cancel_requests
from loopnb.tracking._cpython import held_by
from loopnb.tracking.chains import chain_of
from loopnb.tracking.holding import end_task, is_held
from loopnb.widgets.table import STATES, LiveTask

if TYPE_CHECKING:
    from loopnb.records import TaskRecord

#: How many tasks are remembered as asked to end.
_REMEMBERED = 10_000
#: How many different askers are remembered for each task.
_ASKERS = 3


class _Asked(NamedTuple):
    """How often a task was asked to end, and when last, in monotonic seconds."""

    times: int
    at: float


class Cancels:
    """Asks tasks to end, and says how they go on then. The loop's thread."""

    def __init__(self) -> None:
        self._asked: dict[int, _Asked] = {}
        self._by: dict[int, Counter[str]] = {}  # who has asked, also of tasks that have ended

    def end(self, number: int, task: asyncio.Task[Any], now: float, known: set[int]) -> None:
        """Ask *task* to end, for a click. A task of `loopnb.hold()` releases what it holds first.

        Args:
            number: Its number.
            task: The task.
            now: Monotonic seconds.
            known: One set for all tasks of the click, see `is_in_circle`.
        """
        end_task(task, known)
        self.note(number, "a click in the widget")
        before = self._asked.pop(number, None)
        self._asked[number] = _Asked(1 if before is None else before.times + 1, now)
        if len(self._asked) > _REMEMBERED:
            del self._asked[next(iter(self._asked))]

    def who(self, number: int) -> str:
        """Return who has asked the task to end, in words; "" if nobody has, or if that is not known."""
        counts = self._by.get(number, Counter())
        return "; ".join(who if times == 1 else f"{who}, {times} times" for who, times in counts.items())

    def note(self, number: int, who: str) -> None:
        """Note who asks a task to end, in words. Any thread."""
        counts: Counter[str] = self._by.setdefault(number, Counter())
        if who in counts or len(counts) < _ASKERS:
            counts[who] += 1
        if len(self._by) > _REMEMBERED:
            del self._by[next(iter(self._by))]

    def forget(self, number: int) -> None:
        """Note that the task has ended."""
        self._asked.pop(number, None)

    def look_at(self, record: TaskRecord, task: asyncio.Task[Any] | None, now: float) -> LiveTask | None:
        """Return the task of that record as the views show it, if it was asked to end; otherwise None.

        Args:
            record: Its record.
            task: The task; None if it has ended since.
            now: Monotonic seconds.
        """
        if task is None:
            return None
        number = record.number
        asked = self._asked.get(number)
        pending = cancel_requests(task)
        if not (pending or asked):
            return None
        state = STATES[record.state]
        if asked is None or asked.times < pending:  # somebody else has asked as well
            first_seen = now if record.waiting_since is None else record.waiting_since
            asked = self._asked[number] = _Asked(pending, first_seen if asked is None else asked.at)
        how = _how_it_goes_on(record, task, asked.at)
        if how is None:
            note = f"refused to cancel{_times(asked.times)}"
            return LiveTask(record, state, _joined(note, record.note))
        return LiveTask(record, "cancelling", _joined(how, record.note), asked.at)


def _how_it_goes_on(record: TaskRecord, task: asyncio.Task[Any], asked_at: float) -> str | None:
    """Return what a cancelled task does, in words; None if it has swallowed the cancellation."""
    if is_held(task):
        return "leaves what it holds"
    if record.state in {"scheduled", "running", "parked"}:
        return ""
    if record.waiting_since is not None and record.waiting_since < asked_at:
        return ""  # the awaited future was cancelled, and has not ended yet
    links = chain_of(task).links
    if any(isinstance(item, asyncio.CancelledError) for link in links for item in held_by(link)):
        return f"runs its finally at {record.waits_at}" if record.waits_at else "runs its finally"
    return None


def _times(count: int) -> str:
    return "" if count < 2 else " (twice)" if count == 2 else f" ({count} times)"


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
