"""Tasks of a class of the user's, one of whose methods raises. asyncio itself runs them all the same."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The methods that those who look at tasks ask.
METHODS = ("get_coro", "done", "get_name", "cancelling", "get_loop")


@contextmanager
def awkward(method: str) -> Iterator[type[asyncio.Task[Any]]]:
    """Give a class of tasks whose *method* raises while the block runs.

    Afterwards it does not: at its end, a loop asks all tasks itself.
    """
    stock = getattr(asyncio.Task, method)
    is_over = False

    def raises(self: asyncio.Task[Any]) -> Any:
        if is_over:
            return stock(self)
        raise ZeroDivisionError(f"{method}() of a class of the user's")

    try:
        yield type("Awkward", (asyncio.Task,), {method: raises})
    finally:
        is_over = True
