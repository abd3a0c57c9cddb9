"""Allow `await` in `%time`, `%timeit` and `%prun`, which then measure a nested run.

IPython compiles the argument of these magics as plain code, in which `await` is a syntax error. We replace
each `await x` by a call that waits for `x` in a nested run. A statement with `async for`, `async with` or an
f-string that awaits becomes a call. That call compiles the text of the statement and waits for it, with the
names of the code around it. IPython still decides what is measured, how often, and what is printed.

IPython turns a line with a magic into a call such as `run_line_magic(...)`, and we change these calls.
Replacing the magics themselves would not work: IPython loads its own late, and would overwrite ours.
"""

from __future__ import annotations

import ast
import inspect
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from loopnb import session
from loopnb._cpython import parse
from loopnb.frames import users_frames
from loopnb.nesting.greenlets import current_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import CodeType, FrameType

_MAGICS = {"time", "timeit", "prun"}
#: IPython's functions that run a magic -> how many arguments they take.
_RUNNERS = {"run_line_magic": 2, "run_cell_magic": 3}
#: Replaces `await` in the code that IPython compiles. Not a variable, which the user would see among theirs.
_WAIT = f"__import__({__name__!r}, fromlist=['wait']).wait"
#: Replaces a statement whose text is compiled, in the same way.
_RUN = f"__import__({__name__!r}, fromlist=['run_text']).run_text"
_WORD = re.compile(r"\S+")
#: `await` and its like inside these are left alone.
_OWN_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
#: In these an `await` cannot be replaced. Before Python 3.12 its column is wrong, and the call may not hold
#: the quotes of the string. T-strings are new in Python 3.14.
_STRINGS = (ast.JoinedStr, getattr(ast, "TemplateStr", ast.JoinedStr))


def wait(awaitable: Awaitable[Any]) -> Any:
    """Wait for *awaitable* in a nested run, and return its result. Blocks the caller, not the loop.

    Any thread may call it, as with `loopnb.run`.

    Raises:
        NotLoadedError: loopnb has been unloaded.
        NestingError: Nested runs are switched off, or impossible here.
    """
    here = session.current("run")
    # Run it in the Context of the cell, as with `await`: context variables that are set meanwhile hold
    # afterwards.
    context = None if here.nesting.name == "nest-asyncio" else current_context()
    try:
        return here.run(_awaited(awaitable), context=context)
    except BaseException as error:
        error.__traceback__ = users_frames(error.__traceback__)
        raise


def run_text(text: str, line: int, mode: str) -> Any:
    """Run *text* for the calling code, with its names, in a nested run. Return its value in mode "eval".

    Args:
        text: A statement, or several, with `async for`, `async with` or `await` at the top level.
        line: The number of its first line, for tracebacks.
        mode: "exec" or "eval", as `compile` takes it.

    Raises:
        NotLoadedError, NestingError: As `wait`.
    """
    caller: Any = cast("FrameType", inspect.currentframe()).f_back
    try:
        return wait(eval(_compiled(text, line, mode), caller.f_globals, caller.f_locals))
    except BaseException as error:
        error.__traceback__ = users_frames(error.__traceback__)
        raise


@lru_cache(maxsize=100)  # `%timeit` runs it often, and must not measure the compiler
def _compiled(text: str, line: int, mode: str) -> CodeType:
    code: CodeType = compile(
        "\n" * (line - 1) + text,
        f"<timed {mode}>",  # as IPython calls it
        mode,
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    return code


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
            # `%timeit` puts the cell into a function, which would not see what a separate text assigns.
            is_one = name == "timeit"
            changed = [
                name,
                without_await_in_line(line),
                *(self._without_await(body, is_one) for body in cell),
            ]
            node.args = [ast.copy_location(ast.Constant(text), node) for text in changed]
        return node

    def _without_await(self, cell: str, is_one: bool) -> str:
        return without_await(cell, self._shell.transform_cell, is_one=is_one)


def without_await(code: str, transform: Callable[[str], str] = str, *, is_one: bool = False) -> str:
    """Return *code* with calls in place of each `await`, and of each statement that needs its text compiled.

    Such a statement has `async for`, `async with` or an f-string that awaits. Code that does not compile is
    returned as it is.

    Args:
        code: Python, perhaps with IPython's own syntax.
        transform: Turns that into Python.
        is_one: If there is any such statement, replace all statements by one call.
    """
    if not _is_async(code):
        return code
    for make in (str, transform):
        try:
            source = make(code)
            tree = parse(source)
        except SyntaxError:
            continue
        texts = [[statement] for statement in tree.body if _needs_text(statement)]
        if texts and is_one:
            texts = [tree.body]
        replaced = [statement for text in texts for statement in text]
        awaits = [
            node for statement in tree.body if statement not in replaced for node in _awaits_in(statement)
        ]
        return _replaced(source, awaits, texts)
    return code  # IPython will report what is wrong


def without_await_in_line(line: str) -> str:
    """Return the *line* of a magic (options, then a statement) with each `await` replaced by a call."""
    if not _is_async(line):
        return line
    before = ""
    for word in _WORD.finditer(line):
        statement = line[word.start() :]
        option, before = before, word.group()
        if option.startswith("-") and before.isdigit():  # the option's value; `10 [...]` would compile
            continue
        replaced = without_await(statement)
        if replaced != statement:
            return line[: word.start()] + replaced
    return line


def _awaits_in(node: ast.AST) -> Iterator[ast.Await]:
    if isinstance(node, _OWN_SCOPES):
        return
    if isinstance(node, ast.Await):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from _awaits_in(child)


def _is_async(code: str) -> bool:
    return "await" in code or "async" in code


def _needs_text(node: ast.AST) -> bool:
    """Return True if *node* iterates or enters something asynchronously, or has an f-string that awaits.

    A function in it does not count.
    """
    if isinstance(node, _OWN_SCOPES):
        return False
    if isinstance(node, _STRINGS) and any(_awaits_in(node)):
        return True
    if isinstance(node, ast.AsyncFor | ast.AsyncWith) or (
        isinstance(node, ast.comprehension) and node.is_async
    ):
        return True
    return any(map(_needs_text, ast.iter_child_nodes(node)))


def _replaced(source: str, awaits: list[ast.Await], texts: list[list[ast.stmt]]) -> str:
    """Return *source* with each of *awaits* and of *texts* replaced by a call. The rest stays on its line."""
    lines = [line.encode() for line in source.splitlines(keepends=True)]  # columns are counted in bytes
    edits = [_call_of(source, text) for text in texts]
    for node in awaits:
        end = (node.end_lineno or 0, node.end_col_offset or 0)
        edits.append((*end, *end, b")"))
        edits.append((node.lineno, node.col_offset, node.lineno, node.col_offset + 5, f"{_WAIT}(".encode()))
    # Go from last to first, so that the positions still to come stay valid.
    for first, column, last, end_column, new in sorted(edits, reverse=True):
        line = lines[first - 1][:column] + new + lines[last - 1][end_column:]
        lines[first - 1 : last] = [line, *[b"\n"] * (last - first)]
    return b"".join(lines).decode()


def _call_of(source: str, statements: list[ast.stmt]) -> tuple[int, int, int, int, bytes]:
    """Return where *statements*, which follow each other, begin and end, and the call that replaces them."""
    first, last = statements[0], statements[-1]
    place = (first.lineno, first.col_offset, last.end_lineno or 0, last.end_col_offset or 0)
    lines = [line.encode() for line in source.splitlines(keepends=True)][first.lineno - 1 : last.end_lineno]
    lines[-1] = lines[-1][: last.end_col_offset]
    lines[0] = lines[0][first.col_offset :]
    mode = "eval" if len(statements) == 1 and isinstance(first, ast.Expr) else "exec"
    return (*place, f"{_RUN}({b''.join(lines).decode()!r}, {first.lineno}, {mode!r})".encode())
