"""Make tracked tasks on Pyodide's loop, which makes its tasks in a way of its own.

Its `create_task` gives a task factory neither name nor Context, and then breaks. So this uses no factory. A
stand-in for `create_task` makes the tasks, of a class that is Pyodide's as well as ours.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from loopnb.patching import Patch, looking_like
from loopnb.tracking._pyodide import count_task
from loopnb.tracking.spawning import tracking_factory
from loopnb.tracking.tracked import TrackedTask

if TYPE_CHECKING:
    import asyncio

    from loopnb.tracking.spawning import TracksSpawns


class WebSpawnHook:
    """Has Pyodide's loop make tracked tasks. The loop's thread.

    The user's own task factory goes on making tasks, as far as Pyodide lets it.

    Args:
        loop: The loop.
        tracker: Numbers the tasks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tracker: TracksSpawns) -> None:
        self._loop = loop
        stock: Any = loop.create_task
        make_tracked = tracking_factory(tracker, task_class=_task_class())

        def create_task(
            coro: Any, *, name: Any = None, context: Any = None, eager_start: bool | None = None
        ) -> asyncio.Task[Any]:
            # Pyodide ignores `eager_start`, too.
            if loop.get_task_factory() is not None:
                task: asyncio.Task[Any] = stock(coro, name=name, context=context)
                tracker.adopt(task)
                return task
            options = {} if context is None else {"context": context}
            task = make_tracked(loop, coro, name=name, **options)
            count_task(loop, task)
            return task

        self._patch = Patch(loop, "create_task", looking_like(stock, create_task))

    @property
    def users_factory(self) -> Any:
        """The user's own task factory; None while there is none."""
        return self._loop.get_task_factory() if self._patch.installed else None

    def install(self) -> None:
        """Track tasks from now on."""
        self._patch.install()

    def restore(self) -> None:
        """Let Pyodide make its tasks again."""
        self._patch.restore()


@lru_cache(maxsize=1)  # tasks outlive a session, and the next one knows them by their class
def _task_class() -> type[TrackedTask]:
    from pyodide.webloop import PyodideTask

    class TrackedPyodideTask(TrackedTask, PyodideTask):  # type: ignore[misc]  # Pyodide is untyped
        """A tracked task that JavaScript can await, as it can Pyodide's own."""

    TrackedPyodideTask.__name__ = PyodideTask.__name__
    return TrackedPyodideTask
