"""The messages between the widget's model and its views, as plain JSON. Pure functions.

The model keeps three kinds of state, and the views have copies of them. `Shared` is the same for all views:
the header. A `Window` belongs to one view: the rows that it shows. A `Timeline` belongs to a view that draws
one. Of each, the model sends what has changed. A property test checks this law: take the messages that lead
from one state to another, and apply them to a copy of the first. That gives the second.

A copy that has missed a message does not fit the next one, and `apply_...` returns None. Then the view asks
for everything (`resync`). `tests/widget/vectors` holds examples of all this. The front end's tests read the
same files.

No message is longer than `MOST_BYTES`. The rest goes into further messages. Each of them leaves the copy in
order: a view shows a key only when its row has come.

Instants are seconds of one monotonic clock in the kernel, so that ages go on counting in the browser. Only
`taken_at` is of the wall clock, for people. All texts are text, never HTML.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

MOST_BYTES = 32_000
"""No message is longer, in bytes of its JSON."""
MOST_ROWS = 120
"""A window has at most so many rows, whatever a view asks for."""
MOST_TEXT = 200
"""How many characters of a name or a place are sent."""

SORTS = ("age", "number", "name", "state", "cell", "waited", "waits_for", "busy")
"""What a view may sort its rows by."""

#: Bytes that are left free in a message for its envelope and its list of keys.
_ENVELOPE = 6_000

Message = dict[str, Any]


class Lag(TypedDict):
    """How late the loop was in the last minute. `recent` has the worst of each second, the oldest first."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    recent: list[float]


class Finding(TypedDict):
    """The doctor's worst finding. `more` counts the others."""

    severity: str
    summary: str
    remedy: str
    more: int


class Head(TypedDict):
    """What the loop does, and how it is. `counts` has the user's tasks by state; `tasks` counts the live.

    `since_s` is the instant since which `text` is true; None if that is not known.
    """

    kind: str
    generation: int
    engine: str
    condition: str
    text: str
    since_s: float | None
    cell: str | None
    parked: int
    tasks: int
    counts: dict[str, int]
    lag: Lag | None
    finding: Finding | None
    mended: str
    leftovers: int
    cells: list[str]


class Block(TypedDict):
    """What blocks the loop now. `task` and `group` are the row's: its number, and the key of its group.

    If `is_standstill`, nobody blocks it, but it does not turn either. Then `text` says what it does.
    """

    text: str
    is_standstill: bool
    place: str
    call: str
    since_s: float
    remedy: str
    task: int | None
    group: str | None


class Shared(TypedDict):
    """What all views show. `clock_s` is the kernel's clock at that moment, `taken_at` the wall clock."""

    epoch: str
    seq: int
    clock_s: float
    taken_at: float
    head: Head
    block: Block | None


class Window(TypedDict):
    """The rows that one view shows: those from `offset` on of the `total` that its query finds."""

    query: dict[str, Any]
    wseq: int
    total: int
    offset: int
    keys: list[str]
    rows: dict[str, dict[str, Any]]


class Timeline(TypedDict):
    """The last two minutes. Each bar is a task, in the lane of its cell. `blocks` are those of the loop."""

    tseq: int
    now_s: float
    lanes: list[dict[str, Any]]
    bars: dict[str, dict[str, Any]]
    blocks: list[dict[str, Any]]


# -- texts ---------------------------------------------------------------------------------------


def cut(text: str, most: int = MOST_TEXT) -> str:
    """Shorten *text*, and replace what UTF-8 cannot hold: a name can be anything."""
    if len(text) > most:
        text = text[: most - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def size_of(value: object) -> int:
    """Return how many bytes *value* takes as JSON."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


# -- the header ----------------------------------------------------------------------------------


def head_message(before: Shared, after: Shared) -> Message | None:
    """Return the message that turns *before* into *after*. None if the headers look the same."""
    old: Mapping[str, Any] = before["head"]
    changed = {name: value for name, value in after["head"].items() if old[name] != value}
    if not changed:
        return None
    return {"op": "head", "base": before["seq"], **_stamp(after), "head": changed}


def beat(shared: Shared) -> Message:
    """Return the message which says that the loop turns and that *shared* is still right."""
    return {"op": "beat", **_stamp(shared)}


def block_message(shared: Shared, block: Block | None, clock_s: float, taken_at: float) -> Message:
    """Return the message that says what blocks the loop, or with None that nothing does any more."""
    stamp = {**_stamp(shared), "clock_s": clock_s, "taken_at": taken_at}
    return {"op": "block", **stamp, "block": block}


def shared_message(shared: Shared) -> Message:
    """Return the message with all of *shared*. It replaces whatever a view has."""
    return {"op": "shared", "epoch": shared["epoch"], "shared": shared}


def apply_shared(shared: Shared, message: Mapping[str, Any]) -> Shared | None:
    """Return what *message* makes of *shared*; None if it does not fit.

    A message from the loop (`head`, `beat`) means that the loop turns, so nothing blocks it. A `block` comes
    from another thread, so its number may be an older one. If that ends, the loop has done nothing else for
    longer, whatever the header said before.
    """
    if message["epoch"] != shared["epoch"]:
        return None
    op, after = message["op"], shared.copy()
    after["clock_s"], after["taken_at"] = message["clock_s"], message["taken_at"]
    if op == "block":
        after["block"] = message["block"]
        if message["block"] is None and shared["head"]["cell"] is None:
            after["head"] = {**shared["head"], "since_s": message["clock_s"]}
        return after
    if shared["seq"] != message["base" if op == "head" else "seq"]:
        return None
    after["seq"], after["block"] = message["seq"], None
    if op == "head":
        head: Any = {**shared["head"], **message["head"]}
        after["head"] = head
    return after


def _stamp(shared: Shared) -> Message:
    return {
        "epoch": shared["epoch"],
        "seq": shared["seq"],
        "clock_s": shared["clock_s"],
        "taken_at": shared["taken_at"],
    }


# -- the rows ------------------------------------------------------------------------------------


def window_messages(before: Window | None, after: Window) -> tuple[Window, list[Message]]:
    """Return *after* with its number, and the messages that turn *before* into it.

    Args:
        before: What the view has; None if that is not known.
        after: What it is to have. Its number does not matter. If its query is another one, everything is
            sent. When a view has only scrolled, the rows that it still has are not sent again.
    """
    opening: Message
    wseq = 0 if before is None else before["wseq"]
    if before is None or {**before["query"], "offset": 0} != {**after["query"], "offset": 0}:
        opening = {"wbase": None, "query": after["query"], "keys": after["keys"], "gone": []}
        rows = after["rows"]
    else:
        known = before["rows"]
        rows = {key: row for key, row in after["rows"].items() if known.get(key) != row}
        opening = {"wbase": wseq, "gone": [key for key in known if key not in after["rows"]]}
        if after["keys"] != before["keys"]:
            opening["keys"] = after["keys"]
        if after["query"] != before["query"]:
            opening["query"] = after["query"]
        is_same = (before["total"], before["offset"]) == (after["total"], after["offset"])
        if is_same and not rows and opening == {"wbase": wseq, "gone": []}:
            return before, []
    messages: list[Message] = []
    for part in _parts(rows):
        wseq += 1
        message = {"op": "window", "wseq": wseq, "total": after["total"], "offset": after["offset"]}
        messages.append({**message, **(opening or {"wbase": wseq - 1, "gone": []}), "rows": part})
        opening = {}
    return {**after, "wseq": wseq}, messages


def apply_window(window: Window | None, message: Mapping[str, Any]) -> Window | None:
    """Return what *message* makes of *window*; None if it does not fit."""
    given: Any = {name: message[name] for name in ("wseq", "total", "offset")}
    if message["wbase"] is None:
        given.update({name: message[name] for name in ("query", "keys", "rows")})
        return cast("Window", given)
    if window is None or message["wbase"] != window["wseq"]:
        return None
    gone = set(message["gone"])
    rows = {key: row for key, row in window["rows"].items() if key not in gone}
    given["query"] = message.get("query", window["query"])
    given["keys"] = message.get("keys", window["keys"])
    given["rows"] = {**rows, **message["rows"]}
    return cast("Window", given)


# -- the timeline --------------------------------------------------------------------------------


def timeline_messages(before: Timeline | None, after: Timeline) -> tuple[Timeline, list[Message]]:
    """Return *after* with its number, and the messages that turn *before* into it. See `window_messages`."""
    opening: Message
    tseq = 0 if before is None else before["tseq"]
    if before is None:
        opening = {"base": None, "gone": [], "lanes": after["lanes"], "blocks": after["blocks"]}
        bars = after["bars"]
    else:
        known = before["bars"]
        bars = {key: bar for key, bar in after["bars"].items() if known.get(key) != bar}
        opening = {"base": tseq, "gone": [key for key in known if key not in after["bars"]]}
        if before["lanes"] != after["lanes"]:
            opening["lanes"] = after["lanes"]
        if before["blocks"] != after["blocks"]:
            opening["blocks"] = after["blocks"]
        if not bars and opening == {"base": tseq, "gone": []}:
            return before, []
    messages: list[Message] = []
    for part in _parts(bars):
        tseq += 1
        message = {"op": "timeline", "tseq": tseq, "now_s": after["now_s"]}
        messages.append({**message, **(opening or {"base": tseq - 1, "gone": []}), "bars": part})
        opening = {}
    return {**after, "tseq": tseq}, messages


def apply_timeline(timeline: Timeline | None, message: Mapping[str, Any]) -> Timeline | None:
    """Return what *message* makes of *timeline*; None if it does not fit."""
    given: Any = {name: message[name] for name in ("tseq", "now_s")}
    if message["base"] is None:
        given.update({name: message[name] for name in ("lanes", "bars", "blocks")})
        return cast("Timeline", given)
    if timeline is None or message["base"] != timeline["tseq"]:
        return None
    gone = set(message["gone"])
    bars = {key: bar for key, bar in timeline["bars"].items() if key not in gone}
    given["lanes"] = message.get("lanes", timeline["lanes"])
    given["bars"] = {**bars, **message["bars"]}
    given["blocks"] = message.get("blocks", timeline["blocks"])
    return cast("Timeline", given)


def _parts(rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Split *rows* so that each part fits into a message. There is at least one part."""
    parts: list[dict[str, Any]] = [{}]
    left = MOST_BYTES - _ENVELOPE
    for key, row in rows.items():
        size = size_of(row) + len(key) + 4
        if size > left and parts[-1]:
            parts.append({})
            left = MOST_BYTES - _ENVELOPE
        parts[-1][key] = row
        left -= size
    return parts


# -- other messages ------------------------------------------------------------------------------


def ack(request_id: str | None, *, ok: bool, text: str, final: bool = True) -> Message:
    """Return the answer to one request.

    Args:
        request_id: The request's `id`.
        ok: It was done, or will be.
        text: A line for people.
        final: No further answer follows. False while the loop is blocked: the request waits.
    """
    return {"op": "ack", "id": request_id, "ok": ok, "text": cut(text), "final": final}


def end(epoch: str, why: str, text: str) -> Message:
    """Return the message that says that nothing more will come.

    Args:
        epoch: The session's.
        why: `unloaded`, `restarted`, `shut down`, or `fault`.
        text: A line for people.
    """
    return {"op": "end", "epoch": epoch, "why": why, "text": cut(text)}


def in_pieces(texts: Iterable[str]) -> Iterator[str]:
    """Put short texts together into pieces, each of which fits into a message. There is at least one.

    Args:
        texts: Texts of a few kB.
    """
    piece: list[str] = []
    left = MOST_BYTES - _ENVELOPE
    for text in texts:
        size = size_of(text)
        if size > left and piece:
            yield "".join(piece)
            piece, left = [], MOST_BYTES - _ENVELOPE
        piece.append(text)
        left -= size
    yield "".join(piece)


def fitting(lines: Iterable[Message]) -> tuple[list[Message], int]:
    """Return as many of *lines* as fit into a message, and how many are left out."""
    left, found, left_out = MOST_BYTES - _ENVELOPE, [], 0
    for line in lines:
        left -= size_of(line) + 1
        if left >= 0:
            found.append(line)
        else:
            left_out += 1
    return found, left_out


# -- what views say ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Query:
    """Which rows a view shows, and in which order.

    Attributes:
        tab: `live` or `finished`.
        group: Tasks that wait at one place are one row.
        text: Only rows that contain this text, in whatever case.
        states: Only tasks in these states; all if empty.
        cell: Only tasks of this cell, `In[4]`; None for all.
        kernels: The kernel's own tasks, too.
        sort: One of `SORTS`.
        desc: The other way round.
        open: The keys of the groups whose tasks are shown.
        offset: The first row.
        limit: How many rows.
    """

    tab: str = "live"
    group: bool = True
    text: str = ""
    states: tuple[str, ...] = ()
    cell: str | None = None
    kernels: bool = False
    sort: str = "age"
    desc: bool = False
    open: tuple[str, ...] = ()
    offset: int = 0
    limit: int = 60

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON, as a view sends it."""
        return {**vars(self), "states": list(self.states), "open": list(self.open)}

    @property
    def selection(self) -> Query:
        """The same query for all rows, with every group closed: only what it finds, and in which order."""
        return replace(self, open=(), offset=0, limit=0)


@dataclass(frozen=True, slots=True)
class Visible:
    """A view is visible, or not any more. A visible view repeats this message from time to time."""

    view: str
    visible: bool
    query: Query = field(default_factory=Query)


@dataclass(frozen=True, slots=True)
class Ask:
    """A view asks for other rows. If `is_resync`, it has missed something and asks for everything."""

    view: str
    query: Query
    is_resync: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """A view asks to cancel: a task, the tasks of one of its rows, or all leftovers."""

    id: str
    number: int | None = None
    view: str = ""
    group: str | None = None
    leftovers: bool = False


@dataclass(frozen=True, slots=True)
class AskDetail:
    """A view opens the details of a task, or closes them (None)."""

    view: str
    number: int | None


@dataclass(frozen=True, slots=True)
class AskTree:
    """A view shows a tree, `awaits` or `spawned`, or none any more (None)."""

    view: str
    kind: str | None


@dataclass(frozen=True, slots=True)
class AskTimeline:
    """A view shows the timeline, or does not any more."""

    view: str
    shown: bool


@dataclass(frozen=True, slots=True)
class AskTrace:
    """A view asks for the timeline as a file."""

    view: str
    id: str


@dataclass(frozen=True, slots=True)
class BadMessage:
    """A message that this protocol does not know. *reason* is a sentence."""

    id: str | None
    reason: str


Request = Visible | Ask | Cancel | AskDetail | AskTree | AskTimeline | AskTrace | BadMessage


def parse(content: object) -> Request:
    """Return what a view has sent. Never raises."""
    if not isinstance(content, dict):
        return BadMessage(None, "A message is an object with an 'op'.")
    op, request_id = content.get("op"), content.get("id")
    read = _READERS.get(op) if isinstance(op, str) else None
    known_id = request_id if isinstance(request_id, str) else None
    if read is None:
        return BadMessage(known_id, f"There is no op {op!r:.40}.")
    found = read(content)
    return found if found is not None else BadMessage(known_id, f"'{op}' lacks a field, or has a wrong one.")


def read_query(content: object) -> Query | None:
    """Return the query in a message, with defaults for missing fields; None if something is wrong with it."""
    if not isinstance(content, dict):
        return None
    known = {name: value for name, value in content.items() if name in _FIELDS}
    if not all(_FIELDS[name](value) for name, value in known.items()):
        return None
    for name in ("states", "open"):
        if name in known:
            known[name] = tuple(known[name][:MOST_TEXT])
    query = Query(**known)
    return replace(
        query,
        text=cut(query.text),
        offset=max(query.offset, 0),
        limit=min(max(query.limit, 1), MOST_ROWS),
    )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 40


def _is_words(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_word, value))


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "tab": lambda value: isinstance(value, str) and value in {"live", "finished"},
    "group": _is_bool,
    "text": lambda value: isinstance(value, str),
    "states": _is_words,
    "cell": lambda value: value is None or _is_word(value),
    "kernels": _is_bool,
    "sort": lambda value: isinstance(value, str) and value in SORTS,
    "desc": _is_bool,
    "open": _is_words,
    "offset": _is_int,
    "limit": _is_int,
}


def _visible(content: dict[Any, Any]) -> Request | None:
    view, visible, query = content.get("view"), content.get("visible"), read_query(content.get("query", {}))
    if not isinstance(view, str) or query is None or not isinstance(visible, bool):
        return None
    return Visible(view, visible, query)


def _ask(content: dict[Any, Any]) -> Request | None:
    view, query = content.get("view"), read_query(content.get("query", {}))
    if not isinstance(view, str) or query is None:
        return None
    return Ask(view, query, content["op"] == "resync")


def _cancel(content: dict[Any, Any]) -> Request | None:
    request_id, number, view, group = (content.get(name) for name in ("id", "number", "view", "group"))
    if not isinstance(request_id, str):
        return None
    if content.get("leftovers") is True:
        return Cancel(request_id, leftovers=True)
    if isinstance(group, str) and isinstance(view, str):
        return Cancel(request_id, view=view, group=group)
    if isinstance(number, int) and not isinstance(number, bool):
        return Cancel(request_id, number)
    return None


def _detail(content: dict[Any, Any]) -> Request | None:
    view, number = content.get("view"), content.get("number")
    is_right = isinstance(view, str) and (number is None or _is_int(number))
    return AskDetail(view, number) if isinstance(view, str) and is_right else None


def _tree(content: dict[Any, Any]) -> Request | None:
    view, kind = content.get("view"), content.get("kind")
    is_right = kind is None or (isinstance(kind, str) and kind in {"awaits", "spawned"})
    return AskTree(view, kind) if isinstance(view, str) and is_right else None


def _timeline(content: dict[Any, Any]) -> Request | None:
    view, shown = content.get("view"), content.get("shown")
    return AskTimeline(view, shown) if isinstance(view, str) and isinstance(shown, bool) else None


def _trace(content: dict[Any, Any]) -> Request | None:
    view, request_id = content.get("view"), content.get("id")
    return AskTrace(view, request_id) if isinstance(view, str) and isinstance(request_id, str) else None


_READERS: dict[str, Callable[[dict[Any, Any]], Request | None]] = {
    "visible": _visible,
    "query": _ask,
    "resync": _ask,
    "cancel": _cancel,
    "detail": _detail,
    "tree": _tree,
    "timeline": _timeline,
    "trace": _trace,
}
