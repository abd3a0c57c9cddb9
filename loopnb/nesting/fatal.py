"""Handle KeyboardInterrupt and SystemExit, the errors that go through a loop and end it.

Asyncio raises such an error out of a pass, once for each task that ends in it. So the error comes out again
for each task that awaits the first one, and for a TaskGroup around that. An attribute of the error says
whether a cell or a nested run has received it before.

Any thread may call these functions. None blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from loopnb.frames import runs_users_code

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

_TAKEN = "_loopnb_taken"


def is_fatal(error: BaseException | None) -> bool:
    """Return True if asyncio raises *error* out of a pass of the loop."""
    return isinstance(error, KeyboardInterrupt | SystemExit)


def was_taken(error: BaseException) -> bool:
    """Return True if a cell or a nested run has received *error*, or it came too late for one."""
    return bool(vars(error).get(_TAKEN))


def note_taken(error: BaseException) -> None:
    """Note that *error* need not go to the loop's owner any more: see `was_taken`."""
    vars(error)[_TAKEN] = True


class CapturedFatal:
    """The fatal error of a coroutine, returned instead of raised, since its task must not end the loop.

    Args:
        error: The error.
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @staticmethod
    def unwrap(value: T) -> T:
        """Return *value*, or raise the error if it is a captured one."""
        if isinstance(value, CapturedFatal):
            raise value.error
        return value


def capture_fatal(coro: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """Return a coroutine that runs *coro* and captures its fatal errors. It has the name of *coro*.

    Use it for work that another thread has sent to this loop, and whose fatal errors must not end the loop.
    Unwrap what the coroutine returns, see `CapturedFatal`.
    """

    @runs_users_code
    async def run() -> Any:
        try:
            return await coro
        except (KeyboardInterrupt, SystemExit) as error:
            return CapturedFatal(error)

    capturing: Any = run()
    capturing.__name__ = getattr(coro, "__name__", capturing.__name__)
    capturing.__qualname__ = getattr(coro, "__qualname__", capturing.__qualname__)
    result: Coroutine[Any, Any, T] = capturing
    return result
