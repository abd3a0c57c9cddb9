"""A stand-in for the kernel or terminal that signal handlers ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Notebook:
    """Answers what a test has told it: a `SignalHost`.

    Attributes:
        run: The main task of the run whose code sets handlers; None for a cell.
        is_executing: A cell executes, and the run is part of it.
        is_waiting: That cell waits in something that an error can end.
        heard: What became of errors, and what else was asked for, in order.
        on_heard: Called after each entry.
    """

    def __init__(self, *, is_executing: bool = True, is_waiting: bool = False) -> None:
        self.run: asyncio.Task[Any] | None = None
        self.is_executing = is_executing
        self.is_waiting = is_waiting
        self.heard: list[str] = []
        self.on_heard: Callable[[], object] = lambda: None

    def end(self) -> None:
        """Note that the notebook is to end."""
        self._hear("end")

    def is_own_handler(self) -> bool:
        """Return False."""
        return False

    def run_of_caller(self) -> asyncio.Task[Any] | None:
        """Return the run that was told."""
        return self.run

    def is_callers_cell(self, run: asyncio.Task[Any] | None) -> bool:
        """Return True if a cell executes."""
        return self.is_executing

    def is_background(self, task: asyncio.Task[Any]) -> bool:
        """Return True if no cell executes."""
        return not self.is_executing

    def is_idle(self) -> bool:
        """Return True if no cell executes."""
        return not self.is_executing

    def is_sigint_reset(self) -> bool:
        """Return False, as a terminal does."""
        return False

    def give_to_cell(self, error: BaseException) -> bool:
        """Note *error* if the cell waits."""
        if self.is_waiting:
            self._hear(f"cell: {error!r}")
        return self.is_waiting

    def report_handler(self, name: str, error: BaseException) -> None:
        """Note *error*."""
        self._hear(f"{name}: {error!r}")

    def _hear(self, text: str) -> None:
        self.heard.append(text)
        self.on_heard()
