"""Terminals for the tests: each has its own process and folder."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.terminal.driver import Terminal

# Windows has no pseudo-terminals that Python can open.
collect_ignore_glob = ["test_*.py"] if sys.platform == "win32" else []


@pytest.fixture
def stock_terminal(tmp_path: Path) -> Iterator[Terminal]:
    """Start `ipython` for one test, without the extension."""
    from tests.terminal.driver import Terminal

    with Terminal(tmp_path) as terminal:
        terminal.wait_prompt()
        yield terminal


@pytest.fixture(scope="module")
def shared_terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """Start `ipython` for tests of a module that leave it as they found it, with the extension loaded."""
    from tests.terminal.driver import Terminal

    with Terminal(tmp_path_factory.mktemp("terminal")) as terminal:
        terminal.wait_prompt()
        load(terminal)
        yield terminal


def load(terminal: Terminal) -> None:
    terminal.run("%load_ext loopnb")
    terminal.run("import asyncio, loopnb, time")


@pytest.fixture
def terminal(stock_terminal: Terminal) -> Terminal:
    """Start `ipython` for one test, with the extension loaded."""
    load(stock_terminal)
    return stock_terminal
