"""Guarding a kernel's loop: what to warn of where, and the kernel's orderly end."""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Any

from loopnb.errors import LoopWarning
from loopnb.frames import NOBODYS, users_place
from loopnb.tracking.cells import current_cell

if TYPE_CHECKING:
    from loopnb.loop.guard import Nested
    from loopnb.records import Describe
    from loopnb.session import Session
    from loopnb.shell.cells import Cells


class Warnings:
    """Shows a warning at the user's line, once for each line of each cell."""

    def __init__(self, describe: Describe) -> None:
        self._describe = describe
        self._shown: set[tuple[str | None, str, int, str]] = set()

    def warn(self, text: str) -> None:
        """Warn of what the user's innermost line does now."""
        filename, line = users_place()
        if filename == NOBODYS:
            self.warn_once(text)
            return
        cell = current_cell.get()
        key = (None if cell is None else cell.cell_id, filename, line, text)
        if key not in self._shown:
            self._shown.add(key)
            text = f"{self._describe(filename, line, cell)}: {text}"
            warnings.warn_explicit(text, LoopWarning, filename, line)

    def warn_once(self, text: str) -> None:
        """Warn of something that no single line did."""
        if (None, "", 0, text) not in self._shown:
            self._shown.add((None, "", 0, text))
            warnings.warn_explicit(text, LoopWarning, "loopnb", 0)


def place_text(describe: Describe) -> str:
    """Return how a person would call the user's innermost line, such as `In[3], line 4`."""
    return describe(*users_place(), current_cell.get())


def innermost(session: Session, cells: Cells) -> Nested | None:
    """Return the nested run that `loop.stop()` ends: the cell's, or when no cell has any, the newest.

    What callbacks have begun since is nested in that: they belong to no task.
    """
    if session.nesting.name == "nest-asyncio":
        return session.nesting.newest_reentrant()
    engine = session.engine
    waits = list(reversed(engine.waits)) if engine is not None else []
    if any(wait.is_foreground for wait in waits):
        waits = [wait for wait in waits if wait.is_foreground or wait.task is None]
    elif cells.is_inside_cell():
        return None
    return waits[0] if waits else None


def run_of_caller(session: Session, cells: Cells) -> asyncio.Task[Any] | None:
    """Return the task with whose end the run ends that the caller is part of; None in a cell itself.

    That is the main task of its `asyncio.run()`, or else the outermost that awaits the running one, as
    `gather()` and `wait_for()` have it. A callback is part of what `loop.stop()` would end there.
    """
    if not session.owner.is_home():
        return None
    task = asyncio.current_task(session.loop) if session.owner.is_inside() else None
    if task is None:
        future = getattr(innermost(session, cells), "future", None)
        return future if isinstance(future, asyncio.Task) else None
    run = session.tracker.origin_of(task).run
    if run is not None and run.main is not None:
        return run.main
    chain = session.tracker.awaiting(task)
    for one in chain:
        if cells.is_foreground(one):  # a cell's own, or that of a `%%aloop`, which is a run
            return None if cells.is_top_level(one) else one
    return chain[-1]


def wait_forever(session: Session, future: asyncio.Future[Any]) -> None:
    """Park the calling stack until *future* is done: a nested `run_forever()`."""
    if session.nesting.name == "nest-asyncio":
        session.loop.run_until_complete(future)
        return
    engine = session.engine
    if engine is None:
        raise RuntimeError("This event loop is already running")
    engine.check_place()
    engine.wait(future, owned=True)


def is_background(session: Session, task: asyncio.Task[Any]) -> bool:
    """Say whether a cell executes that has not spawned *task*."""
    return session.cell is not None and session.tracker.origin_of(task).cell != session.cell
