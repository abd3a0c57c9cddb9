"""Places where no stack can be parked."""

from __future__ import annotations

from loopnb.errors import NestingError
from loopnb.internals.places import why_not_here


def check_place(*, is_removed: bool, is_closing: bool, is_busy: bool) -> None:
    """Refuse a nested run where it would break something.

    Args:
        is_removed: The engine is being taken off its loop.
        is_closing: The loop is being closed.
        is_busy: The engine's own code is what the caller has interrupted.

    Raises:
        NestingError: It is such a place; `.reason` says which.
    """
    if is_removed:
        raise NestingError(
            "nesting is being switched off",
            "Run '%loopnb nesting handoff', or loopnb.nesting.apply(), to switch it on.",
        )
    if is_closing:
        raise NestingError("the loop is being closed", "Use `await` in code that cleans up.")
    reason = "stacks are being switched" if is_busy else why_not_here()
    if reason is not None:
        raise NestingError(
            f"a finalizer or a signal handler has interrupted the loop while {reason}",
            "Spawn a task there, or use `loop.add_signal_handler()`.",
        )
