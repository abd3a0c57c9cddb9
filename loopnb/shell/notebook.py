"""Answer what the doctor asks of a notebook: variables, where loops were closed, changes to the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from loopnb.loop.closed import ClosedLoops
    from loopnb.loop.healing import Healer


class ShellNotebook:
    """The `Notebook` of the doctor. The loop's thread.

    Args:
        shell: The shell.
        closed: Remembers where loops were closed.
        healer: Knows whether the event loop policy has been changed.
    """

    def __init__(self, shell: Any, closed: ClosedLoops, healer: Healer) -> None:
        self._shell = shell
        self._closed = closed
        self._healer = healer

    def names(self) -> Mapping[str, object]:
        """Return the user's variables, without those that IPython has put there."""
        hidden = self._shell.user_ns_hidden
        return {name: value for name, value in self._shell.user_ns.items() if name not in hidden}

    def closed_at(self, loop: asyncio.AbstractEventLoop) -> str:
        """Return where *loop* was closed; "" if that is not known."""
        return self._closed.where(loop)

    def notes(self) -> tuple[str, ...]:
        """Return a note if the event loop policy has been changed."""
        return self._healer.notes()
