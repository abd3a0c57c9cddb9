"""Objects on the loop that only `await` can close, such as an open aiohttp session.

The wish. A client that a notebook leaves open is closed when the kernel ends.

What does not work. Its finalizer runs when the loop has gone, and cannot await: all it can do is to
complain ("Unclosed client session"). To silence it would leave the client open.

What is done. The same as asyncio does for async generators: before the loop stops, whatever needs it
for its end is asked to end. That is each object that refers to the loop, has a finalizer, and whose
`aclose()` or `close()` is a coroutine function. Nobody has to list the libraries.

What it cannot do. Objects without a finalizer do not mind and are left alone, and so are those that
do not refer to the loop by themselves.
"""

from __future__ import annotations

import gc
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine


def open_clients(loop: asyncio.AbstractEventLoop) -> list[tuple[Any, Coroutine[Any, Any, Any]]]:
    """Return the objects of *loop* that only `await` can close, with what closes each.

    It looks at every object that Python knows: some 0.2 s for each million of them.
    """
    closers: dict[type, Callable[[Any], Coroutine[Any, Any, Any]] | None] = {}
    found = []
    for one in gc.get_objects():
        kind = type(one)
        if kind not in closers:
            closers[kind] = _closer(kind)
        close = closers[kind]
        if close is not None and any(value is loop for value in _attributes(one)):
            found.append((one, close(one)))
    return found


def _closer(kind: type) -> Callable[[Any], Coroutine[Any, Any, Any]] | None:
    # Statically: nothing of the user's must run for a look.
    if _static(kind, "__del__") is None:
        return None
    methods = (_static(kind, name) for name in ("aclose", "close"))
    return next((method for method in methods if inspect.iscoroutinefunction(method)), None)


def _static(kind: type, name: str) -> Any:
    return next((vars(owner)[name] for owner in kind.__mro__ if name in vars(owner)), None)


def _attributes(one: object) -> list[Any]:
    try:
        return list(object.__getattribute__(one, "__dict__").values())
    except AttributeError:  # it has slots only
        return []
