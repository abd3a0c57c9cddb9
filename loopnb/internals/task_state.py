"""What a task knows of itself under private names. Checked on CPython 3.11.7 to 3.14.10."""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.runners
import asyncio.taskgroups
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import CodeType, FrameType

#: The namespaces of asyncio's own modules, by identity: frames of theirs are no spawn sites.
_ASYNCIO_GLOBALS = frozenset(
    id(vars(module))
    for module in (
        asyncio.base_events,
        asyncio.locks,
        asyncio.runners,
        asyncio.streams,
        asyncio.taskgroups,
        asyncio.tasks,
        asyncio.timeouts,
        asyncio.unix_events if hasattr(asyncio, "unix_events") else asyncio.events,
    )
)


_GatheringFuture: Any = asyncio.tasks._GatheringFuture  # type: ignore[attr-defined]  # private


def waited_future(task: asyncio.Task[Any]) -> asyncio.Future[Any] | None:
    """Return the future that *task* waits for; None if it is due to step (`Task._fut_waiter`)."""
    return task._fut_waiter  # type: ignore[attr-defined,no-any-return]  # private


def gathered(future: asyncio.Future[Any]) -> list[asyncio.Future[Any]] | None:
    """Return what a `gather()` waits for; None if *future* is none (`_GatheringFuture._children`)."""
    if isinstance(future, _GatheringFuture):
        return future._children  # type: ignore[no-any-return]  # untyped, since private
    return None


def outside_asyncio(frame: FrameType | None, ours: frozenset[int]) -> tuple[CodeType | None, int]:
    """Return code and instruction of the innermost frame that asyncio did not write.

    Args:
        frame: Where to begin.
        ours: `id()` of further namespaces to pass over.
    """
    while frame is not None:
        namespace = id(frame.f_globals)
        if namespace not in _ASYNCIO_GLOBALS and namespace not in ours:
            return frame.f_code, frame.f_lasti
        frame = frame.f_back
    return None, 0
