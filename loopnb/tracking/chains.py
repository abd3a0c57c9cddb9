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
from loopnb.tracking.suspended import Words, code_of, frame_of, instruction_of, links_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType

    from loopnb.nesting.engine import Wait
    from loopnb.records import CellRef, TaskRecord
    from loopnb.tracking.suspended import KnownCodes

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
        links: What runs in it, outermost first: coroutines and other awaitables. For a parked task, frames,
            and only those that the user wrote or installed.
        waited: The future that the task waits for; None if it is parked, or due to step.
        wait: The nested run that the task waits in; None if it is not parked.
    """

    links: list[Any]
    waited: asyncio.Future[Any] | None
    wait: Wait | None

    @property
    def nested(self) -> asyncio.Future[Any] | None:
        """What the task awaits in a nested run; None if it is not parked."""
        return None if self.wait is None else self.wait.future

    @property
    def frames(self) -> list[FrameType]:
        """The frames of its links. Each takes 500 bytes for as long as its coroutine lives."""
        return [frame for link in self.links if (frame := frame_of(link)) is not None]


_NOTHING, _NESTED, _FUTURE = Words(""), Words("a nested run"), Words("a future", is_shared=True)


def chain_of(task: asyncio.Task[Any]) -> Chain:
    """Return the await chain of *task*. This makes no frame objects."""
    waited = waited_future(task)
    # A task that waits for a future is in no step, so it cannot be parked in one.
    wait = _wait_of(task) if waited is None else None
    # While a stack is about to be parked, or resumes, its greenlet has no frame to show.
    if wait is None or wait.stack is None or wait.stack.gr_frame is None:
        return Chain(links_of(task.get_coro()), waited, None)
    stack = stack_of(wait.stack.gr_frame)
    return Chain([frame for frame in stack if is_users(frame.f_code)], None, wait)


def is_parked(task: asyncio.Task[Any]) -> bool:
    """Return True if *task* waits in a nested run."""
    return chain_of(task).wait is not None


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


def waits_at(chain: Chain, codes: KnownCodes, cell: CellRef | None) -> str:
    """Return `function file:line` of the innermost link that the user wrote or installed, else "".

    The text depends on the code, the instruction and the cell only.

    Args:
        chain: The chain.
        codes: Formats places, and remembers the texts.
        cell: The cell whose code runs.
    """
    for link in reversed(chain.links):
        code = code_of(link)
        known = codes.of(code)
        if known.is_users:
            place = codes.place(code, instruction_of(link), cell)
            # A cell's own lines are in `<module>` or the like: the place says as much.
            return place if known.name.startswith("<") else f"{known.name} {place}"
    return ""


def waits_for(chain: Chain, codes: KnownCodes) -> Words:
    """Return what the task with that chain waits for, in words."""
    nested = chain.nested
    if isinstance(nested, asyncio.Task):
        return Words(f"nested {nested.get_name()}", has_names=True)
    if nested is not None:
        return _NESTED
    future = chain.waited
    if future is None:
        return _NOTHING
    if isinstance(future, asyncio.Task):
        return Words(f"task {future.get_name()}", has_names=True)
    if (children := _cpython.gathered(future)) is not None:
        pending = sum(not child.done() for child in children)
        return Words(f"gather, {pending} of {len(children)} pending", changes=True)
    if chain.links:
        known = codes.of(code_of(chain.links[-1]))
        if not known.is_users:
            return known.called
    return _FUTURE


def awaited_by(task: asyncio.Task[Any], chain: Chain | None = None) -> list[asyncio.Task[Any]]:
    """Return the live tasks that *task* waits for.

    It looks at nested runs and awaits, and across `gather()`, `wait()`, `wait_for()` and the end of a
    TaskGroup.

    Args:
        task: The task.
        chain: Its chain, if you have it already.
    """
    chain = chain_of(task) if chain is None else chain
    waited, nested = chain.waited, chain.nested
    found: list[Any] = []
    if waited is not None:
        found = list(_cpython.gathered(waited) or [waited])
    found += _cpython.awaited_in(chain.links)
    found.append(_cpython.waited_by_wait_for(chain.links))
    live = {future for future in found if isinstance(future, asyncio.Task) and not future.done()}
    below = [nested] if isinstance(nested, asyncio.Task) else []
    return [*below, *sorted(live, key=asyncio.Task.get_name)]


def where_lines(known: KnownTasks, task: asyncio.Task[Any]) -> Iterator[str]:
    """Say where *task* waits, a line for each link of its chain and for each task that it waits for."""
    yield from _where_lines(known, task, "", set(), 0)


def _where_lines(
    known: KnownTasks, task: asyncio.Task[Any], indent: str, seen: set[int], depth: int
) -> Iterator[str]:
    record = known.record(task)
    seen.add(record.number)
    chain = chain_of(task)
    for link in chain.links:
        code = code_of(link)
        if is_ours(code.co_filename):
            continue
        place = known.place(code, instruction_of(link), record.cell)
        name = code.co_qualname
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
