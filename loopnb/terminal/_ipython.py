"""Private names of IPython's terminal shell and of prompt_toolkit that loopnb needs.

Checked on IPython 8.18.0 and 9.18.1, and prompt_toolkit 3.0.53.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from loopnb.patching import Patch

if TYPE_CHECKING:
    from collections.abc import Callable


def is_too_old(shell: Any) -> bool:
    """Return True if cells and prompt of *shell*, which has no kernel, cannot share a loop.

    Before IPython 8.0 there is neither `get_asyncio_loop()`, the one loop that cells run on, nor
    `InteractiveShell._atexit_once()`.
    """
    helpers = sys.modules.get("IPython.core.async_helpers")
    return not (hasattr(helpers, "get_asyncio_loop") and hasattr(shell, "_atexit_once"))


def prompt_patches(shell: Any) -> list[Patch]:
    """Return the patches that put the prompt of *shell* on the loop that IPython awaits on.

    `TerminalInteractiveShell._use_asyncio_inputhook`: while it is set, the prompt runs by
    `get_asyncio_loop().run_until_complete(pt_app.prompt_async(...))`, otherwise on a loop of its own.
    `%gui` resets it, so with the event loop of a GUI the prompt goes back to a loop of its own.

    Returns an empty list for a shell without a prompt of prompt_toolkit (`--simple-prompt`, no tty).
    """
    session = getattr(shell, "pt_app", None)
    if session is None or not hasattr(shell, "_use_asyncio_inputhook"):
        return []
    stock = session.prompt_async

    def prompt_async(*args: Any, **options: Any) -> Any:
        # prompt_toolkit's own handler would answer an error of any task with "Press ENTER to
        # continue...". The loop's own handler writes it to the log.
        return stock(*args, **{"set_exception_handler": False, **options})

    return [Patch(shell, "_use_asyncio_inputhook", True), Patch(session, "prompt_async", prompt_async)]


def patch_exit(shell: Any, before: Callable[[], None]) -> Patch:
    """Return the patch that calls *before* when *shell* ends, before IPython does anything else.

    `InteractiveShell._atexit_once()`. IPython calls it at the end of the shell's main loop and once more
    from `atexit`, and it deletes the user's names. A function registered with `atexit` would be called after
    that, and after Python has shut down all executors.
    """
    stock = shell._atexit_once

    def at_exit() -> None:
        before()
        stock()

    return Patch(shell, "_atexit_once", at_exit)
