"""A plain `%%aloop` cell becomes an `await` cell, and history holds the magic's call."""

from __future__ import annotations

import ast
import asyncio
import traceback
from types import CodeType, SimpleNamespace
from typing import Any

import pytest

from loopnb.magics.await_cells import AwaitCells

AWKWARD = "x = '{not a field}'\nprint(\"it's\", '''three''')\n"


@pytest.fixture
def shell() -> SimpleNamespace:
    """Stand in for a shell: its history keeps what it is given."""
    stored: list[tuple[Any, ...]] = []
    return SimpleNamespace(
        history_manager=SimpleNamespace(store_inputs=lambda *inputs: stored.append(inputs)), stored=stored
    )


@pytest.fixture
def cells(shell: SimpleNamespace) -> AwaitCells:
    cells = AwaitCells(shell)
    cells.start()
    return cells


def execute(text: str, run_cell: Any) -> None:
    """Execute a rewritten cell as IPython would, in a shell whose magic is *run_cell*."""
    magic = SimpleNamespace(__self__=SimpleNamespace(runner=SimpleNamespace(run_cell=run_cell)))
    code = compile(text, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(code, CodeType)
    shell = SimpleNamespace(find_cell_magic={"aloop": magic}.__getitem__)
    asyncio.run(eval(code, {"get_ipython": lambda: shell}))


@pytest.mark.parametrize("body", ["", "1\n", AWKWARD, "\n\n  indented", "\\n\t\x00é\n"])
def test_the_await_cell_hands_line_and_body_over_as_typed(cells: AwaitCells, body: str) -> None:
    handed: list[tuple[str, str]] = []

    async def run_cell(line: str, body: str) -> None:
        handed.append((line, body))

    execute(cells.rewrite(" -n 'a  b' {}", body), run_cell)

    assert handed == [(" -n 'a  b' {}", body)]


def test_the_await_cell_takes_itself_out_of_the_traceback(cells: AwaitCells) -> None:
    async def run_cell(_line: str, _body: str) -> None:
        raise ValueError

    with pytest.raises(ValueError) as caught:
        execute(cells.rewrite("", ""), run_cell)

    assert "run_cell" in [frame.name for frame in traceback.extract_tb(caught.tb)]
    assert "cell" not in [frame.filename for frame in traceback.extract_tb(caught.tb)]


def test_history_holds_the_magics_call_and_what_was_typed(cells: AwaitCells, shell: SimpleNamespace) -> None:
    shell.history_manager.store_inputs(7, cells.rewrite(" -n name", AWKWARD), "as typed")

    ((number, source, raw),) = shell.stored
    assert (number, raw) == (7, "as typed")
    call = ast.parse(source, mode="eval").body
    assert isinstance(call, ast.Call)
    assert ast.unparse(call.func) == "get_ipython().run_cell_magic"
    assert [ast.literal_eval(argument) for argument in call.args] == ["aloop", "-n name", AWKWARD]


def test_history_holds_every_other_cell_as_it_is(cells: AwaitCells, shell: SimpleNamespace) -> None:
    cells.rewrite("", "1")

    shell.history_manager.store_inputs(1, "1 + 1", "1 + 1")

    assert shell.stored == [(1, "1 + 1", "1 + 1")]


def test_many_cells_are_forgotten_the_oldest_first(cells: AwaitCells, shell: SimpleNamespace) -> None:
    texts = [cells.rewrite("", str(number)) for number in range(1_000)]

    for text in (texts[0], texts[-1]):
        shell.history_manager.store_inputs(1, text, "")

    assert shell.stored[0][1] == texts[0]  # which does the same, if it is run again
    assert shell.stored[1][1] == "get_ipython().run_cell_magic('aloop', '', '999')\n"


def test_history_is_ipythons_again_after_stop(shell: SimpleNamespace) -> None:
    stock = shell.history_manager.store_inputs
    cells = AwaitCells(shell)
    cells.start()
    assert shell.history_manager.store_inputs is not stock

    cells.stop()

    assert shell.history_manager.store_inputs is stock
