"""Describe where a task waits: its frames down to the innermost await, and the tasks that it awaits.

Everything here runs in the loop's thread and takes live tasks. It only reads frames, and runs no code of the
user's.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from loopnb.frames import is_ours, is_users, outwards
from loopnb.nesting._cpython import waited_future
from loopnb.nesting.loop_task import wait_of
from loopnb.nesting.scope import engine_of
from loopnb.tracking import _cpython

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

    from loopnb.records import CellRef, TaskRecord

#: How many of the tasks that one task awaits `where_lines` follows. It says if there are more.
_WIDEST = 20
#: How deep `where_lines` follows tasks that await other tasks.
_DEEPEST = 50


class KnownTasks(Protocol):
    """Knows the tasks of a loop."""

    def record(self, task: asyncio.Task[Any]) -> TaskRecord:
        """Return what *task* is doing, or how it ended."""

    def number_of(self, task: asyncio.Task[Any]) -> int:
        """Return the number of *task*."""

    def place(self, code: CodeType | None, instruction: int, cell: CellRef | None) -> str:
        """Return how to show the line of that instruction of *code*. The code runs for *cell*."""


class Chain(NamedTuple):
    """The await chain of a task.

    Attributes:
        frames: Outermost first. For a parked task, only the frames that the user wrote or installed.
        nested: What the task awaits in a nested run; None if it is not parked.
    """

    frames: list[FrameType]
    nested: asyncio.Future[Any] | None


def chain_of(task: asyncio.Task[Any]) -> Chain:
    """Return the await chain of *task*."""
    wait = _wait_of(task)
    # While a stack is about to be parked, or resumes, its greenlet has no frame to show.
    if wait is None or wait.stack is None or wait.stack.gr_frame is None:
        return Chain(list(_cpython.frames_of(task.get_coro())), None)
    stack = stack_of(wait.stack.gr_frame)
    return Chain([frame for frame in stack if is_users(frame.f_code)], wait.future)


def is_parked(task: asyncio.Task[Any]) -> bool:
    """Return True if *task* waits in a nested run."""
    return chain_of(task).nested is not None


def _wait_of(task: asyncio.Task[Any]) -> Any:
    """Return the nested run that *task* waits in; None if it is in none."""
    wait: Any = wait_of(task)
    engine = engine_of(task.get_loop())
    if wait is None and engine is not None:  # a task of another class does not know its wait
        wait = next((nested for nested in engine.waits if nested.task is task), None)
    return wait


def stack_of(frame: FrameType | None) -> list[FrameType]:
    """Return *frame* and its callers, outermost first."""
    return list(islice(outwards(frame), sys.getrecursionlimit()))[::-1]


def waits_at(chain: Chain, describe: Callable[[str, int], str]) -> str:
    """Return `function file:line` of the innermost frame that the user wrote or installed, else ""."""
    for frame in reversed(chain.frames):
        if is_users(frame.f_code):
            place = describe(frame.f_code.co_filename, frame.f_lineno)
            name = frame.f_code.co_qualname
            # A cell's own lines are in `<module>` or the like: the place says as much.
            return place if name.startswith("<") else f"{name} {place}"
    return ""


def waits_for(task: asyncio.Task[Any], chain: Chain) -> str:
    """Return what *task* waits for, in words, else ""."""
    if isinstance(chain.nested, asyncio.Task):
        return f"nested {chain.nested.get_name()}"
    if chain.nested is not None:
        return "a nested run"
    future = waited_future(task)
    if future is None:
        return ""
    if isinstance(future, asyncio.Task):
        return f"task {future.get_name()}"
    if (children := _cpython.gathered(future)) is not None:
        pending = sum(not child.done() for child in children)
        return f"gather, {pending} of {len(children)} pending"
    if chain.frames and not is_users(chain.frames[-1].f_code):
        return f"{chain.frames[-1].f_code.co_qualname}()"
    return "a future"


def awaited_by(task: asyncio.Task[Any], chain: Chain | None = None) -> list[asyncio.Task[Any]]:
    """Return the live tasks that *task* waits for.

    It looks at nested runs and awaits, and across `gather()`, `wait()`, `wait_for()` and the end of a
    TaskGroup.

    Args:
        task: The task.
        chain: Its chain, if you have it already.
    """
    frames, nested = chain_of(task) if chain is None else chain
    waited = waited_future(task)
    found: list[Any] = []
    if waited is not None:
        found = list(_cpython.gathered(waited) or [waited])
    found += _cpython.awaited_in(frames)
    found.append(_cpython.waited_by_wait_for(frames))
    live = {future for future in found if isinstance(future, asyncio.Task) and not future.done()}
    below = [nested] if isinstance(nested, asyncio.Task) else []
    return [*below, *sorted(live, key=asyncio.Task.get_name)]


def where_lines(known: KnownTasks, task: asyncio.Task[Any]) -> Iterator[str]:
    """Say where *task* waits, a line for each of its frames and for each task that it waits for."""
    yield from _where_lines(known, task, "", set(), 0)


def _where_lines(
    known: KnownTasks, task: asyncio.Task[Any], indent: str, seen: set[int], depth: int
) -> Iterator[str]:
    record = known.record(task)
    seen.add(record.number)
    chain = chain_of(task)
    for frame in chain.frames:
        if is_ours(frame.f_code.co_filename):
            continue
        place = known.place(frame.f_code, frame.f_lasti, record.cell)
        name = frame.f_code.co_qualname
        yield f"{indent}  {place}" if name.startswith("<") else f"{indent}  {name}()  {place}"
    if record.waits_for:
        yield f"{indent}  waits for {record.waits_for}"
    for count, awaited in enumerate(awaited_by(task, chain)):
        if count == _WIDEST or depth == _DEEPEST:
            yield f"{indent}    and more tasks"
            return
        number = known.number_of(awaited)
        is_known = number in seen
        yield f"{indent}    task {number} {awaited.get_name()!r}{' (see above)' if is_known else ''}"
        if not is_known:
            yield from _where_lines(known, awaited, indent + "    ", seen, depth + 1)
