"""Draw the last two minutes: each task is a bar in the lane of its cell, beside what blocked the loop. Pure.

No task notes anything for this. A live task knows when it was spawned. A look notes when a task has ended: to
half a second, and only while a view is visible.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Any

from loopnb.records import TaskRecord
from loopnb.watch.texts import block_text
from loopnb.widgets.protocol import cut
from loopnb.widgets.table import cell_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from loopnb.records import Block, CellRef
    from loopnb.widgets.protocol import Timeline
    from loopnb.widgets.table import Tasks

SECONDS = 120.0
"""How far back it goes."""
MOST_BARS = 240
"""About so many bars are drawn at most. If there are more tasks, one in two, four, eight ... is drawn."""
_KEPT = 5_000
"""How many tasks that have ended are kept, and up to `_DROPPED_AT_ONCE` more."""
_DROPPED_AT_ONCE = 250
_FIELDS, _CELL = len(TaskRecord._fields), TaskRecord._fields.index("cell")
_LANES = 40
OTHER = "other code"
"""The lane of tasks that no cell has spawned."""


class History:
    """The tasks that have ended in the last two minutes, each with the instant, in monotonic seconds.

    Attributes:
        cells: How many of them each cell has spawned, by the number in its prompt; -1 for none.
    """

    def __init__(self) -> None:
        # The fields of one record after the other. To keep the records would give the garbage collector some
        # hundred objects more in each second in which as many tasks end.
        self._fields: list[Any] = []
        self._ends: list[float] = []
        self.cells: Counter[int] = Counter()

    def select(self, is_wanted: Callable[[int], bool]) -> Iterator[tuple[TaskRecord, float]]:
        """Yield those tasks whose number is wanted, each with the instant, those first that ended first."""
        fields = self._fields.copy()
        for index, at in enumerate(self._ends.copy()):
            first = index * _FIELDS
            if is_wanted(fields[first]):
                yield TaskRecord._make(fields[first : first + _FIELDS]), at

    def add(self, record: TaskRecord, at: float) -> None:
        """Note that a task has ended."""
        self._fields += record
        self._ends.append(at)
        self.cells[cell_number(record.cell)] += 1
        if len(self._ends) >= _KEPT + _DROPPED_AT_ONCE:
            self._forget(_DROPPED_AT_ONCE)

    def forget_before(self, instant: float) -> None:
        """Forget those that had ended by then."""
        self._forget(bisect_left(self._ends, instant))

    def _forget(self, count: int) -> None:
        for cell in self._fields[_CELL : count * _FIELDS : _FIELDS]:
            self.cells[cell_number(cell)] -= 1
        del self._fields[: count * _FIELDS], self._ends[:count]


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
    for number, record in tasks.records.items():
        if number % every == 0 and not record.is_kernel and _lane_of(record.cell) in shown:
            bars[str(number)] = _bar(record, None, tasks.state_of(record))
    for record, at in history.select(lambda number: number % every == 0 or state_of(number) == "raised"):
        if _lane_of(record.cell) in shown:
            bars[str(record.number)] = _bar(record, at, state_of(record.number))
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
    counts = history.cells + tasks.cells + Counter({-1: others})
    return {_lane_named(cell): count for cell, count in counts.items()}


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
    live, ended = list(map(tasks.shown, tasks.records.values())), list(history.select(lambda _number: True))
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
    return _lane_named(cell_number(cell))


def _lane_named(cell: int) -> str:
    """Return the lane of the cell with that number in its prompt; -1 stands for no cell."""
    return OTHER if cell < 0 else f"In[{cell}]"


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
