"""What to type when a library refuses because of how notebooks run code.

Such errors are not ours, and say nothing of notebooks. They are known by their words, or by the name of their
class: no library is imported for it.
"""

from __future__ import annotations

#: In the messages of libraries that refuse where a loop runs: asgiref; openai-agents and others that repeat
#: its words; Telethon; Playwright.
_REFUSALS = (
    "cannot use AsyncToSync in the same thread",
    "cannot be called when an event loop is already running",
    'must use "async with" if the event loop is running',
    "Sync API inside the asyncio loop",
)
#: Django's error has a message of the caller's choice.
_REFUSING_CLASSES = ("SynchronousOnlyOperation",)
#: anyio's, of which there are two.
_OTHER_TASK = ("exit cancel scope in a different task", "exit a cancel scope that isn't the current")


def explain_library_error(error: BaseException) -> str | None:
    """Return what to do about *error*, if it is one of those. Any thread."""
    message = str(error)
    if type(error).__name__ in _REFUSING_CLASSES or (
        isinstance(error, Exception) and any(words in message for words in _REFUSALS)
    ):
        return "It refuses because a loop runs: put %%noloop on top of the cell, or use loopnb.noloop()."
    if isinstance(error, RuntimeError) and any(words in message for words in _OTHER_TASK):
        return "Each cell is a task of its own. To keep it open across cells: await loopnb.hold(...)."
    return None
