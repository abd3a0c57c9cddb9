"""What is said of tasks that earlier runs of a cell have left. `tests/kernel/test_tasks.py` has the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.shells import Notebook

LEAVES = "kept += [asyncio.create_task(asyncio.Event().wait(), name='ticker')]"
SAYS = "of earlier runs of this cell"


@pytest.fixture
def said(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Run a cell, and return what loopnb has said in it."""
    notebook.run("kept = []")

    def run(code: str = LEAVES, cell_id: str | None = "a") -> str:
        capsys.readouterr()
        notebook.run(code, cell_id=cell_id)
        return capsys.readouterr().err

    yield run
    notebook.run("%config LoopNB.on_rerun = 'tell'")


def test_one_line_names_what_lives_on_and_what_to_type_once_for_each_cell(
    notebook: Notebook, said: Callable[..., str]
) -> None:
    assert said() == ""

    count = notebook.shell.execution_count
    line = said()

    assert line.count("\n") == 1
    assert "A task of earlier runs of this cell lives on: 'ticker'" in line
    assert f"'%loopnb cancel --cell {count}'" in line
    assert 'LoopNB.on_rerun = "cancel"' in line
    assert said() == ""
    said(cell_id="b")
    assert SAYS in said(cell_id="b")


def test_several_are_counted(said: Callable[..., str]) -> None:
    said(f"for _ in range(3): {LEAVES}")

    assert "3 tasks of earlier runs of this cell live on: 'ticker', 'ticker', 'ticker'" in said()


@pytest.mark.parametrize("value", ["keep", "cancel"])
def test_the_setting_silences_it(said: Callable[..., str], value: str) -> None:
    said(f"%config LoopNB.on_rerun = {value!r}", cell_id="setting")
    said()

    assert said() == ""


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(f"for task in kept: task.cancel()\n{LEAVES}", id="cancelled by the cell"),
        pytest.param("%aloop -b asyncio.Event().wait()", id="background, which is replaced"),
        pytest.param("kept += [asyncio.create_task(asyncio.sleep(0))]; await kept[-1]", id="ended"),
    ],
)
def test_nothing_is_said_of_tasks_that_end(said: Callable[..., str], code: str) -> None:
    said(code)

    assert said(code) == ""


def test_what_is_held_lives_on_silently(notebook: Notebook, said: Callable[..., str]) -> None:
    notebook.run("import contextlib")
    said("await loopnb.hold(contextlib.AsyncExitStack(), name='held')")

    assert said("None") == ""
    notebook.run("await loopnb.release('held')")


def test_without_an_id_cells_are_not_told_apart(said: Callable[..., str]) -> None:
    said(cell_id=None)

    assert said(cell_id=None) == ""
