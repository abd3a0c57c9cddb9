"""Say in words what watching has found. Pure."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from loopnb.views import seconds_text
from loopnb.watch.sources import callee

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loopnb.records import Block, BlockedHow, Busy, BusyRow, Finding, Lag, Pace, PlaceTotal

#: How many places and how many rows of who is busy are shown.
_PLACES = 10
_ROWS = 10

_HOW: dict[BlockedHow, str] = {
    "computes": "Python code computes",
    "c call": "C code computes",
    "gil": "C code holds the GIL, so this is reported late",
    "garbage": "the garbage collector runs",
    "sleep": "sleeps",
    "socket": "waits for a socket",
    "loop socket": "asyncio waits for a socket in blocking mode",
    "process": "waits for a process",
    "lock": "waits for a lock or another thread",
    "file": "waits for a file",
    "call": "waits in a blocking call",
}

_TO_THREAD = "run it with `await asyncio.to_thread(...)`"
_REMEDIES: dict[BlockedHow, str] = {
    "computes": "move it to another process, or `await asyncio.sleep(0)` now and then",
    "c call": _TO_THREAD,
    "gil": "move it to another process",
    "garbage": "keep fewer objects alive, or call gc.freeze() after loading them",
    "sleep": "use `await asyncio.sleep(...)`",
    "socket": f"use an async client, or {_TO_THREAD}",
    "loop socket": "call sock.setblocking(False) before giving the socket to asyncio",
    "process": f"use asyncio.create_subprocess_exec(), or {_TO_THREAD}",
    "lock": f"use asyncio's own locks and queues, or {_TO_THREAD}",
    "file": _TO_THREAD,
    "call": _TO_THREAD,
}


def how_text(block: Block) -> str:
    """Return what blocks the loop in *block*: `sleeps in time.sleep()`."""
    words = _HOW[block.how]
    if block.how in {"computes", "garbage"} or not block.call:
        return words
    if block.how == "gil":
        return f"{words}: {callee(block.call)}"
    return f"{words} in {callee(block.call)}"


def remedy(block: Block) -> str:
    """Return what to do about *block*; "" if it is normal in a notebook."""
    return _REMEDIES[block.how] if block.is_alarm else ""


def place_text(block: Block) -> str:
    """Return where *block* blocks: `hog() In[6], line 2`."""
    return f"{block.function}() {block.place}" if block.function else block.place


def block_text(block: Block) -> str:
    """Return *block* in a sentence: `task 5 'hog' of In[6] blocked the loop 3.0 s: sleeps in ...`."""
    who = f"{block.name} of {block.cell}" if block.by == "task" and block.cell is not None else block.name
    verb = "blocked the loop" if block.is_over else "has blocked the loop for"
    at = f" at {place_text(block)}" if block.place else ""
    return f"{who} {verb} {seconds_text(block.lasted_s)}: {how_text(block)}{at}"


def kept_text(block: Block) -> str:
    """Return what *block* kept waiting; "" if nothing is known."""
    kept = block.kept
    counts = [(kept.ready, "ready callback"), (kept.timers, "overdue timer")]
    parts = [f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts if count]
    if kept.tasks:
        more = ", ..." if len(kept.tasks) == 3 else ""
        parts[0] += f" (tasks {', '.join(map(repr, kept.tasks))}{more})"
    if kept.messages:
        parts.append("messages of the front end")
    return ", ".join(parts)


def status_line(block: Block, now: float) -> str:
    """Return *block* for the status.

    Args:
        block: The block.
        now: Wall-clock time, seconds since the Unix epoch.
    """
    ago = f", {_ago(now - block.began_at - block.lasted_s)} ago" if block.is_over else ""
    text = f"{block_text(block)}{ago}"
    return f"{text}; {remedy(block)}" if block.is_alarm else text


def blocks_text(blocks: Sequence[Block], totals: Sequence[PlaceTotal]) -> str:
    """List *blocks*, and how often and how long each place has blocked."""
    if not blocks:
        return "Nothing has blocked the loop."
    lines: list[str] = []
    for block in blocks:
        began = datetime.datetime.fromtimestamp(block.began_at).astimezone()
        mark = "!" if block.is_alarm else " "
        lines.append(f"{began:%H:%M:%S} {mark} {block_text(block)}")
        details = (
            ("in", block.below),
            ("kept waiting", kept_text(block)),
            ("instead", remedy(block)),
        )
        lines += [f"           {label}: {text}" for label, text in details if text]
    lines.append("")
    for total in totals[:_PLACES]:
        times = "once" if total.count == 1 else f"{total.count:,} times"
        lines.append(f"{seconds_text(total.total_s):>9}  {total.place}, {times}")
    if len(totals) > _PLACES:
        lines.append(f"           and {len(totals) - _PLACES} more places")
    return "\n".join(lines)


def pace_text(pace: Pace) -> str:
    """Say how late the loop is, and where its time goes."""
    rows = [
        ("lag", "p50", "p99", "max"),
        ("last 60 s", *_lags(pace.recent)),
        ("since load", *_lags(pace.total)),
    ]
    lines = ["  ".join((row[0].ljust(10), *(cell.rjust(8) for cell in row[1:]))) for row in rows]
    shares = pace.shares
    if shares is not None:
        lines.append(
            f"time        {shares.user:.0%} your code, {shares.kernel:.0%} the kernel's own, "
            f"{shares.select:.0%} waiting (last {shares.seconds:.0f} s that were watched)"
        )
    if pace.passes_per_s is None:
        lines.append("passes      not counted; '%loopnb watch on' counts them")
    else:
        lines.append(f"passes      {pace.passes_per_s:,.0f} per second")
    return "\n".join(lines)


def busy_text(busy: Busy) -> str:
    """Say who keeps the loop busy."""
    if not busy.looks:
        return "Nothing was seen yet."
    times = "once" if busy.looks == 1 else f"{busy.looks:,} times"
    lines = [f"Looked {times} in {busy.seconds:.1f} s."]
    for title, rows in (("task", busy.tasks), ("cell", busy.cells), ("coroutine", busy.coroutines)):
        lines += _busy_lines(title, rows)
    return "\n".join(lines)


def _busy_lines(title: str, rows: Sequence[BusyRow]) -> Iterable[str]:
    yield f"{title:<10} share      busy"
    for row in rows[:_ROWS]:
        yield f"{'':<10} {row.share:>5.0%} {seconds_text(row.busy_s):>9}  {row.name}"
    if len(rows) > _ROWS:
        yield f"{'':<10} and {len(rows) - _ROWS:,} more"


def _lags(lag: Lag) -> tuple[str, ...]:
    if not lag.count:
        return "-", "-", "-"
    return seconds_text(lag.p50_s), seconds_text(lag.p99_s), seconds_text(lag.max_s)


def _ago(seconds: float) -> str:
    seconds = max(0.0, seconds)
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def findings_count(findings: Sequence[Finding]) -> str:
    """Say how many findings there are, and what the worst is about."""
    if not findings:
        return "nothing found"
    more = "1 finding" if len(findings) == 1 else f"{len(findings)} findings, the worst"
    return f"{more}: {findings[0].code}; '%loopnb doctor' explains"


def findings_text(findings: Sequence[Finding], looked_at: str) -> str:
    """List *findings*, each with what to do, and say what was looked at."""
    if not findings:
        return f"Nothing found. {looked_at}"
    lines: list[str] = []
    for finding in findings:
        at = f"  at {finding.place}" if finding.place else ""
        lines += [f"{finding.severity:<9}{finding.code}{at}"]
        lines += [f"         {finding.summary}", f"         -> {finding.remedy}"]
    return "\n".join([*lines, "", looked_at])
