"""Compiling what a user typed below `%%aloop`, as IPython compiles a cell."""

from __future__ import annotations

import ast
import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from loopnb.session import users_frames
from loopnb.tracking import provenance

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import CodeType

provenance.passes_over(globals())


class Source:
    """A compiled cell body or expression.

    Attributes:
        codes: What to run, one after the other.
        has_value: The value of the last code is the value of all.
        is_quiet: The last expression ends with a semicolon: its value is not displayed.
        is_expression: It is the expression of a line, whose value is what matters.
        text: As it was compiled.
        filename: What stands for a file in tracebacks.
    """

    def __init__(
        self,
        codes: list[CodeType],
        text: str,
        filename: str,
        *,
        has_value: bool,
        is_quiet: bool = False,
        is_expression: bool = False,
    ) -> None:
        self.codes = codes
        self.text = text
        self.filename = filename
        self.has_value = has_value
        self.is_quiet = is_quiet
        self.is_expression = is_expression

    @property
    def does_await(self) -> bool:
        """Some of it runs as a coroutine."""
        return any(_is_coroutine_code(code) for code in self.codes)

    async def run(
        self, global_ns: dict[str, Any], local_ns: dict[str, Any], *, in_background: bool = False
    ) -> Any:
        """Run it and return its value; what it raises has a traceback without this frame.

        A task that raises SystemExit or KeyboardInterrupt ends the loop with it, and one that raises
        GeneratorExit counts as closed. Neither is a cell's business: whoever waits for the cell gets
        them as `Ended`, and a background cell ends in a RuntimeError that names them.
        """
        value = None
        try:
            for code in self.codes:
                value = eval(code, global_ns, local_ns)
                if _is_coroutine_code(code):
                    value = await value
            if self.is_expression and not self.does_await:
                value = await _checked(value)
        except BaseException as error:
            error.__traceback__ = users_frames(error.__traceback__)
            if isinstance(error, Exception | asyncio.CancelledError):
                raise
            if in_background:
                raise RuntimeError(f"the background cell ended in {error!r}") from error
            return Ended(error)
        return value if self.has_value else None


class Ended:
    """What a cell has ended in, where its task must not raise it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @staticmethod
    def unwrap(value: Any) -> Any:
        """Return the value of a cell, or raise what it has ended in."""
        if isinstance(value, Ended):
            raise value.error
        return value


def compile_body(shell: Any, body: str, *, count: int, raw_cell: str | None = None) -> Source:
    """Compile the lines below `%%aloop`, under line numbers that count the magic's own line.

    Args:
        shell: The shell, whose transformers and compiler flags apply.
        body: The lines.
        count: Execution count of the cell, for tracebacks.
        raw_cell: The whole cell as typed, so that a debugger finds its breakpoints.

    Raises:
        SyntaxError: As the compiler says.
    """
    blank = len(body) - len(body.lstrip("\n"))
    text = "\n" * (1 + blank) + shell.transform_cell(body)
    name = shell.compile.cache(text, count, raw_code=raw_cell or text)
    tree = shell.transform_ast(shell.compile.ast_parse(text, filename=name))
    statements = tree.body
    last = statements.pop() if statements and isinstance(statements[-1], ast.Expr) else None
    codes = [_compile(shell, ast.Module([node], []), name, "exec") for node in statements]
    if last is not None:
        codes.append(_compile(shell, ast.Expression(last.value), name, "eval"))
    quiet = shell.displayhook.semicolon_at_end_of_expression(body)
    return Source(codes, text, name, has_value=last is not None, is_quiet=quiet)


def compile_expression(shell: Any, expression: str, *, count: int) -> Source:
    """Compile the expression of `%aloop`.

    Raises:
        SyntaxError: It is no expression.
    """
    quiet = expression.endswith(";")
    expression = expression.rstrip(";")
    name = shell.compile.cache(expression, count)
    tree = shell.compile.ast_parse(expression, filename=name, symbol="eval")
    code = _compile(shell, tree, name, "eval")
    return Source([code], expression, name, has_value=True, is_quiet=quiet, is_expression=True)


def _checked(value: Any) -> Awaitable[Any]:
    """Return what `%aloop` is to await: the value of an expression written without `await`."""
    if inspect.isawaitable(value):
        return value
    raise UsageError(
        f"%aloop: it awaits its expression, and {value!r:.60} ({type(value).__name__}) "
        "cannot be awaited. Without %aloop the line does what you see."
    )


def _compile(shell: Any, tree: ast.AST, name: str, mode: str) -> CodeType:
    with shell.compile.extra_flags(ast.PyCF_ALLOW_TOP_LEVEL_AWAIT):
        code: CodeType = shell.compile(tree, name, mode)
    return code


def _is_coroutine_code(code: CodeType) -> bool:
    return bool(code.co_flags & inspect.CO_COROUTINE)
