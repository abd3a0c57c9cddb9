"""Find the task that holds a lock. asyncio's locks themselves do not know it.

A coroutine inside `async with lock:` holds the lock's `__aexit__` on its value stack, where the garbage
collector finds it. Up to Python 3.13, the collector does not if the stack is parked in a nested run. Then we
read the source text: the holder is inside an `async with` block whose expression leads to the lock.

We cannot find the holder of a lock that was taken by a bare `await lock.acquire()`.

Everything here runs in the loop's thread, and runs no code of the user's.
"""

from __future__ import annotations

import ast
import linecache
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from loopnb._cpython import parse
from loopnb.tracking.suspended import code_of, instruction_of
from loopnb.tracking.waits import locks_held_in

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Iterator
    from types import CodeType

    from loopnb.tracking.chains import Chain


class Holder(NamedTuple):
    """Who holds a lock, and where.

    Attributes:
        task: The task.
        code: The code that is inside the `async with` block.
        instruction: The offset of the instruction that it has reached.
    """

    task: asyncio.Task[Any]
    code: CodeType
    instruction: int


def holders_of(
    wanted: dict[int, Any], chains: Iterable[tuple[asyncio.Task[Any], Chain]]
) -> Iterator[tuple[int, Holder]]:
    """Yield the holders of some locks and semaphores, each with the id of its lock.

    Args:
        wanted: The locks, by their ids.
        chains: Every task that may hold one, with its chain.
    """
    for task, chain in chains:
        for lock, link in _held_in(chain, wanted):
            if id(lock) in wanted:
                code, instruction = code_of(link), instruction_of(link)
                yield id(lock), Holder(task, code, instruction)


def _held_in(chain: Chain, wanted: dict[int, Any]) -> Iterator[tuple[Any, Any]]:
    yield from locks_held_in([_coroutine_of(link) for link in chain.links])
    for link in chain.links:
        if type(link) is FrameType and _coroutine_of(link) is link:
            yield from ((lock, link) for lock in _named_in(link) if id(lock) in wanted)


def _coroutine_of(link: Any) -> Any:
    """Return the coroutine that runs in the frame *link* (`frame.f_generator`, from 3.14 on), else *link*."""
    if type(link) is not FrameType:
        return link
    coroutine = getattr(link, "f_generator", None)
    return link if coroutine is None else coroutine


# -- by the source text ---------------------------------------------------------------------------


def _named_in(frame: FrameType) -> Iterator[Any]:
    """Yield what the `async with` blocks around the current line of *frame* have entered."""
    source = "".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals))
    try:
        tree = parse(source)
    except (SyntaxError, ValueError):  # a cell with magics in it, or no source at all
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncWith) and _is_within(frame.f_lineno, node.body):
            for item in node.items:
                yield value_of(item.context_expr, frame)


def _is_within(line: int, body: list[ast.stmt]) -> bool:
    return body[0].lineno <= line <= (body[-1].end_lineno or body[-1].lineno)


def value_of(expression: ast.expr, frame: FrameType) -> Any:
    """Look *expression* up without running any code: variables and plain attributes only."""
    if isinstance(expression, ast.Name):
        name = expression.id
        return frame.f_locals.get(name, frame.f_globals.get(name))
    if isinstance(expression, ast.Attribute):
        return attributes_of(value_of(expression.value, frame)).get(expression.attr)
    return None


def attributes_of(value: Any) -> dict[str, Any]:
    """Return the attributes that *value* itself holds. Runs no code of its class."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found if type(found) is dict else {}
