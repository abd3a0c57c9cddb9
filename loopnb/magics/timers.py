"""Allow `await` in `%time`, `%timeit` and `%prun`, which then measure a nested run.

IPython compiles the argument of these magics as plain code, in which `await` is a syntax error. We replace
each `await x` by a call that waits for `x` in a nested run. IPython still decides what is measured, how
often, and what is printed. `async for` and `async with` stay errors.

IPython turns a line with a magic into a call such as `run_line_magic(...)`, and we change these calls.
Replacing the magics themselves would not work: IPython loads its own late, and would overwrite ours.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from loopnb import session
from loopnb.frames import users_frames
from loopnb.nesting.greenlets import current_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

_MAGICS = {"time", "timeit", "prun"}
#: IPython's functions that run a magic -> how many arguments they take.
_RUNNERS = {"run_line_magic": 2, "run_cell_magic": 3}
#: Replaces `await` in the code that IPython compiles. Not a variable, which the user would see among theirs.
_WAIT = f"__import__({__name__!r}, fromlist=['wait']).wait"
_WORD = re.compile(r"\S+")
#: `await` inside these is left alone.
_OWN_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def wait(awaitable: Awaitable[Any]) -> Any:
    """Wait for *awaitable* in a nested run, and return its result. Blocks the caller, not the loop.

    Any thread may call it, as with `loopnb.run`.

    Raises:
        NotLoadedError: loopnb has been unloaded.
        NestingError: Nested runs are switched off, or impossible here.
    """
    here = session.current("run")
    # In the Context of the cell, as with `await`: context variables that are set meanwhile hold after it.
    context = None if here.nesting.name == "nest-asyncio" else current_context()
    try:
        return here.run(_awaited(awaitable), context=context)
    except BaseException as error:
        error.__traceback__ = users_frames(error.__traceback__)
        raise


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


class Timers(ast.NodeTransformer):
    """Allow `await` in the magics of one shell that measure code. An AST transformer.

    Args:
        shell: The shell.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell

    def start(self) -> None:
        """Change the calls, from the next cell on."""
        self._shell.ast_transformers.append(self)

    def stop(self) -> None:
        """Leave the calls as they are."""
        self._shell.ast_transformers.remove(self)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Change *node* if it calls a magic that measures code."""
        self.generic_visit(node)
        count = _RUNNERS.get(getattr(node.func, "attr", ""))
        texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        if len(texts) == len(node.args) == count and texts[0] in _MAGICS:
            name, line, *cell = map(str, texts)
            changed = [name, without_await_in_line(line), *(self._without_await(body) for body in cell)]
            node.args = [ast.copy_location(ast.Constant(text), node) for text in changed]
        return node

    def _without_await(self, cell: str) -> str:
        return without_await(cell, self._shell.transform_cell)


def without_await(code: str, transform: Callable[[str], str] = str) -> str:
    """Return *code* with each `await` replaced by a call.

    Args:
        code: Python, perhaps with IPython's own syntax.
        transform: Turns that into Python.
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
    return code  # IPython will report what is wrong


def without_await_in_line(line: str) -> str:
    """Return the *line* of a magic (options, then a statement) with each `await` replaced by a call."""
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
    """Return *source* with each of *awaits* replaced by a call. The rest stays on its line."""
    lines = [line.encode() for line in source.splitlines(keepends=True)]  # columns are counted in bytes
    ends = [(node.end_lineno or 0, node.end_col_offset or 0, b"", b")") for node in awaits]
    begins = [(node.lineno, node.col_offset, b"await", f"{_WAIT}(".encode()) for node in awaits]
    # Last to first, so that the positions still to come stay valid. Where an end meets a begin, the end comes
    # first.
    for number, column, old, new in sorted([*ends, *begins], reverse=True):
        text = lines[number - 1]
        lines[number - 1] = text[:column] + new + text[column + len(old) :]
    return b"".join(lines).decode()
