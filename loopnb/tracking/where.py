"""What a task waits for, down to the end: its own frames, then those of the tasks it awaits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loopnb.internals.frames import is_ours

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from loopnb.tracking.tracker import Tracker

#: Awaited tasks below one task that are followed; of more it is said how many there are.
_WIDEST = 20
#: Tasks below tasks below tasks that are followed.
_DEEPEST = 50


def lines(tracker: Tracker, task: asyncio.Task[Any]) -> Iterator[str]:
    """Say where *task* waits, a line for each frame and each task that it waits for."""
    yield from _lines(tracker, task, "", set(), 0)


def _lines(
    tracker: Tracker, task: asyncio.Task[Any], indent: str, seen: set[int], depth: int
) -> Iterator[str]:
    record = tracker.record(task)
    seen.add(record.number)
    frames, _below = tracker.frames_of(task)
    for frame in frames:
        if is_ours(frame.f_code.co_filename):
            continue
        place = tracker.place(frame.f_code, frame.f_lasti, record.cell)
        name = frame.f_code.co_qualname
        yield f"{indent}  {place}" if name.startswith("<") else f"{indent}  {name}()  {place}"
    if record.waits_for:
        yield f"{indent}  waits for {record.waits_for}"
    for number, one in enumerate(tracker.awaited_by(task)):
        if number == _WIDEST or depth == _DEEPEST:
            yield f"{indent}    and more tasks"
            return
        own = tracker.number_of(one)
        is_known = own in seen
        yield f"{indent}    task {own} {one.get_name()!r}{' (see above)' if is_known else ''}"
        if not is_known:
            yield from _lines(tracker, one, indent + "    ", seen, depth + 1)
