"""Terminals for the tests: each has its own process and folder."""

from __future__ import annotations

import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.gates import gate as gate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.terminal.driver import Terminal

# Windows has no pseudo-terminals that Python can open.
collect_ignore_glob = ["test_*.py"] if sys.platform == "win32" else []


class TerminalsAhead:
    """Starts each terminal while the test before runs, as `KernelsAhead` does with kernels.

    Args:
        tmp_path_factory: Makes their folders.
    """

    def __init__(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        self._tmp_path_factory = tmp_path_factory
        self._next: Terminal | None = None

    @contextmanager
    def take(self) -> Iterator[Terminal]:
        """Lend a terminal without the extension, at its first prompt, and end it afterwards."""
        taken, self._next = self._next or self._begin(), None
        with closing(taken) as terminal:
            terminal.wait_prompt()
            self._next = self._begin()
            yield terminal

    def close(self) -> None:
        """End the terminal that nobody has taken."""
        if self._next is not None:
            self._next.close()

    def _begin(self) -> Terminal:
        from tests.terminal.driver import Terminal

        terminal = Terminal(self._tmp_path_factory.mktemp("terminal"))
        terminal.begin()
        return terminal


@pytest.fixture(scope="session")
def terminals_ahead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TerminalsAhead]:
    """Start terminals before they are needed."""
    with closing(TerminalsAhead(tmp_path_factory)) as terminals:
        yield terminals


@pytest.fixture
def stock_terminal(terminals_ahead: TerminalsAhead) -> Iterator[Terminal]:
    """Start `ipython` for one test, without the extension."""
    with terminals_ahead.take() as terminal:
        yield terminal


@pytest.fixture(scope="module")
def shared_terminal(terminals_ahead: TerminalsAhead) -> Iterator[Terminal]:
    """Start `ipython` for tests of a module that leave it as they found it, with the extension loaded."""
    with terminals_ahead.take() as terminal:
        load(terminal)
        yield terminal


def load(terminal: Terminal) -> None:
    terminal.run("%load_ext loopnb")
    terminal.run("import asyncio, loopnb, os, time")


@pytest.fixture
def terminal(stock_terminal: Terminal) -> Terminal:
    """Start `ipython` for one test, with the extension loaded."""
    load(stock_terminal)
    return stock_terminal
