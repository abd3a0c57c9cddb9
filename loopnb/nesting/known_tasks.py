"""Every task of a loop that somebody holds. Goes when its users ask `_cpython` themselves."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from loopnb.nesting._cpython import held_finished_tasks, live_tasks

if TYPE_CHECKING:
    import asyncio

#: No task needs a reference of ours any more; the names stay for those who still read them.
NEEDS_OWN_REFS = False
own_refs: list[weakref.ref[asyncio.Task[Any]]] = []
prune_at = 4096


def known_tasks(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    """Return the tasks of *loop* that somebody holds, finished ones as well. The loop's thread."""
    if NEEDS_OWN_REFS:
        return [task for ref in own_refs if (task := ref()) is not None and task.get_loop() is loop]
    return [*live_tasks(loop), *held_finished_tasks(loop)]


def refer_to(task: asyncio.Task[Any]) -> None:
    """Keep a weak reference to *task* if `NEEDS_OWN_REFS`."""
    if NEEDS_OWN_REFS:
        own_refs.append(weakref.ref(task))


def prune() -> None:
    """Throw the references to tasks that are gone away."""
    own_refs[:] = [ref for ref in own_refs if ref() is not None]
