"""Errors that go through a loop and end it, KeyboardInterrupt and SystemExit, and who has had one.

Asyncio raises them out of a pass once for each task that ends in one, so an error comes out again for
whoever awaits the task that has raised it, and for a TaskGroup. An attribute of the error says whether
it has found somebody before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from loopnb.frames import runs_users_code

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

_TAKEN = "_loopnb_taken"


def is_fatal(error: BaseException | None) -> bool:
    """Say whether asyncio raises *error* out of a pass of the loop."""
    return isinstance(error, KeyboardInterrupt | SystemExit)


def was_taken(error: BaseException) -> bool:
    """Say whether a cell has had *error*."""
    return bool(vars(error).get(_TAKEN))


def note_taken(error: BaseException) -> None:
    """Note that a cell has *error* now."""
    vars(error)[_TAKEN] = True


class Ended:
    """What a coroutine has ended in, where its task must not raise it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @staticmethod
    def unwrap(value: T) -> T:
        """Return the value of a coroutine, or raise what it has ended in."""
        if isinstance(value, Ended):
            raise value.error
        return value


def contain(coro: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """Return a coroutine that runs *coro* for another thread, whose fatal errors are none of this loop's.

    What it returns must be unwrapped, see `Ended`.
    """

    @runs_users_code
    async def run() -> Any:
        try:
            return await coro
        except (KeyboardInterrupt, SystemExit) as error:
            return Ended(error)

    running: Any = run()
    running.__name__ = getattr(coro, "__name__", running.__name__)
    running.__qualname__ = getattr(coro, "__qualname__", running.__qualname__)
    contained: Coroutine[Any, Any, T] = running
    return contained
