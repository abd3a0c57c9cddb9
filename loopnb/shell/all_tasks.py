"""Hide the kernel's own tasks from `asyncio.all_tasks()`."""

from __future__ import annotations

import asyncio
import asyncio.events
from types import FunctionType
from typing import TYPE_CHECKING, Any

from loopnb.patching import CodePatch, Patch, PatchSet

if TYPE_CHECKING:
    from collections.abc import Callable


class AllTasks:
    """Hides some tasks from callers of `asyncio.all_tasks`. The loop's thread.

    Up to 3.13 `all_tasks` is a Python function. We replace its code, so that names imported earlier follow.
    From 3.14 on it is written in C, and we replace the attributes of the modules.

    Args:
        is_hidden: Returns True for a task to hide.
    """

    def __init__(self, is_hidden: Callable[[asyncio.Task[Any]], bool]) -> None:
        self._is_hidden = is_hidden
        stock: Any = asyncio.all_tasks
        if isinstance(stock, FunctionType):
            patch = CodePatch(stock, _visible_tasks)
            self._stock: Any = patch.original_function
            self.patches = PatchSet(patch)
        else:
            self._stock = stock
            self.patches = PatchSet(
                Patch(asyncio, "all_tasks", self.visible), Patch(asyncio.tasks, "all_tasks", self.visible)
            )

    def install(self) -> None:
        """Hide such tasks from now on."""
        _hiding.append(self)
        try:
            self.patches.install()
        except BaseException:
            _hiding.remove(self)
            raise

    def restore(self) -> None:
        """Hide nothing from now on."""
        self.patches.restore()
        _hiding.remove(self)

    def every(self, loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
        """Return the tasks of *loop* that are not done, hidden ones included."""
        tasks: set[asyncio.Task[Any]] = self._stock(loop)
        return tasks

    def visible(self, loop: asyncio.AbstractEventLoop | None = None) -> set[asyncio.Task[Any]]:
        """Return the tasks of *loop* that are not hidden, as `asyncio.all_tasks` does."""
        return {task for task in self._stock(loop) if not self._is_hidden(task)}


# Process-wide: the code that replaces `all_tasks` runs with asyncio's globals and is given no object of ours.
_hiding: list[AllTasks] = []


def _visible_tasks(loop: Any = None) -> Any:
    # Runs with the globals of asyncio.tasks.
    from loopnb.shell.all_tasks import _hiding

    return _hiding[-1].visible(loop)
