"""Nested runs on Pyodide's loop, in a browser: WebAssembly switches the stacks.

JavaScript turns that loop (`pyodide.webloop.WebLoop`), so neither greenlets nor nest-asyncio can drive it.
But where the browser lets WebAssembly switch stacks (JSPI), Pyodide itself parks a stack until a future is
done: `run_sync`. Its `asyncio.run()` and its loop's `run_until_complete()` do so, and we patch nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from loopnb.errors import NestingError

if TYPE_CHECKING:
    import asyncio

#: What Pyodide says when it cannot switch stacks.
_REFUSALS = ("stack switching not supported", "Cannot stack switch")
_REMEDY = "Use `await` here, or a browser that can, such as Chrome 137 and later."


def is_web_loop(loop: asyncio.AbstractEventLoop | None) -> bool:
    """Return True if *loop* is one that JavaScript turns. Any thread."""
    webloop = sys.modules.get("pyodide.webloop")
    return webloop is not None and isinstance(loop, webloop.WebLoop)


def why_not_here() -> str | None:
    """Return why the calling stack cannot be switched away from, as a clause; None if it can."""
    from pyodide.ffi import can_run_sync

    if can_run_sync():
        return None
    return "WebAssembly cannot switch stacks in this browser, or JavaScript has called this code directly"


def run(future: asyncio.Future[Any]) -> Any:
    """Wait for *future* and return its result, while JavaScript goes on turning the loop.

    Raises:
        NestingError: The calling stack cannot be switched away from. *future* is cancelled.
    """
    from pyodide.ffi import run_sync

    reason = why_not_here()
    if reason is not None:
        future.cancel()
        raise NestingError(reason, _REMEDY)
    return run_sync(future)


def only_loop(doing: str, remedy: str) -> NestingError:
    """Return the error for something that needs a loop which Python turns.

    Args:
        doing: What cannot be done.
        remedy: What to do instead, as a sentence.
    """
    return NestingError("JavaScript turns this loop, and Python can turn none here", remedy, doing=doing)


def explain(error: BaseException) -> str | None:
    """Return a note on *error* if it is Pyodide's refusal to switch stacks. Any thread."""
    if type(error) is not RuntimeError or not any(refusal in str(error) for refusal in _REFUSALS):
        return None
    return f"A nested run needs WebAssembly to switch stacks (JSPI). {_REMEDY}"
