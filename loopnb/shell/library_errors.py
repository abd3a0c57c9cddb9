"""Say what to type when a library refuses to work because of the way in which notebooks run code.

Such errors are the library's, and do not mention notebooks. We recognize them by their message or by the name
of their class, so no library has to be imported.
"""

from __future__ import annotations

#: Parts of the messages of libraries that refuse to work inside a running loop. In this order: asgiref;
#: openai-agents, and others with the same words; Telethon; Playwright; pydantic-ai.
_REFUSALS = (
    "cannot use AsyncToSync in the same thread",
    "cannot be called when an event loop is already running",
    'must use "async with" if the event loop is running',
    "Sync API inside the asyncio loop",
    "synchronous streaming method from within an async context or a running event loop",
)
#: Recognized by class, since the caller chooses the message of Django's error.
_REFUSING_CLASSES = ("SynchronousOnlyOperation",)
#: Parts of the two messages of anyio for a cancel scope left in another task.
_OTHER_TASK = ("exit cancel scope in a different task", "exit a cancel scope that isn't the current")


def is_of_other_task(error: BaseException) -> bool:
    """Return True if *error* says that a block was left in another task than the one that entered it."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_of_other_task, error.exceptions))
    # Not an error of a subclass: its `__str__` might raise.
    return type(error) is RuntimeError and any(words in str(error) for words in _OTHER_TASK)


def explain_library_error(error: BaseException) -> str | None:
    """Return what to do about *error*, or None if it is not such an error. Any thread."""
    message = str(error)
    if type(error).__name__ in _REFUSING_CLASSES or (
        isinstance(error, Exception) and any(words in message for words in _REFUSALS)
    ):
        return (
            "This library refuses to work while a loop runs. Put %%noloop on top of the cell, "
            "or use loopnb.noloop()."
        )
    if not isinstance(error, BaseExceptionGroup) and is_of_other_task(error):  # its members get the note
        return (
            "Each cell is a task of its own. To keep a context manager open across cells, "
            "use `await loopnb.hold(...)`."
        )
    return None
