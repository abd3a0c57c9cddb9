"""Finding every task of a loop that somebody holds, finished or not. Checked on CPython 3.11.7 to 3.14.10.

On 3.14 asyncio's set of tasks cannot be read from Python; weak references of our own to those that are
made while loopnb is loaded stand in.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from typing import Any

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
_PRUNE_FROM = 4096
#: How many references there may be before `prune` is called.
prune_at = _PRUNE_FROM


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


def refer_to(task: asyncio.Task[Any]) -> None:
    """Have `known_tasks` find *task*, where asyncio's own set does not hold it."""
    if NEEDS_OWN_REFS:
        own_refs.append(weakref.ref(task))
        if len(own_refs) > prune_at:
            prune()


def prune() -> None:
    """Throw the references to tasks that are gone away."""
    global prune_at
    own_refs[:] = [ref for ref in own_refs if ref() is not None]
    prune_at = max(_PRUNE_FROM, 2 * len(own_refs))
