"""An IPython shell in this process: no kernel, no terminal, no history file."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from IPython.core.displayhook import DisplayHook
from IPython.core.interactiveshell import InteractiveShell
from traitlets import List
from traitlets.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator


class Shown(DisplayHook):
    """Collects the values that a cell shows, instead of printing them."""

    values: Any = List()

    def __call__(self, result: Any = None) -> None:
        """Show *result* unless it is None."""
        if result is not None:
            self.values.append(result)


class Shell(InteractiveShell):
    """A shell that collects what it shows."""

    displayhook_class = Shown

    def take_shown(self) -> list[Any]:
        """Return what has been shown since this was called last."""
        hook: Any = self.displayhook
        values: list[Any] = hook.values
        hook.values = []
        return values


@pytest.fixture(scope="session")
def _one_shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    hooks = sys.excepthook, sys.displayhook
    config = Config({"HistoryManager": {"enabled": False}})
    folder = str(tmp_path_factory.mktemp("ipython"))
    make: Any = Shell
    yield make(config=config, ipython_dir=folder, user_module=ModuleType("notebook"))
    assert (sys.excepthook, sys.displayhook) == hooks


@pytest.fixture
def shell(_one_shell: Shell) -> Iterator[Shell]:
    """Lend the shell, in which nothing was run or shown."""
    before = _one_shell.user_ns.copy()
    yield _one_shell
    _one_shell.take_shown()
    _one_shell.ast_node_interactivity = "last_expr"
    _one_shell.user_ns.clear()
    _one_shell.user_ns.update(before)
