"""What the widget's model and its views say to each other, as plain JSON; pure functions.

From the kernel: `snapshot` (everything), `delta` (what changed since `base`), `beat` (nothing
changed, the loop turns), `ack` (the answer to one request), `fault` (the model has stopped).
From a view: `cancel`, `resync`, `visible`. A view that sees a gap in the numbers asks for a `resync`.
Instants are seconds of one monotonic clock in the kernel, so that ages go on counting in the browser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loopnb.records import LoopState, Snapshot, TaskRecord

MAX_ROWS = 500
"""Tasks that are sent, the oldest ones; the count says how many there are. 500 rows are about 150 kB."""

MAX_TEXT = 200
"""Characters of a name or a place that are sent."""


class Row(TypedDict):
    """One task. `spawned_s` is an instant of the kernel's clock; it is not compared between snapshots."""

    number: int
    name: str
    coro: str
    state: str
    spawned_s: float
    cell: str | None
    spawn_site: str
    waits_at: str
    waits_for: str
    parent: int | None


class Loop(TypedDict):
    """The loop's state; `tasks` counts the live tasks, also those that are not sent."""

    kind: str
    condition: str
    detail: str
    generation: int
    engine: str
    parked: int
    cell: str | None
    tasks: int


class State(TypedDict):
    """A full snapshot. `clock_s` is the kernel's clock when it was taken, `taken_at` the wall clock."""

    epoch: str
    seq: int
    taken_at: float
    clock_s: float
    loop: Loop
    tasks: dict[str, Row]


@dataclass(frozen=True, slots=True)
class Cancel:
    """A view asks for task *number* to be cancelled."""

    id: str
    number: int


@dataclass(frozen=True, slots=True)
class Resync:
    """A view has missed a delta and asks for everything."""


@dataclass(frozen=True, slots=True)
class Visible:
    """A view can be seen (and renews its lease by saying so), or can be seen no more."""

    view: str
    visible: bool


@dataclass(frozen=True, slots=True)
class BadMessage:
    """Something that is no message of this protocol. *reason* is a sentence."""

    id: str | None
    reason: str


def encode(snapshot: Snapshot, *, seq: int, clock_s: float) -> State:
    """Turn *snapshot* into JSON.

    Args:
        snapshot: What to say.
        seq: Number of this state; each delta counts it up by one.
        clock_s: The monotonic clock when the snapshot was taken.
    """
    return {
        "epoch": snapshot.epoch,
        "seq": seq,
        "taken_at": snapshot.taken_at,
        "clock_s": clock_s,
        "loop": _loop(snapshot.loop, snapshot.count),
        "tasks": {str(task.number): _row(task, clock_s) for task in snapshot.tasks[:MAX_ROWS]},
    }


def delta(before: State, after: State) -> dict[str, Any] | None:
    """Say what to change in *before* to get *after*; None if there is nothing to see."""
    old, new = before["tasks"], after["tasks"]
    changed = {number: row for number, row in new.items() if not _looks_same(old.get(number), row)}
    gone = [int(number) for number in old if number not in new]
    loop = {} if before["loop"] == after["loop"] else {"loop": after["loop"]}
    if not (changed or gone or loop):
        return None
    return {
        "op": "delta",
        "epoch": after["epoch"],
        "base": before["seq"],
        "seq": after["seq"],
        "taken_at": after["taken_at"],
        "clock_s": after["clock_s"],
        "tasks": changed,
        "gone": gone,
    } | loop


def beat(state: State) -> dict[str, Any]:
    """Say that the loop turns and *state* still holds."""
    return {
        "op": "beat",
        "epoch": state["epoch"],
        "seq": state["seq"],
        "taken_at": state["taken_at"],
        "clock_s": state["clock_s"],
    }


def full(state: State) -> dict[str, Any]:
    """Say everything, to a view that has missed something."""
    return {"op": "snapshot", "state": state}


def fault(text: str) -> dict[str, Any]:
    """Say that the model has stopped, and why."""
    return {"op": "fault", "text": text}


def ack(request_id: str | None, *, ok: bool, text: str) -> dict[str, Any]:
    """Answer one request with one line."""
    return {"op": "ack", "id": request_id, "ok": ok, "text": text}


def parse(content: object) -> Cancel | Resync | Visible | BadMessage:
    """Read a message of a view. Never raises: what is wrong with it is in the `BadMessage`."""
    match content:
        case {"op": "cancel", "id": str(request_id), "number": int(number)} if not isinstance(number, bool):
            return Cancel(request_id, number)
        case {"op": "resync"}:
            return Resync()
        case {"op": "visible", "view": str(view), "visible": bool(visible)}:
            return Visible(view, visible)
        case {"op": op, **rest}:
            return BadMessage(_id_of(rest), f"The message {str(op)[:40]!r} is unknown or incomplete.")
        case _:
            return BadMessage(None, "A message must be an object with an 'op'.")


def _id_of(rest: Mapping[Any, object]) -> str | None:
    match rest:
        case {"id": str(request_id)}:
            return request_id
    return None


def _looks_same(old: Row | None, new: Row) -> bool:
    # The instant of birth is computed from an age and differs by microseconds each time.
    return old is not None and {**old, "spawned_s": 0.0} == {**new, "spawned_s": 0.0}


def _row(task: TaskRecord, clock_s: float) -> Row:
    return {
        "number": task.number,
        "name": _text(task.name),
        "coro": _text(task.coro),
        "state": task.state,
        "spawned_s": clock_s - task.age_s,
        "cell": str(task.cell) if task.cell else None,
        "spawn_site": _text(task.spawn_site),
        "waits_at": _text(task.waits_at),
        "waits_for": _text(task.waits_for),
        "parent": task.parent,
    }


def _text(text: str) -> str:
    # Names come from user code: a lone surrogate cannot be sent, and a name may be a whole repr.
    return text[:MAX_TEXT].encode("utf-8", "replace").decode("utf-8")


def _loop(loop: LoopState, tasks: int) -> Loop:
    return {
        "kind": loop.kind,
        "condition": loop.condition,
        "detail": _text(loop.detail),
        "generation": loop.generation,
        "engine": loop.engine,
        "parked": loop.parked,
        "cell": str(loop.cell) if loop.cell else None,
        "tasks": tasks,
    }
