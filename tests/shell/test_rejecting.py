"""A check refuses a cell before any of it runs."""

from __future__ import annotations

import ast
import asyncio
from typing import TYPE_CHECKING

import pytest

from loopnb.shell.rejecting import RejectedByInterrupt, RejectedSyntax, Rejections
from tests.cells import dedented
from tests.kernel.requests import without_ansi
from tests.shells import execute

if TYPE_CHECKING:
    from tests.shells import Shell

CELL = dedented(
    """
    ran = True
    6
    """
)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(RejectedSyntax("no"), SyntaxError), (RejectedByInterrupt("no"), KeyboardInterrupt)],
)
def test_a_cell_that_a_check_refuses_does_not_run_and_shows_pythons_error(
    shell: Shell, capsys: pytest.CaptureFixture[str], error: BaseException, kind: type[BaseException]
) -> None:
    def check(_tree: ast.AST) -> None:
        raise error

    rejections = Rejections(shell, [check])
    rejections.start()
    result = asyncio.run(execute(shell, CELL))
    rejections.stop()

    assert result.error_before_exec is error
    assert isinstance(error, kind)
    assert type(error).__name__ == kind.__name__
    assert "ran" not in shell.user_ns
    shown = without_ansi(capsys.readouterr().out)
    assert f"{kind.__name__}: no" in shown
    assert "loopnb" not in shown


def test_each_check_sees_the_tree_of_a_cell_until_the_stop(shell: Shell) -> None:
    seen: list[str] = []

    def check(tree: ast.AST) -> None:
        seen.append(ast.unparse(tree))

    rejections = Rejections(shell, [check, check])
    rejections.start()
    assert asyncio.run(execute(shell, CELL)).success
    rejections.stop()
    assert asyncio.run(execute(shell, "1")).success

    assert seen == [CELL] * 2
    assert shell.take_shown() == [6, 1]
