"""Say in one line what the loop does, and gather the rest of the widget's header. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from loopnb.watch.sources import callee
from loopnb.watch.texts import remedy
from loopnb.widgets.protocol import cut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loopnb.records import Block, Finding, Lag, LoopState
    from loopnb.widgets import protocol
    from loopnb.widgets.table import Tasks

#: How many cells the filter offers, the newest first.
_CELLS = 50
#: The states of live tasks that are counted.
_COUNTED = ("waiting", "ready", "running", "parked", "cancelling")


class Doing(NamedTuple):
    """What the loop does.

    Attributes:
        condition: `idle`, `busy` (no cell executes, but tasks are ready), or as in `LoopState`.
        text: The same as a clause.
    """

    condition: str
    text: str


def doing(loop: LoopState, states: Mapping[str, int]) -> Doing:
    """Return what the loop does at a moment at which it turns.

    Args:
        loop: Its state.
        states: How many of the user's tasks are in each state.
    """
    cell = str(loop.cell) if loop.cell is not None else "a cell"
    if loop.condition == "closed":
        return Doing("closed", "closed")
    if loop.condition == "set aside":
        return Doing("set aside", cut(loop.detail) or "set aside")
    if loop.condition == "nested":
        return Doing("nested", cut(loop.detail) or f"{cell} runs, and waits in a nested run")
    if loop.condition == "running":
        return Doing("running", f"{cell} runs")
    ready = states.get("ready", 0) + states.get("running", 0)
    if ready:
        return Doing("busy", "1 task runs" if ready == 1 else f"{ready:,} tasks run")
    return Doing("idle", "idle")


def head_of(
    loop: LoopState,
    tasks: Tasks,
    *,
    since: float | None,
    ended: tuple[int, int],
    lag: protocol.Lag | None,
    findings: Sequence[Finding],
) -> protocol.Head:
    """Return the header.

    Args:
        loop: The loop's state.
        tasks: The live tasks.
        since: Since when the loop does what it does, in monotonic seconds; None if unknown.
        ended: How many of the ended tasks that are kept ended well, and how many failed.
        lag: How late the loop is; None if nobody measures that.
        findings: What the doctor has found, worst first.
    """
    condition, text = doing(loop, tasks.states)
    counts = {state: tasks.states.get(state, 0) for state in _COUNTED}
    finished, failed = ended
    cells = sorted(tasks.cells, reverse=True)[:_CELLS]
    return {
        "kind": cut(loop.kind),
        "generation": loop.generation,
        "engine": loop.engine,
        "condition": condition,
        "text": text,
        "since_s": since,
        "cell": None if loop.cell is None else str(loop.cell),
        "parked": loop.parked,
        "tasks": sum(counts.values()),
        "counts": {**counts, "finished": finished, "failed": failed},
        "lag": lag,
        "finding": _finding(findings),
        "mended": cut("; ".join(loop.notes)),
        "leftovers": tasks.leftovers,
        "cells": [f"In[{cell}]" for cell in cells],
    }


def _finding(findings: Sequence[Finding]) -> protocol.Finding | None:
    if not findings:
        return None
    worst = findings[0]
    return {
        "severity": worst.severity,
        "summary": cut(worst.summary),
        "remedy": cut(worst.remedy),
        "more": len(findings) - 1,
    }


def lag_of(lag: Lag, recent_s: Sequence[float]) -> protocol.Lag | None:
    """Return how late the loop was, in milliseconds; None if nothing was measured.

    Args:
        lag: The last minute.
        recent_s: The worst of each of its seconds, the oldest first, in seconds.
    """
    if not lag.count:
        return None
    return {
        "p50_ms": _ms(lag.p50_s),
        "p99_ms": _ms(lag.p99_s),
        "max_ms": _ms(lag.max_s),
        "recent": [_ms(late_s) for late_s in recent_s],
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def block_of(block: Block, now: float, group: str | None) -> protocol.Block:
    """Return what blocks the loop, for the views.

    Args:
        block: The block, which is not over.
        now: Monotonic seconds.
        group: The key of the group to which its task belongs.
    """
    who = block.place if block.by == "cell" and block.place else block.name
    if block.by == "task" and block.place:
        who = f"{block.name}, {block.place}"
    # Code that computes has no call to name, but an expression of its line.
    call = block.call if "(" in block.call else _PLAIN.get(block.how, "")
    doing_what = callee(call).removesuffix("()")
    return {
        "text": cut(f"{who}: {doing_what}" if doing_what else who),
        "is_standstill": False,
        "place": cut(block.place),
        "call": cut(call),
        "since_s": round(now - block.lasted_s, 2),
        "remedy": cut(remedy(block)),
        "task": block.task,
        "group": group,
    }


def standstill_of(loop: LoopState, since: float) -> protocol.Block | None:
    """Return what the views show while the loop stands still and nobody blocks it; None if no cell executes.

    Args:
        loop: Its state.
        since: Since when the cell executes or the loop stands still, in monotonic seconds.
    """
    if loop.cell is None:
        return None
    return {
        "text": doing(loop, {}).text,
        "is_standstill": True,
        "place": "",
        "call": "",
        "since_s": round(since, 2),
        "remedy": "",
        "task": None,
        "group": None,
    }


#: The words for a block in which no call can be named.
_PLAIN = {"computes": "computing", "garbage": "collecting garbage", "gil": "C code holds the GIL"}
