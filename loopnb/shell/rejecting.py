"""Refuse a cell before any of it runs.

IPython has only one way to do that. If an event callback raises, IPython prints the error and still runs the
cell. If a magic raises, IPython shows its own frames. But an AST transformer may raise `InputRejected`, which
IPython shows like the error of a cell that does not compile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core.error import InputRejected

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Sequence


class RejectedSyntax(InputRejected, SyntaxError):
    """A SyntaxError that an AST transformer may raise."""


class RejectedByInterrupt(InputRejected, KeyboardInterrupt):
    """A KeyboardInterrupt that an AST transformer may raise. It is shown without frames."""

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: {self}"]


# Front ends show the name of the class, and tools compare it.
RejectedSyntax.__name__ = SyntaxError.__name__
RejectedByInterrupt.__name__ = KeyboardInterrupt.__name__


class Rejections:
    """Shows each cell to some checks, which may refuse it.

    Args:
        shell: The shell.
        checks: Called with the tree of each cell that compiles. They raise only the errors above.
    """

    def __init__(self, shell: Any, checks: Sequence[Callable[[ast.AST], None]]) -> None:
        self._shell = shell
        self._checks = checks

    def start(self) -> None:
        """Check cells from the next one on."""
        self._shell.ast_transformers.append(self)

    def stop(self) -> None:
        """Stop checking cells."""
        self._shell.ast_transformers.remove(self)

    def visit(self, tree: ast.AST) -> ast.AST:
        """Call the checks, and return *tree* unchanged. IPython calls this."""
        for check in self._checks:
            check(tree)
        return tree
