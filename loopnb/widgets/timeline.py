"""Draw the last two minutes: each task is a bar in the lane of its cell, beside what blocked the loop. Pure.

No task notes anything for this. A live task knows when it was spawned. A look notes when a task has ended: to
a quarter of a second, and only while a view is visible.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, NamedTuple

from loopnb.watch.texts import block_text
from loopnb.widgets.protocol import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from loopnb.records import Block, TaskRecord
    from loopnb.widgets.protocol import Timeline
    from loopnb.widgets.table import LiveTask

SECONDS = 120.0
"""How far back it goes."""
MOST_BARS = 240
"""About so many bars are drawn at most. If there are more tasks, one in two, four, eight ... is drawn."""
_KEPT = 5_000
"""How many tasks that have ended are kept at most."""
_LANES = 40
OTHER = "other code"
"""The lane of tasks that no cell has spawned."""


class EndedBar(NamedTuple):
    """The bar of a task that has ended, and when it did, in monotonic seconds."""

    record: TaskRecord
    at: float


class History:
    """The tasks that have ended in the last two minutes."""

    def __init__(self) -> None:
        self._ended: deque[EndedBar] = deque(maxlen=_KEPT)

    def add(self, record: TaskRecord, at: float) -> None:
        """Note that a task has ended."""
        self._ended.append(EndedBar(record, at))

    def since(self, instant: float) -> list[EndedBar]:
        """Return the tasks that have ended since then, and forget the others."""
        while self._ended and self._ended[0].at < instant:
            self._ended.popleft()
        return list(self._ended)


def timeline_of(
    live: Iterable[LiveTask],
    ended: list[EndedBar],
    blocks: Iterable[dict[str, Any]],
    now: float,
    state_of: Callable[[int], str],
) -> Timeline:
    """Return the timeline.

    Args:
        live: The live tasks.
        ended: The tasks that have ended lately.
        blocks: What has blocked the loop, as `blocks_of` returns it.
        now: Monotonic seconds.
        state_of: Returns how the task with that number has ended.
    """
    alive = [task for task in live if not task.record.is_kernel]
    every = _every(len(alive) + len(ended))
    counts = Counter(_lane_of(task.record) for task in alive)
    counts.update(_lane_of(task.record) for task in ended)
    lanes = sorted(counts, key=_lane_order)[:_LANES]
    shown = set(lanes)
    bars: dict[str, dict[str, Any]] = {}
    for task in alive:
        record = task.record
        if record.number % every == 0 and _lane_of(record) in shown:
            bars[str(record.number)] = _bar(record, None, task.state)
    for record, at in ended:
        state = state_of(record.number)
        if _lane_of(record) in shown and (record.number % every == 0 or state == "raised"):
            bars[str(record.number)] = _bar(record, at, state)
    return {
        "tseq": 0,
        "now_s": now,
        "lanes": [{"lane": lane, "tasks": counts[lane]} for lane in lanes],
        "bars": bars,
        "blocks": list(blocks),
    }


def blocks_of(blocks: Iterable[Block], now: float, wall_s: float) -> list[dict[str, Any]]:
    """Return the blocks of the last two minutes as they are drawn.

    Args:
        blocks: The blocks.
        now: Monotonic seconds.
        wall_s: The same moment as wall-clock time.
    """
    found = []
    for block in blocks:
        began = round(block.began_at - wall_s + now, 2)
        if block.is_over and began + block.lasted_s > now - SECONDS:
            ends = round(began + block.lasted_s, 2)
            found.append({"from_s": began, "to_s": ends, "text": cut(block_text(block))})
    return found


def trace_of(
    live: Iterable[LiveTask],
    ended: Iterable[EndedBar],
    blocks: Iterable[dict[str, Any]],
    now: float,
    state_of: Callable[[int], str],
) -> str:
    """Return everything as JSON in the Trace Event Format, for Perfetto and `chrome://tracing`.

    See `timeline_of` for the arguments. Here no task is left out.
    """
    tasks = [(task.record, now, task.state) for task in live if not task.record.is_kernel]
    tasks += [(record, at, state_of(record.number)) for record, at in ended]
    lanes = sorted({_lane_of(record) for record, _until, _state in tasks}, key=_lane_order)
    events: list[dict[str, Any]] = [_name("process_name", 0, "loopnb"), _name("thread_name", 0, "the loop")]
    events += [_name("thread_name", index, lane) for index, lane in enumerate(lanes, 1)]
    for record, until, state in tasks:
        events += _task_events(record, until, state, lanes.index(_lane_of(record)) + 1)
    for block in blocks:
        events.append({
            "name": block["text"],
            "cat": "block",
            "ph": "X",
            "ts": _us(block["from_s"]),
            "dur": _us(block["to_s"] - block["from_s"]),
            "pid": 1,
            "tid": 0,
        })  # fmt: skip
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, separators=(",", ":"))


def _task_events(record: TaskRecord, until: float, state: str, lane: int) -> Iterator[dict[str, Any]]:
    # Events of one thread must nest, and tasks do not. So each task is a pair of async events.
    common = {
        "name": cut(record.name) or cut(record.coro),
        "cat": "task",
        "id": record.number,
        "pid": 1,
        "tid": lane,
    }
    facts = {
        "number": record.number,
        "coroutine": cut(record.coro),
        "cell": str(record.cell or ""),
        "spawned at": cut(record.spawn_site),
        "state": state,
        "waits for": cut(record.waits_for),
        "waits at": cut(record.waits_at),
    }
    yield {**common, "ph": "b", "ts": _us(record.spawned_at), "args": facts}
    yield {**common, "ph": "e", "ts": _us(max(until, record.spawned_at))}


def _name(what: str, lane: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": 1, "tid": lane, "args": {"name": name}}


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


def _every(count: int) -> int:
    """Return a power of two: tasks whose number it divides are drawn. So the same tasks stay chosen."""
    every = 1
    while count > every * MOST_BARS:
        every *= 2
    return every


def _lane_of(record: TaskRecord) -> str:
    return OTHER if record.cell is None else str(record.cell)


def _lane_order(lane: str) -> tuple[bool, int]:
    """Return the place of a lane: the newest cells first, tasks of no cell last."""
    return (lane == OTHER, 0 if lane == OTHER else -int(lane[3:-1]))


def _bar(record: TaskRecord, to: float | None, state: str) -> dict[str, Any]:
    return {
        "lane": _lane_of(record),
        "number": record.number,
        "name": cut(record.name, 60),
        "coro": cut(record.coro, 60),
        "from_s": round(record.spawned_at, 2),
        "to_s": None if to is None else round(to, 2),
        "state": state,
    }
