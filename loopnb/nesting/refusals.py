"""Places where no stack can be parked."""

from __future__ import annotations

from loopnb.errors import NestingError
from loopnb.internals.places import why_not_here


def refusal(*, is_removed: bool, is_closing: bool, is_busy: bool) -> NestingError:
    """Say why no stack is parked here, with the reason as `.reason`.

    Args:
        is_removed: The engine is being taken off its loop.
        is_closing: The loop is being closed.
        is_busy: The engine's own code is what the caller has interrupted.
    """
    if is_removed:
        return NestingError(
            "nesting is being switched off",
            "Run '%loopnb nesting handoff', or loopnb.nesting.apply(), to switch it on.",
        )
    if is_closing:
        return NestingError("the loop is being closed", "Use `await` in code that cleans up.")
    reason = "stacks are being switched" if is_busy else why_not_here()
    return NestingError(
        f"a finalizer or a signal handler has interrupted the loop while {reason}",
        "Spawn a task there, or use `loop.add_signal_handler()`.",
    )
