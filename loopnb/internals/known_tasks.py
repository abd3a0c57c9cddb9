"""Finding every task of a loop that somebody holds, finished or not. Checked on CPython 3.11.7 to 3.14.10.

On 3.14 asyncio's set of tasks cannot be read from Python; weak references of our own stand in.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import weakref

#: asyncio's own weak set of tasks keeps finished ones as well: `_all_tasks` on 3.11, `_scheduled_tasks`
#: on 3.12 and 3.13. From 3.14 on it holds no task made in C, and each gets a weak reference of ours.
_asyncios_set: Any = (
    None
    if sys.version_info >= (3, 14)
    else getattr(asyncio.tasks, "_scheduled_tasks" if sys.version_info >= (3, 12) else "_all_tasks", None)
)
#: On 3.12 and 3.13 those in their first step, on the stack of their creator: they are not in that set.
eager_tasks: Any = getattr(asyncio.tasks, "_eager_tasks", ())
#: Whether each task that is made has to be given a reference in `own_refs`.
NEEDS_OWN_REFS = _asyncios_set is None
own_refs: list[weakref.ref[asyncio.Task[Any]]] = []
#: How many tasks may be made between two calls of `prune`.
PRUNE_EVERY = 4096
_prune_at = PRUNE_EVERY


def known_tasks(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    """Return the tasks of *loop* that somebody holds, finished ones as well. The loop's thread."""
    if NEEDS_OWN_REFS:
        tasks = [ref() for ref in list(own_refs)]
    else:
        tasks = [*_list_of(_asyncios_set), *list(eager_tasks)]
    return [task for task in tasks if task is not None and task.get_loop() is loop]


def _list_of(weak_set: Any) -> list[asyncio.Task[Any] | None]:
    while True:
        try:
            return list(weak_set)
        except RuntimeError:  # another thread has made a task meanwhile: `asyncio.all_tasks` tries again, too
            continue


def prune() -> None:
    """Throw the references to tasks that are gone away, if they can be as many as the others."""
    global _prune_at
    if len(own_refs) > _prune_at:
        own_refs[:] = [ref for ref in own_refs if ref() is not None]
        _prune_at = max(PRUNE_EVERY, 2 * len(own_refs))
