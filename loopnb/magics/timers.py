"""`await` in `%time`, `%timeit` and `%prun`: IPython's own magics measure a nested run instead.

IPython compiles what these magics are given as plain code, in which `await` is a syntax error. Here each
`await x` becomes a call that waits for `x` in a nested run, and the rest is left to IPython: what is
measured, how often, and what is printed. `async for` and `async with` stay errors there.

Not the magics are changed but the calls of them in a cell, which IPython has made of the user's lines.
IPython loads its magics late, and would put them over ours.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from loopnb import session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

_MAGICS = {"time", "timeit", "prun"}
_RUNNERS = {"run_line_magic": 2, "run_cell_magic": 3}
#: What stands for `await` in the code that IPython compiles. No variable, which the user would see.
_WAIT = f"__import__({__name__!r}, fromlist=['wait']).wait"
_WORD = re.compile(r"\S+")
#: In these, `await` is what it was, or an error.
_OWN_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def wait(awaitable: Awaitable[Any]) -> Any:
    """Return the result of *awaitable*, which a nested run waits for. Blocks the caller, not the loop.

    Raises:
        NotLoadedError: No session is loaded any more.
        NestingError: Nesting is off, or impossible here.
    """
    return session.current("run").run(_awaited(awaitable))


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


class Timers(ast.NodeTransformer):
    """Lets `await` into IPython's magics that measure code, for one shell. An AST transformer.

    Args:
        shell: The shell.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell

    def start(self) -> None:
        """Change the calls in cells from the next one on."""
        self._shell.ast_transformers.append(self)

    def stop(self) -> None:
        """Leave them as they are."""
        self._shell.ast_transformers.remove(self)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Change *node* if it is IPython's call of one of those magics."""
        self.generic_visit(node)
        count = _RUNNERS.get(getattr(node.func, "attr", ""))
        texts = [one.value for one in node.args if isinstance(one, ast.Constant)]
        if len(texts) == len(node.args) == count and texts[0] in _MAGICS:
            name, line, *cell = map(str, texts)
            changed = [name, without_await_in_line(line), *(self._without_await(one) for one in cell)]
            node.args = [ast.copy_location(ast.Constant(text), node) for text in changed]
        return node

    def _without_await(self, cell: str) -> str:
        return without_await(cell, self._shell.transform_cell)


def without_await(code: str, transform: Callable[[str], str] = str) -> str:
    """Return *code* with calls in place of its `await`s, or as it is if it has none.

    Args:
        code: Python, perhaps with IPython's own syntax.
        transform: Makes Python of that.
    """
    if "await" not in code:
        return code
    for make in (str, transform):
        try:
            source = make(code)
            tree = ast.parse(source)
        except SyntaxError:
            continue
        return _replaced(source, list(_awaits_in(tree)))
    return code  # IPython says what is wrong


def without_await_in_line(line: str) -> str:
    """Return the *line* of a magic, options and a statement, with calls in place of the `await`s."""
    if "await" not in line:
        return line
    for word in _WORD.finditer(line):
        statement = line[word.start() :]
        replaced = without_await(statement)
        if replaced != statement:
            return line[: word.start()] + replaced
    return line


def _awaits_in(node: ast.AST) -> Iterator[ast.Await]:
    if isinstance(node, ast.Await):
        yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _OWN_SCOPES):
            yield from _awaits_in(child)


def _replaced(source: str, awaits: list[ast.Await]) -> str:
    """Return *source* with `await x` replaced by a call, and everything else where it was."""
    lines = [line.encode() for line in source.splitlines(keepends=True)]  # columns are counted in bytes
    ends = [(one.end_lineno or 0, one.end_col_offset or 0, b"", b")") for one in awaits]
    begins = [(one.lineno, one.col_offset, b"await", f"{_WAIT}(".encode()) for one in awaits]
    # From the last to the first, so that the places of the others stay. An end comes before a begin there.
    for number, column, old, new in sorted([*ends, *begins], reverse=True):
        text = lines[number - 1]
        lines[number - 1] = text[:column] + new + text[column + len(old) :]
    return b"".join(lines).decode()
