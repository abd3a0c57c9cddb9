"""Waking a task that waits for something which must not be cancelled, or never ends.

Checked on CPython 3.11.7, 3.12.1, 3.13.0 and 3.14.10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


def wake_with(task: asyncio.Task[Any], outcome: asyncio.Future[Any]) -> bool:
    """Have *task*'s await end in *outcome* instead of what it waits for, which is left as it is.

    A waiting task is one of the callbacks of what it waits for (`Task._fut_waiter`,
    `Future._callbacks`: pairs of callback and Context; the callback is bound to the task). It is
    taken off there and called with another future.

    Args:
        task: A task that is not in a step.
        outcome: A future that has failed or was cancelled: that comes out of the await.

    Returns:
        False if the task waits for nothing, or for a future that does not tell its callbacks.
    """
    waited: Any = task._fut_waiter  # type: ignore[attr-defined]  # private
    for callback, context in list(getattr(waited, "_callbacks", None) or ()):
        if getattr(callback, "__self__", None) is task:
            waited.remove_done_callback(callback)
            task.get_loop().call_soon(callback, outcome, context=context)
            return True
    return False
