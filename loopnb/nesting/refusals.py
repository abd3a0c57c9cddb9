"""Why there is no nested run where one is asked for."""

from __future__ import annotations

from loopnb.errors import NestingError
from loopnb.internals.places import why_not_here


def refusal(*, is_removed: bool, is_closing: bool) -> NestingError:
    """Say why no stack is parked here, with the reason as `.reason`.

    Args:
        is_removed: The engine is being taken off its loop.
        is_closing: The loop is being closed.
    """
    if is_removed:
        return NestingError(
            "nesting is being switched off",
            "Run '%loopnb nesting handoff', or loopnb.nesting.apply(), to switch it on.",
        )
    if is_closing:
        return NestingError("the loop is being closed", "Use `await` in code that cleans up.")
    return NestingError(
        f"a finalizer or a signal handler has interrupted the loop while {why_not_here()}",
        "Spawn a task there, or use `loop.add_signal_handler()`.",
    )


def passes_on_top(parked: int) -> NestingError:
    """Say why a pass of the loop cannot begin inside another one, as nest_asyncio would have it."""
    return NestingError(
        f"loopnb has not left this loop yet, and nothing can run on top of it; stacks still parked: {parked}",
        "Let their nested runs end, or cancel them. loopnb.nesting.apply() nests beside them.",
    )


def beside_other_loop(*, is_home: bool) -> NestingError:
    """Return the error of a run on the notebook's loop that is asked for inside another one.

    Args:
        is_home: That one runs in the thread of the notebook's loop.
    """
    remedy = "Use `await` with a coroutine of this thread's loop"
    if is_home:
        reason = "another loop runs here, and the notebook's stands still until that has ended"
        return NestingError(reason, f"{remedy}.")
    return NestingError(
        "this thread runs an event loop of its own",
        f"{remedy}, or call loopnb.run() from a thread without one, such as "
        "asyncio.to_thread(loopnb.run, coro).",
    )
