"""The errors loopnb raises; each is also the builtin error that code would expect there.

LoopnbError
├── NestingError            a blocking call could not be run inside the running loop
├── NotLoadedError          loopnb was used where no session is loaded
├── TaskNotFoundError       no live task has that name or number
└── UnsupportedKernelError  this kernel or shell cannot be hooked; the reason is in `.reason`

`LoopWarning` is the category of loopnb's warnings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class LoopWarning(UserWarning):
    """Says that something done to the notebook's loop was ignored or has been mended."""


class LoopnbError(Exception):
    """Base class of every error that loopnb raises itself."""


class NestingError(LoopnbError, RuntimeError):
    """Raised when a blocking call cannot be run inside the running loop, or an engine not be used.

    Attributes:
        reason: Why, as a clause without a full stop.
    """

    def __init__(self, reason: str, remedy: str, *, doing: str = "wait here") -> None:
        super().__init__(f"Cannot {doing}: {reason}. {remedy}")
        self.reason = reason


class NotLoadedError(LoopnbError, RuntimeError):
    """Raised when a function of loopnb needs a session and none is loaded."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"loopnb.{what}() needs a loaded session, and there is none in this process. "
            "Run '%load_ext loopnb' in a cell first."
        )


class TaskNotFoundError(LoopnbError, LookupError):
    """Raised when no live task bears the given name or number.

    Attributes:
        wanted: The name or number that was asked for.
        names: Names of the tasks that are live.
    """

    def __init__(self, wanted: str, names: Sequence[str]) -> None:
        shown = ", ".join(f"{name:.40}" for name in names[:8]) + (", ..." if len(names) > 8 else "")
        live = f"Live now: {shown}." if names else "No task is live now."
        super().__init__(
            f"No live task is called {wanted!r} or has that number. {live} "
            "'%loopnb tasks' lists them with their numbers."
        )
        self.wanted = wanted
        self.names = tuple(names)


class UnsupportedKernelError(LoopnbError, RuntimeError):
    """Raised when loopnb cannot work in this kernel or shell.

    Attributes:
        reason: Why, as a clause without a full stop.
    """

    def __init__(self, reason: str, remedy: str, *, doing: str = "loaded") -> None:
        super().__init__(f"loopnb cannot be {doing}: {reason}. {remedy}")
        self.reason = reason
