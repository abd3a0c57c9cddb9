"""Say all that is known of one task, for a row that was opened.

Call everything in the loop's thread. The only code of the user's that it runs is what `tracking.details`
names, and once the `repr` of a result and the `str` of an error.
"""

from __future__ import annotations

import asyncio
import re
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

from loopnb._cpython import loop_of_task
from loopnb.frames import users_frames
from loopnb.texts import repr_text
from loopnb.tracking.chains import LOCKS, chain_of, kind_at_once, reason_of
from loopnb.tracking.details import detail_of
from loopnb.tracking.suspended import code_of, instruction_of
from loopnb.tracking.tracked import has_origin
from loopnb.watch.texts import block_text, kept_text
from loopnb.widgets.protocol import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from loopnb.records import AwaitGraph, Block, Describe, TaskRecord
    from loopnb.tracking.history import EndedTask
    from loopnb.tracking.tracker import Tracker

_LONGEST = 5_000
"""How many characters of a traceback are sent: its begin, and twice as many of its end."""
_RESULT = 1_000
_LINKS = 40
_AWAITED = 12


def chain_lines(tracker: Tracker, task: asyncio.Task[Any], *, many: bool) -> list[dict[str, Any]]:
    """Return the await chain of a live task, outermost first, down to what it waits for.

    Args:
        tracker: Knows the tasks.
        task: The task.
        many: There are too many tasks to look for the holder of a lock.
    """
    chain = chain_of(task)
    cell = tracker.origin_of(task).cell
    lines = []
    for link in chain.links[-_LINKS:]:
        try:
            code, instruction = code_of(link), instruction_of(link)
        except AssertionError:  # an awaitable in C, or of the user's own
            lines.append(_line(type(link).__name__))
            continue
        lines.append(_line(f"{code.co_qualname}()", tracker.place(code, instruction, cell)))
    if not (many and kind_at_once(task, tracker.codes) in LOCKS):
        found = detail_of(tracker, task)
        if found.text:
            state = f" ({found.state})" if found.state else ""
            lines.append({**_line(f"waits for {found.text}{state}"), "due_s": found.due_at})
    loop = loop_of_task(task)
    awaited = [below for below in reason_of(chain).tasks if loop_of_task(below) is loop]
    for below in awaited[:_AWAITED]:
        record = tracker.record(below)
        lines.append(_line(record.label, record.waits_at, record.number))
    return lines


def _line(text: str, place: str = "", number: int | None = None) -> dict[str, Any]:
    return {"text": cut(text), "place": cut(place), "task": number, "due_s": None}


def awaited_by(graph: AwaitGraph | None, number: int) -> list[dict[str, Any]]:
    """Return the tasks that wait for the one with that number, as far as *graph* knows."""
    if graph is None:
        return []
    above = [other for other, below in graph.awaits.items() if number in below]
    return [
        {"number": other, "label": cut(graph.records[other].label)}
        for other in above[:_AWAITED]
        if other in graph.records
    ]


def outcome(task: asyncio.Task[Any] | None, ended: EndedTask | None, describe: Describe) -> dict[str, str]:
    """Return result and traceback of a task that has ended, as text.

    Args:
        task: The task, if something still refers to it.
        ended: What the history says of it.
        describe: Formats file and line for people.
    """
    result = ""
    if task is not None and has_origin(task) and ended is not None and ended.state == "returned":
        result = repr_text(asyncio.Future.result(task), _RESULT)  # whatever its class says
    text = ""
    if ended is not None and ended.error is not None:
        text = traceback_text(ended.error, partial(describe, cell=ended.origin.cell))
    return {"result": cut(result, _RESULT), "traceback": text}


#: A frame in a traceback: its file, and its line.
_FRAME = re.compile(r'^  File "([^"\n]+)", line (\d+)', re.MULTILINE)


def traceback_text(error: BaseException, place: Callable[[str, int], str]) -> str:
    """Return the traceback of *error*, without our own frames; begin and end of it if it is long.

    Args:
        error: The error.
        place: Formats file and line for people. What it says of cells stands in the place of their files,
            which are temporary ones.
    """

    def shown(frame: re.Match[str]) -> str:
        text = place(frame[1], int(frame[2]))
        return f"  {text}" if text.startswith("In[") else frame[0]

    try:
        lines = traceback.format_exception(type(error), error, users_frames(error.__traceback__))
    except Exception:  # noqa: BLE001  an error of the user's own class may do anything
        return type(error).__name__
    text = _FRAME.sub(shown, "".join(lines))
    if len(text) > _LONGEST:
        # The message may be long, or there may be many frames.
        text = f"{text[: _LONGEST // 3]}\n…\n{text[-_LONGEST * 2 // 3 :]}"
    return cut(text, _LONGEST + 3)


def detail(
    row: Mapping[str, Any],
    record: TaskRecord,
    *,
    chain: list[dict[str, Any]],
    awaited: list[dict[str, Any]],
    parents: list[str],
    blocks: Iterable[Block],
    output: list[str],
    outcome: Mapping[str, str],
    cancelled_by: str,
) -> dict[str, Any]:
    """Put together what is known of one task. All texts are cut, so that the whole fits into a message."""
    own = [block for block in blocks if block.task == record.number][-5:]
    lines = [" ".join(filter(None, (f"{block_text(block)}.", _kept(block)))) for block in own]
    return {
        "row": dict(row),
        "chain": chain,
        "awaited_by": awaited,
        "parents": [cut(parent) for parent in parents[:_AWAITED]],
        "spawn_site": cut(record.spawn_site),
        "blocks": [cut(line) for line in lines],
        "output": output,
        "cancelled_by": cancelled_by,
        **outcome,
    }


def _kept(block: Block) -> str:
    kept = kept_text(block)
    return f"It kept waiting: {kept}." if kept else ""
