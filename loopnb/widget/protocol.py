"""The messages between the widget's model and its views, as plain JSON. Pure functions.

The model sends `snapshot` (everything), `delta` (what has changed since the state with number `base`), `beat`
(the loop turns, and nothing has changed), `ack` (the answer to one request) and `fault` (the model has
stopped).

A view sends `cancel`, `resync` and `visible`. If it sees a gap in the numbers, it asks for a `resync`.

Instants are seconds of one monotonic clock in the kernel, so that ages go on counting in the browser. Only
`taken_at` is of the wall clock, for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loopnb.records import LoopState, Snapshot, TaskRecord

MAX_ROWS = 500
"""How many tasks are sent, the oldest first. `Loop.tasks` counts all of them. 500 rows are about 150 kB."""

MAX_TEXT = 200
"""How many characters of a name or a place are sent."""


class Row(TypedDict):
    """One task. `spawned_s` is an instant of the kernel's clock."""

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
    """The loop's state. `tasks` counts the live tasks, those that are not sent included."""

    kind: str
    condition: str
    detail: str
    generation: int
    engine: str
    parked: int
    cell: str | None
    tasks: int


class State(TypedDict):
    """All that a view shows. `clock_s` is the kernel's clock at that moment, `taken_at` the wall clock."""

    epoch: str
    seq: int
    taken_at: float
    clock_s: float
    loop: Loop
    tasks: dict[str, Row]


@dataclass(frozen=True, slots=True)
class Cancel:
    """A view asks to cancel the task with this number."""

    id: str
    number: int


@dataclass(frozen=True, slots=True)
class Resync:
    """A view has missed a delta and asks for everything."""


@dataclass(frozen=True, slots=True)
class Visible:
    """A view is visible, or not any more. A visible view repeats this message from time to time."""

    view: str
    visible: bool


@dataclass(frozen=True, slots=True)
class BadMessage:
    """A message that this protocol does not know. *reason* is a sentence."""

    id: str | None
    reason: str


def encode(snapshot: Snapshot, *, seq: int) -> State:
    """Return *snapshot* as JSON.

    Args:
        snapshot: The snapshot.
        seq: The number of this state. Each delta adds one to it.
    """
    return {
        "epoch": snapshot.epoch,
        "seq": seq,
        "taken_at": snapshot.taken_at,
        "clock_s": snapshot.clock_s,
        "loop": _loop(snapshot.loop, snapshot.count),
        "tasks": {str(task.number): _row(task) for task in snapshot.tasks[:MAX_ROWS]},
    }


def delta(before: State, after: State) -> dict[str, Any] | None:
    """Return the message that turns *before* into *after*. None if they look the same."""
    old, new = before["tasks"], after["tasks"]
    changed = {number: row for number, row in new.items() if old.get(number) != row}
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
    """Return the message which says that the loop turns and that *state* is still right."""
    return {
        "op": "beat",
        "epoch": state["epoch"],
        "seq": state["seq"],
        "taken_at": state["taken_at"],
        "clock_s": state["clock_s"],
    }


def full(state: State) -> dict[str, Any]:
    """Return the message with everything, for a view that has missed something."""
    return {"op": "snapshot", "state": state}


def fault(text: str) -> dict[str, Any]:
    """Return the message which says that the model has stopped. *text* says why."""
    return {"op": "fault", "text": text}


def ack(request_id: str | None, *, ok: bool, text: str) -> dict[str, Any]:
    """Return the answer to one request. *text* is one line."""
    return {"op": "ack", "id": request_id, "ok": ok, "text": text}


def parse(content: object) -> Cancel | Resync | Visible | BadMessage:
    """Read a message of a view. Never raises; a `BadMessage` says what is wrong."""
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


def _row(task: TaskRecord) -> Row:
    return {
        "number": task.number,
        "name": _text(task.name),
        "coro": _text(task.coro),
        "state": task.state,
        "spawned_s": task.spawned_at,
        "cell": str(task.cell) if task.cell else None,
        "spawn_site": _text(task.spawn_site),
        "waits_at": _text(task.waits_at),
        "waits_for": _text(task.waits_for),
        "parent": task.parent,
    }


def _text(text: str) -> str:
    # Names come from user code. A lone surrogate in them cannot be sent, and a whole repr is too long.
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
