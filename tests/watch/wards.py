"""A tracked loop and a doctor for it, with the variables of a notebook."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from loopnb.frames import is_ours
from loopnb.tracking.failures import Failures
from loopnb.tracking.tracker import Tracker
from loopnb.watch.deadlocks import DeadlockWatch
from loopnb.watch.doctor import Doctor
from loopnb.watch.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from loopnb.records import CellRef
    from loopnb.watch.checks import Facts


class Cells:
    """No cell executes."""

    executing: CellRef | None = None

    def cell_in(self, task: asyncio.Task[Any]) -> CellRef | None:
        """Return None."""
        return None


class Variables:
    """A notebook with some variables.

    Args:
        variables: The variables.
    """

    def __init__(self, variables: dict[str, object]) -> None:
        self._variables = variables

    def names(self) -> dict[str, object]:
        """Return the variables."""
        return self._variables

    def closed_at(self, loop: asyncio.AbstractEventLoop) -> str:
        """Return a place."""
        return "In[2], line 1"

    def notes(self) -> tuple[str, ...]:
        """Return no note."""
        return ()


class Ward:
    """A tracked loop, a doctor for it, and the variables of its notebook.

    Args:
        loop: The loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.variables: dict[str, object] = {}
        self.tracker = Tracker(
            loop,
            describe=lambda file, line, cell=None: f"{file.rpartition('/')[2]}:{line}",
            is_kernels=lambda code: is_ours(code.co_filename),
        )
        self.tracker.install()
        self.failures = Failures(
            loop, is_ignored=lambda _task: False, is_executing=lambda _cell: False, delay=lambda: 0.0
        )
        self.failures.start(lambda _cell, _failures: None)
        self.doctor = Doctor(
            loop,
            self.tracker,
            Watch(loop, self.tracker, Cells()),
            self.failures,
            DeadlockWatch(self.tracker),
            Variables(self.variables),
        )

    def start(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a task, and let it run until it waits."""
        task = self.loop.create_task(coro, name=name)
        self.turn()
        return task

    def turn(self) -> None:
        """Let the loop make a pass or two."""
        self.loop.run_until_complete(asyncio.sleep(0))

    def facts(self, **options: Any) -> Facts:
        """Return the facts of this moment."""
        return self.doctor.facts((), **options)

    def close(self) -> None:
        """Cancel all tasks."""
        self.variables.clear()
        tasks = self.tracker.live()
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks))
        self.failures.stop()
        self.tracker.remove()
