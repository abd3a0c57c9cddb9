"""Count the bytecodes that an operation runs, function by function, to see where the time goes.

The counts are the same on every machine, however busy. They leave out what is done in C, such as switching
stacks and Contexts.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

    from tests.benchmarks.tools import Tool

_OPERATIONS = 20


async def _nested_run(nests: bool) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(_OPERATIONS):
        if nests:
            loop.run_until_complete(asyncio.sleep(0))
        else:
            await loop.create_task(asyncio.sleep(0))


async def _noop() -> None: ...


async def _spawn(_nests: bool) -> None:
    await asyncio.gather(*[_noop() for _ in range(_OPERATIONS)])


async def _steps(_nests: bool) -> None:
    for _ in range(_OPERATIONS):
        await asyncio.sleep(0)


#: The cases whose figures the README's table compares with stock asyncio.
CASES: dict[str, Callable[[bool], Awaitable[None]]] = {
    "nested run_until_complete(sleep(0))": _nested_run,
    "spawn and gather(), each task": _spawn,
    "task step, await sleep(0)": _steps,
}


def count(tool: Tool, case: str) -> dict[str, float]:
    """Count, by function, the bytecodes that one operation of *case* runs with *tool*."""
    counted: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            counted[_name(frame)] += 1
        return trace

    async def main() -> None:
        await CASES[case](tool.nests)
        sys.settrace(trace)
        await CASES[case](tool.nests)
        sys.settrace(None)

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    tool.apply(loop)
    loop.run_until_complete(main())
    return {name: found / _OPERATIONS for name, found in counted.items()}


def _name(frame: FrameType) -> str:
    return (
        f"{frame.f_globals.get('__name__', '?')}.{getattr(frame.f_code, 'co_qualname', frame.f_code.co_name)}"
    )


def table(counted: list[dict[str, float]], most: int = 16) -> list[list[str]]:
    """List up to *most* functions that cost more in the last of *counted* than in the first."""
    first, last = counted[0], counted[-1]
    more = {name: last.get(name, 0.0) - first.get(name, 0.0) for name in {*first, *last}}
    shown = sorted((name for name in more if more[name] > 0.5), key=lambda name: -more[name])[:most]
    rows = [[name, *(found.get(name, 0.0) for found in counted)] for name in shown]
    others = [sum(found.values()) - sum(found.get(name, 0.0) for name in shown) for found in counted]
    rows = [["all", *(sum(found.values()) for found in counted)], *rows, ["other functions", *others]]
    return [[str(name), *(f"{number:.0f}" for number in numbers)] for name, *numbers in rows]
