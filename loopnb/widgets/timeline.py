"""Draw the last two minutes: each task is a bar in the lane of its cell, beside what blocked the loop. Pure.

No task notes anything for this. A live task knows when it was spawned. A look notes when a task has ended: to
half a second, and only while a view is visible.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, NamedTuple

from loopnb.watch.texts import block_text
from loopnb.widgets.protocol import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from loopnb.records import Block, CellRef, TaskRecord
    from loopnb.widgets.protocol import Timeline
    from loopnb.widgets.table import Tasks

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
    """The tasks that have ended in the last two minutes.

    Attributes:
        ended: The tasks, those first that ended first.
        lanes: How many of them are in each lane.
    """

    def __init__(self) -> None:
        self.ended: deque[EndedBar] = deque()
        self.lanes: Counter[str] = Counter()

    def add(self, record: TaskRecord, at: float) -> None:
        """Note that a task has ended."""
        self.ended.append(EndedBar(record, at))
        self.lanes[_lane_of(record.cell)] += 1
        if len(self.ended) > _KEPT:
            self._forget_first()

    def forget_before(self, instant: float) -> None:
        """Forget those that had ended by then."""
        while self.ended and self.ended[0].at < instant:
            self._forget_first()

    def _forget_first(self) -> None:
        self.lanes[_lane_of(self.ended.popleft().record.cell)] -= 1


def timeline_of(
    tasks: Tasks,
    history: History,
    blocks: Iterable[dict[str, Any]],
    now: float,
    state_of: Callable[[int], str],
) -> Timeline:
    """Return the timeline. In one step, which for ten thousand tasks takes a millisecond.

    Args:
        tasks: The live tasks.
        history: The tasks that have ended lately.
        blocks: What has blocked the loop, as `blocks_of` returns it.
        now: Monotonic seconds.
        state_of: Returns how the task with that number has ended.
    """
    counts = _counts(tasks, history)
    lanes = sorted(counts, key=_lane_order)[:_LANES]
    shown, every = set(lanes), _every(sum(counts.values()))
    bars: dict[str, dict[str, Any]] = {}
    for number, task in tasks.live.items():
        if number % every == 0 and not task.record.is_kernel and _lane_of(task.record.cell) in shown:
            bars[str(number)] = _bar(task.record, None, task.state)
    for record, at in history.ended:
        state = state_of(record.number)
        if (record.number % every == 0 or state == "raised") and _lane_of(record.cell) in shown:
            bars[str(record.number)] = _bar(record, at, state)
    return {
        "tseq": 0,
        "now_s": now,
        "lanes": [{"lane": lane, "tasks": counts[lane]} for lane in lanes],
        "bars": bars,
        "blocks": list(blocks),
    }


def _counts(tasks: Tasks, history: History) -> Mapping[str, int]:
    """Return how many tasks each lane has."""
    others = sum(tasks.states.values()) - sum(tasks.cells.values())
    counts = history.lanes + Counter({OTHER: others})
    for cell, count in tasks.cells.items():
        counts[_lane_of(cell)] += count
    return counts


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
    tasks: Tasks,
    history: History,
    blocks: Iterable[dict[str, Any]],
    now: float,
    state_of: Callable[[int], str],
) -> Iterator[str]:
    """Yield everything as JSON in the Trace Event Format, for Perfetto and `chrome://tracing`, text by text.

    Each text takes some microseconds, and the loop may turn in between. See `timeline_of` for the arguments.
    Here no task is left out.
    """
    lanes = {lane: at for at, lane in enumerate(sorted(_counts(tasks, history), key=_lane_order), 1)}
    live, ended = list(tasks.live.values()), list(history.ended)
    yield '{"displayTimeUnit":"ms","traceEvents":['
    yield _json(_name("process_name", 0, "loopnb"))
    yield f",{_json(_name('thread_name', 0, 'the loop'))}"
    for lane, at in lanes.items():
        yield f",{_json(_name('thread_name', at, lane))}"
    for task in live:
        if not task.record.is_kernel:
            yield from _task_events(task.record, now, task.state, lanes)
    for record, ended_at in ended:
        yield from _task_events(record, ended_at, state_of(record.number), lanes)
    for block in blocks:
        event = {
            "name": block["text"],
            "cat": "block",
            "ph": "X",
            "ts": _us(block["from_s"]),
            "dur": _us(block["to_s"] - block["from_s"]),
            "pid": 1,
            "tid": 0,
        }
        yield f",{_json(event)}"
    yield "]}"


def _task_events(record: TaskRecord, until: float, state: str, lanes: Mapping[str, int]) -> Iterator[str]:
    # Events of one thread must nest, and tasks do not. So each task is a pair of async events.
    common = {
        "name": cut(record.name) or cut(record.coro),
        "cat": "task",
        "id": record.number,
        "pid": 1,
        "tid": lanes[_lane_of(record.cell)],
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
    yield f",{_json({**common, 'ph': 'b', 'ts': _us(record.spawned_at), 'args': facts})}"
    yield f",{_json({**common, 'ph': 'e', 'ts': _us(max(until, record.spawned_at))})}"


def _name(what: str, lane: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": 1, "tid": lane, "args": {"name": name}}


def _json(event: dict[str, Any]) -> str:
    return json.dumps(event, separators=(",", ":"))


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


def _every(count: int) -> int:
    """Return a power of two: tasks whose number it divides are drawn. So the same tasks stay chosen."""
    every = 1
    while count > every * MOST_BARS:
        every *= 2
    return every


def _lane_of(cell: CellRef | None) -> str:
    return OTHER if cell is None else str(cell)


def _lane_order(lane: str) -> tuple[bool, int]:
    """Return the place of a lane: the newest cells first, tasks of no cell last."""
    return (lane == OTHER, 0 if lane == OTHER else -int(lane[3:-1]))


def _bar(record: TaskRecord, to: float | None, state: str) -> dict[str, Any]:
    return {
        "lane": _lane_of(record.cell),
        "number": record.number,
        "name": cut(record.name, 60),
        "coro": cut(record.coro, 60),
        "from_s": round(record.spawned_at, 2),
        "to_s": None if to is None else round(to, 2),
        "state": state,
    }
