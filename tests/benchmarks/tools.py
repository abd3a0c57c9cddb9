"""The tools that are compared, and how to switch on each of them."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.peers import PEERS, isolate

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator
    from pathlib import Path

    from loopnb.tracking.listing import Listing
    from loopnb.tracking.tracker import Tracker


@dataclass(frozen=True)
class Tool:
    """One column of the table.

    Attributes:
        name: The heading of the column.
        distribution: The package whose version the report names, or None for what comes with Python.
        apply: Switches the tool on for a loop that does not run yet.
        nests: Blocking calls work inside a running loop.
        is_bare: The probes run with it. They need not run twice with the same engine.
        extension: What users load or import to get it, or None.
    """

    name: str
    distribution: str | None
    apply: Callable[[asyncio.AbstractEventLoop], None]
    nests: bool = True
    is_bare: bool = True
    extension: str | None = None


def _nothing(_loop: asyncio.AbstractEventLoop) -> None: ...


def _loopnb(loop: asyncio.AbstractEventLoop) -> None:
    from loopnb import nesting

    nesting.apply(loop)


def track(loop: asyncio.AbstractEventLoop) -> Tracker:
    """Nest and track on *loop*, and return its tracker."""
    from loopnb.tracking.tracker import Tracker

    _loopnb(loop)
    tracker = Tracker(
        loop,
        describe=lambda filename, line, cell=None: f"{filename}:{line}",
        is_kernels=lambda _code: False,
    )
    tracker.install()
    return tracker


def fresh_listing(tracker: Tracker) -> Listing:
    """Return a listing that has not looked yet. Texts about code may be known."""
    from loopnb.tracking.listing import Listing

    return Listing(tracker._loop, tracker, tracker.codes)


def tree_of_tasks(tracker: Tracker) -> Generator[None, None, str]:
    """Return who waits for whom, as text. Yields often, as `%loopnb tree` lets the loop turn."""
    from loopnb import trees
    from loopnb.tracking import graph

    edges = yield from graph.slices(tracker)
    roots = yield from trees.roots_of(edges.records, edges.awaits, lambda _task: True)
    tree = yield from trees.tree_of(edges.records, edges.awaits, roots)
    return (yield from trees.tree_text(tree, edges, tracker.clock(), {}))


def _loopnb_tracking(loop: asyncio.AbstractEventLoop) -> None:
    track(loop)


def _applied(module: str) -> Callable[[asyncio.AbstractEventLoop], None]:
    def apply(loop: asyncio.AbstractEventLoop) -> None:
        importlib.import_module(module).apply(loop)

    return apply


def _applied_to_all(module: str) -> Callable[[asyncio.AbstractEventLoop], None]:
    def apply(_loop: asyncio.AbstractEventLoop) -> None:
        importlib.import_module(module).apply()

    return apply


def prepare(tool: Tool, folder: Path) -> None:
    """Have an import find *tool*, here and in processes that are started here, even if another has its name.

    Args:
        tool: The tool that this process measures.
        folder: An empty folder.
    """
    if tool.distribution in PEERS:
        isolate(tool.distribution, folder)
        sys.path.insert(0, str(folder))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


STOCK = Tool("stock", None, _nothing, nests=False)
LOOPNB = Tool("loopnb", "loopnb", _loopnb, extension="loopnb")
TRACKING = Tool("loopnb, tracking", "loopnb", _loopnb_tracking, is_bare=False)
NEST_ASYNCIO = Tool("nest_asyncio", "nest-asyncio", _applied("nest_asyncio"), extension="nest_asyncio")
NEST_ASYNCIO2 = Tool("nest_asyncio2", "nest-asyncio2", _applied("nest_asyncio2"), extension="nest_asyncio2")
ANEST_ASYNCIO = Tool("anest-asyncio", "anest-asyncio", _applied("nest_asyncio"), extension="nest_asyncio")
RELOOP = Tool("reloop", "reloop", _applied_to_all("reloop"), extension="reloop")

#: From 3.14 on, importing nest_asyncio breaks `current_task`. reloop alone breaks it there, and on 3.12.
TOOLS = [
    STOCK,
    LOOPNB,
    TRACKING,
    *([NEST_ASYNCIO] if sys.version_info < (3, 14) else []),
    NEST_ASYNCIO2,
    ANEST_ASYNCIO,
    *([RELOOP] if sys.version_info[:2] in {(3, 11), (3, 13)} else []),
]
BY_NAME = {tool.name: tool for tool in TOOLS}
