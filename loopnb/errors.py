"""The errors that loopnb raises. Each is also one of Python's own, which existing code may catch.

LoopnbError
├── NestingError            a blocking call could not run inside the running loop
├── NotHeldError            loopnb.hold() holds nothing of that name or value
├── NotLoadedError          loopnb was used where no session is loaded
├── TaskNotFoundError       no live task has that name or number
└── UnsupportedKernelError  this kernel or shell cannot be hooked; the reason is in `.reason`

`LoopWarning` is the category of the warnings that loopnb shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class LoopWarning(UserWarning):
    """Warns that loopnb ignored or repaired what code did to the notebook's loop."""


class LoopnbError(Exception):
    """The base class of every error that loopnb itself raises."""


class NestingError(LoopnbError, RuntimeError):
    """Raised when a blocking call cannot run inside the running loop, or an engine cannot be used.

    Attributes:
        reason: The reason, as a clause without a full stop.
    """

    def __init__(self, reason: str, remedy: str, *, doing: str = "wait here") -> None:
        super().__init__(f"Cannot {doing}: {reason}. {remedy}")
        self.reason = reason


class NotLoadedError(LoopnbError, RuntimeError):
    """Raised when a function of loopnb is called and loopnb is not loaded."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"Cannot call loopnb.{what}(): loopnb is not loaded in this process. "
            "Run '%load_ext loopnb' in a cell first."
        )


class NotHeldError(LoopnbError, LookupError):
    """Raised when `loopnb.release()` is given something that is not held, or no longer held.

    Attributes:
        wanted: What it was given.
        names: The names of what is held.
    """

    def __init__(self, wanted: object, names: Sequence[str]) -> None:
        held = f"Held now: {', '.join(names)}." if names else "Nothing is held now."
        super().__init__(
            f"Nothing is held under {wanted!r:.60}: it was released, or is gone. {held} "
            "loopnb.release() takes what loopnb.hold() was given or has returned, or the name."
        )
        self.wanted = wanted
        self.names = tuple(names)


class TaskNotFoundError(LoopnbError, LookupError):
    """Raised when no live task has the given name or number.

    Attributes:
        wanted: The name or number that was asked for.
        names: The names of the live tasks.
    """

    def __init__(self, wanted: str, names: Sequence[str]) -> None:
        shown = ", ".join(repr(name[:40]) for name in names[:8]) + (", ..." if len(names) > 8 else "")
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
        reason: The reason, as a clause without a full stop.
    """

    def __init__(self, reason: str, remedy: str, *, doing: str = "loaded") -> None:
        super().__init__(f"loopnb cannot be {doing}: {reason}. {remedy}")
        self.reason = reason
