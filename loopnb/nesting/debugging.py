"""The loop's debug flag, asked for by runs that overlap and end in any order."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator


class _OfLoop:
    """The requests for one loop, oldest first, and what the flag was before them."""

    def __init__(self, before: bool) -> None:
        self.before = before
        self.requests: dict[object, bool] = {}


class DebugRequests:
    """Who wants which debug flag while it runs. The newest decides; then the flag is as before.

    Saving the flag when a run begins and restoring it when it ends would be wrong: runs do not
    end in the order they began in, and the last to end would bring back another run's value.
    """

    def __init__(self) -> None:
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = WeakKeyDictionary()

    def begin(self, who: object, loop: asyncio.AbstractEventLoop, debug: bool | None) -> None:
        """Have *loop* in debug mode or not while *who* runs; None asks for nothing."""
        if debug is None:
            return
        of_loop = self._loops.setdefault(loop, _OfLoop(loop.get_debug()))
        of_loop.requests[who] = debug
        loop.set_debug(debug)

    def end(self, who: object, loop: asyncio.AbstractEventLoop) -> None:
        """Take back what *who* asked for."""
        of_loop = self._loops.get(loop)
        if of_loop is None or of_loop.requests.pop(who, None) is None:
            return
        loop.set_debug(next(reversed(of_loop.requests.values()), of_loop.before))
        if not of_loop.requests:
            del self._loops[loop]

    @contextmanager
    def during(self, loop: asyncio.AbstractEventLoop, debug: bool | None) -> Iterator[None]:
        """Ask for *debug* while the block runs."""
        if debug is None:
            yield
            return
        who = object()
        self.begin(who, loop, debug)
        try:
            yield
        finally:
            self.end(who, loop)
