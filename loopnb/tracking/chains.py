"""Describe where a task waits: its frames down to the innermost await, and the tasks that it awaits.

Everything here runs in the loop's thread and takes live tasks. It only reads frames, and runs no code of the
user's but what `suspended.py` names.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from loopnb._cpython import coro_of, is_done, loop_of_task, name_of
from loopnb.frames import is_users, outwards
from loopnb.nesting._cpython import waited_future
from loopnb.nesting.loop_task import wait_of
from loopnb.nesting.scope import engine_of
from loopnb.tracking import _cpython, waits
from loopnb.tracking.suspended import Words, code_of, instruction_of, links_of

if TYPE_CHECKING:
    from types import FrameType

    from loopnb.nesting.engine import Wait
    from loopnb.records import CellRef
    from loopnb.tracking.suspended import KnownCodes, Path
    from loopnb.tracking.waits import Reason


class Chain(NamedTuple):
    """The await chain of a task.

    Attributes:
        links: What runs in it, outermost first: coroutines and other awaitables. For a parked task: frames,
            but only of code that the user wrote or installed.
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


_NOTHING, _NESTED, _FUTURE = Words(""), Words("a nested run"), Words("a future", is_shared=True)


def chain_of(task: asyncio.Task[Any]) -> Chain:
    """Return the await chain of *task*. Makes frame objects only for parked tasks and async generators."""
    waited = waited_future(task)
    # A task that waits for a future is in no step, so it cannot be parked in one.
    wait = _wait_of(task) if waited is None else None
    # While a stack is about to be parked, or resumes, its greenlet has no frame to show.
    if wait is None or wait.stack is None or wait.stack.gr_frame is None:
        return Chain(links_of(coro_of(task)), waited, None)
    stack = stack_of(wait.stack.gr_frame)
    return Chain([frame for frame in stack if is_users(frame.f_code)], None, wait)


def is_parked(task: asyncio.Task[Any]) -> bool:
    """Return True if *task* waits in a nested run."""
    return chain_of(task).wait is not None


def _wait_of(task: asyncio.Task[Any]) -> Any:
    """Return the nested run that *task* waits in; None if it is in none."""
    wait: Any = wait_of(task)
    loop = loop_of_task(task)
    engine = None if loop is None else engine_of(loop)
    if wait is None and engine is not None:  # a task of another class does not know its wait
        wait = next((nested for nested in engine.waits if nested.task is task), None)
    return wait


def stack_of(frame: FrameType | None) -> list[FrameType]:
    """Return *frame* and its callers, outermost first."""
    return list(islice(outwards(frame), sys.getrecursionlimit()))[::-1]


def waits_at(chain: Chain, codes: KnownCodes, cell: CellRef | None) -> str:
    """Return `function file:line` of the innermost link that the user wrote.

    If the user wrote none, return that of the innermost link that they installed; if there is none, "". The
    text depends only on the code, the instruction and the cell.

    Args:
        chain: The chain.
        codes: Formats places, and remembers the texts.
        cell: The cell whose code runs.
    """
    index = codes.index_shown(chain.links)
    if index < 0:
        return ""
    link = chain.links[index]
    code = code_of(link)
    known = codes.of(code)
    place = codes.place(code, instruction_of(link), cell)
    # A cell's own lines are in `<module>` or the like: the place says as much.
    return place if known.name.startswith("<") else f"{known.name} {place}"


def waits_for(chain: Chain, codes: KnownCodes) -> Words:
    """Return what the task with that chain waits for, in short. `details.detail_of` says more."""
    nested = chain.nested
    if isinstance(nested, asyncio.Task):
        return Words(f"nested {name_of(nested)}", has_names=True)
    if nested is not None:
        return _NESTED
    future = chain.waited
    if future is None:
        return _NOTHING
    if isinstance(future, asyncio.Task):
        return Words(f"task {name_of(future)}", has_names=True)
    if (children := _cpython.gathered(future)) is not None:
        pending = sum(not is_done(child) for child in children)
        return Words(f"gather, {pending} of {len(children)} pending", changes=True)
    depth, rule = waits.rule_within(chain.links)
    if rule is not None:
        known = codes.of(code_of(chain.links[depth]))
        text = _KINDS.get(rule.kind)
        return known.called if text is None else Words(text, is_shared=True)
    # The function that the user's line has called tells more than those inside it.
    below = codes.index_shown(chain.links) + 1
    if below < len(chain.links):
        return codes.of(code_of(chain.links[below])).called
    return _FUTURE


#: The kinds of waits that end when a holder releases what it holds.
LOCKS = {"lock", "semaphore"}

#: The words of a list for kinds of waits where the name of the function would say too little.
_KINDS = {
    "tasks": "wait()",
    "group": "the tasks of its group",
    "as completed": "the next of as_completed()",
    "read": "bytes from a stream",
    "receive": "bytes from a socket",
    "drain": "room to send",
    "send": "room to send",
    "connect": "a connection",
    "connect path": "a connection",
    "connect address": "a connection",
    "accept": "somebody to connect",
    "lookup": "the address of a host",
    "process": "a process to end",
    "to_thread": "a thread",
    "request": "an HTTP response",
    "send request": "an HTTP response",
    "body": "the body of an HTTP response",
}


def reason_of(chain: Chain) -> Reason:
    """Return why the task with that chain does not go on."""
    return waits.reason_of(chain.links, chain.waited, chain.nested)


def kind_at_once(task: asyncio.Task[Any], codes: KnownCodes) -> str:
    """Return the kind of wait of *task*, if the code that waits tells it in 1 us; else "".

    It does so for a task that waits for a plain future in a function for which there is a rule, once a list
    has met a task like it.
    """
    if type(waited_future(task)) is not asyncio.Future:
        return ""
    coro = coro_of(task)
    try:
        path, _codes = codes.find_path(coro)
    except KeyError:
        return ""
    if path.kind is None:
        learn_wait(path, links_of(coro))
    return path.kind or ""


def learn_wait(path: Path, links: list[Any]) -> None:
    """Remember in what kind of wait a chain ends that has that path."""
    depth, rule = waits.rule_within(links)
    kind, subject = ("", 0) if rule is None else (rule.kind, rule.subject)
    path.learn_wait(kind, depth, subject, may_hold=waits.may_hold(links))


def subject_of(task: asyncio.Task[Any], path: Path) -> Any:
    """Return what *task* waits for; None if that cannot be told. Takes 3 us.

    Args:
        task: The task.
        path: The path of its chain.
    """
    link = coro_of(task)
    depth, argument = path.subject
    for _ in range(depth):
        link = link.cr_await
    held = _cpython.held_by(link)
    return held[argument] if argument < len(held) else None


def awaited_by(task: asyncio.Task[Any], chain: Chain | None = None) -> list[asyncio.Task[Any]]:
    """Return the live tasks that *task* waits for.

    It looks at nested runs and awaits, and across `gather()`, `wait()`, `wait_for()`, `shield()`,
    `as_completed()` and the end of a TaskGroup, asyncio's or anyio's.

    Args:
        task: The task.
        chain: Its chain, if you have it already.
    """
    reason = reason_of(chain_of(task) if chain is None else chain)
    return sorted(set(reason.tasks), key=name_of)
