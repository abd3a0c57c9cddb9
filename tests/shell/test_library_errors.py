"""Errors of libraries that refuse in a notebook get a note that says what to type."""

from __future__ import annotations

import pytest

from loopnb.errors import NestingError
from loopnb.shell.library_errors import explain_library_error


class SynchronousOnlyOperation(Exception):
    """Has the name of Django's."""


REFUSALS = [
    SynchronousOnlyOperation("You cannot call this from an async context - use a thread or sync_to_async."),
    RuntimeError(
        "You cannot use AsyncToSync in the same thread as an async event loop - "
        "just await the async function directly."
    ),
    RuntimeError("AgentRunner.run_sync() cannot be called when an event loop is already running."),
    RuntimeError(
        'You must use "async with" if the event loop is running (i.e. you are inside an "async def")'
    ),
    RuntimeError(
        "Cannot use a synchronous streaming method from within an async context or a running event loop; "
        "use `run_stream` instead."
    ),
    Exception(
        "It looks like you are using Playwright Sync API inside the asyncio loop.\nPlease use the Async API."
    ),
]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_a_refusal_gets_one_line_that_names_the_magic(error: BaseException) -> None:
    note = explain_library_error(error)

    assert note is not None
    assert "%%noloop" in note
    assert "\n" not in note


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        KeyboardInterrupt(),
        RuntimeError("This event loop is already running"),
        NestingError("nesting is being switched off", "Wait."),
    ],
    ids=repr,
)
def test_other_errors_get_none(error: BaseException) -> None:
    assert explain_library_error(error) is None


@pytest.mark.parametrize(
    "message",
    [
        "Attempted to exit cancel scope in a different task than it was entered in",
        "Attempted to exit a cancel scope that isn't the current tasks's current cancel scope",
    ],
)
def test_the_errors_of_cancel_scopes_name_hold(message: str) -> None:
    assert "loopnb.hold" in str(explain_library_error(RuntimeError(message)))
