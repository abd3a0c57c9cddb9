"""IPython shells in this process, with and without loopnb: no kernel, no terminal, no history file.

A folder whose tests need one imports the fixtures in its `conftest.py`.
"""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from IPython.core.displayhook import DisplayHook
from IPython.core.interactiveshell import InteractiveShell
from traitlets import List
from traitlets.config import Config

from tests.cells import dedented

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Notebook", "Shell", "execute", "notebook", "one_shell", "shell"]


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


class Notebook:
    """A shell with loopnb, whose cells run on one loop as a kernel's do, each driven to its end.

    Args:
        shell: The shell, with loopnb loaded.
        runner: Turns its loop, while a cell runs.
    """

    def __init__(self, shell: Shell, runner: asyncio.Runner) -> None:
        self.shell = shell
        self._runner = runner

    def execute(self, code: str, *, cell_id: str | None = None) -> Any:
        """Run *code*, dedented, as a cell, and return IPython's `ExecutionResult`. An error is part of it."""
        return self._runner.run(execute(self.shell, dedented(code), cell_id))

    def run(self, code: str, *, cell_id: str | None = None) -> Any:
        """Run a cell that must succeed."""
        result = self.execute(code, cell_id=cell_id)
        result.raise_error()
        return result

    def error(self, code: str, *, cell_id: str | None = None) -> BaseException:
        """Run a cell that must fail, and return its error."""
        result = self.execute(code, cell_id=cell_id)
        error: BaseException | None = result.error_before_exec or result.error_in_exec
        assert error is not None
        return error

    def value(self, name: str) -> Any:
        """Return a variable of the user's."""
        return self.shell.user_ns[name]


async def execute(shell: Any, code: str, cell_id: str | None = None) -> Any:
    """Execute a cell as ipykernel does: IPython's own `run_cell` would turn the loop itself."""
    text, refused = code, None
    try:
        text = shell.transform_cell(code)
    except Exception:  # noqa: BLE001  IPython shows it
        refused = sys.exc_info()
    result = await shell.run_cell_async(
        code, store_history=True, transformed_cell=text, preprocessing_exc_tuple=refused, cell_id=cell_id
    )
    shell.events.trigger("post_execute")
    shell.events.trigger("post_run_cell", result)
    return result


@pytest.fixture(scope="session")
def one_shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Make a shell for all tests of a folder."""
    hooks = sys.excepthook, sys.displayhook
    config = Config({"HistoryManager": {"enabled": False}})
    folder = str(tmp_path_factory.mktemp("ipython"))
    make: Any = Shell
    yield make(config=config, ipython_dir=folder, user_module=ModuleType("notebook"))
    assert (sys.excepthook, sys.displayhook) == hooks


@pytest.fixture
def shell(one_shell: Shell) -> Iterator[Shell]:
    """Lend the shell, in which nothing was run or shown."""
    before = one_shell.user_ns.copy()
    yield one_shell
    one_shell.take_shown()
    one_shell.ast_node_interactivity = "last_expr"
    one_shell.user_ns.clear()
    one_shell.user_ns.update(before)


@pytest.fixture
def notebook(shell: Shell) -> Iterator[Notebook]:
    """Lend the shell with loopnb loaded, on a loop of its own; `asyncio` and `loopnb` are imported."""
    manager: Any = shell.extension_manager

    async def call(fn: Any) -> Any:
        return fn("loopnb")

    with asyncio.Runner() as runner:
        assert runner.run(call(manager.load_extension)) is None
        try:
            notebook = Notebook(shell, runner)
            notebook.run("import asyncio, loopnb")
            yield notebook
        finally:
            runner.run(call(manager.unload_extension))
