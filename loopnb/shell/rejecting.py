"""Refusing a cell before any of it runs, by the one way that IPython has for it.

An error raised in an event callback is printed and the cell runs all the same. One raised by a
magic is shown with IPython's own frames. An AST transformer may raise `InputRejected`, and IPython
shows what is raised as it shows a cell that does not compile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core.error import InputRejected

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable


class RejectedSyntax(InputRejected, SyntaxError):
    """A SyntaxError that IPython takes from an AST transformer."""


class RejectedByInterrupt(InputRejected, KeyboardInterrupt):
    """A KeyboardInterrupt that IPython takes from an AST transformer, and shows without frames."""

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: {self}"]


# Front ends show the name of the class, and tools look at it.
RejectedSyntax.__name__ = SyntaxError.__name__
RejectedByInterrupt.__name__ = KeyboardInterrupt.__name__


class Rejections:
    """Lets others look at each cell, and refuse it.

    Args:
        shell: The shell.

    Attributes:
        checks: Called with the tree of each cell; they raise one of the errors above, and no other.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self.checks: list[Callable[[ast.AST], None]] = []

    def start(self) -> None:
        """Look at cells from the next one on."""
        self._shell.ast_transformers.append(self)

    def stop(self) -> None:
        """Look no more."""
        self._shell.ast_transformers.remove(self)

    def visit(self, tree: ast.AST) -> ast.AST:
        """Return *tree* as it is; what IPython calls."""
        for check in self.checks:
            check(tree)
        return tree
