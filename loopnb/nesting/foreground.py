"""What the engine is told of the stacks that a user is waiting for: a cell's, or the prompt's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loopnb.internals.eager import MAY_BE_EAGER, creators_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


@dataclass(frozen=True)
class Foreground:
    """Answers the engine's questions, and is told what it does. Called in the loop's thread.

    Attributes:
        is_meant: Says whether a task is one that a user is waiting for.
        changed: Called with +1 when the stack of such a task parks, -1 when it is resumed. May raise.
        cancel: How an interrupt cancels what such a stack waits for.
        finish: How a second one ends what has swallowed that; False if it cannot.
        take_fatal: Takes what came out of a pass for a cell that awaits; False if none does.
    """

    is_meant: Callable[[asyncio.Task[Any]], bool]
    changed: Callable[[int], None] = lambda _change: None
    cancel: Callable[[asyncio.Future[Any]], object] = lambda future: future.cancel()
    finish: Callable[[asyncio.Future[Any]], bool] = lambda _future: False
    take_fatal: Callable[[BaseException], bool] = lambda _error: False

    def awaits(self, task: asyncio.Task[Any]) -> bool:
        """Say whether a user is waiting for *task*, or for one in whose step it has its own first one."""
        return self.is_meant(task) or (MAY_BE_EAGER and any(map(self.is_meant, creators_of(task))))
