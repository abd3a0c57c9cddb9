"""Compile and run the code after `%aloop` or below `%%aloop`, as IPython does with a cell."""

from __future__ import annotations

import ast
import asyncio
import inspect
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from IPython.core.error import UsageError

from loopnb._cpython import parse
from loopnb.frames import runs_users_code, users_frames
from loopnb.magics._ipython import ends_with_semicolon
from loopnb.nesting.fatal import CapturedFatal
from loopnb.texts import error_text, repr_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from types import CodeType


class Source:
    """A compiled cell body or expression.

    Args:
        codes: Code objects, run one after the other.
        text: The text that was compiled.
        filename: The name that tracebacks show for the text.
        has_value: The value of the last code object is the value of the whole source.
        is_quiet: Its value is not displayed: a semicolon ends it, or the shell displays none.
        is_expression: The source is the expression of a `%aloop` line, so its value has to be awaited.
        function: Called with the global variables, instead of running *codes*. Needed for an expression that
            uses local variables of the function around it.

    Attributes:
        codes, text, filename, has_value, is_quiet, is_expression: As given.
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
        function: Callable[[dict[str, Any]], Awaitable[Any]] | None = None,
    ) -> None:
        self.codes = codes
        self.text = text
        self.filename = filename
        self.has_value = has_value
        self.is_quiet = is_quiet
        self.is_expression = is_expression
        self._function = function

    @property
    def does_await(self) -> bool:
        """True if any of the code awaits."""
        return any(_is_coroutine_code(code) for code in self.codes)

    @runs_users_code
    def run_now(self, global_ns: dict[str, Any], local_ns: dict[str, Any]) -> Any:
        """Run code that awaits nothing, on the calling stack, and return its value."""
        value = None
        for code in self.codes:
            value = eval(code, global_ns, local_ns)
        return value if self.has_value else None

    @runs_users_code
    async def run(
        self,
        global_ns: dict[str, Any],
        local_ns: dict[str, Any],
        *,
        deadline: Callable[[], AbstractContextManager[None]] = nullcontext,
        in_background: bool = False,
    ) -> Any:
        """Run the source and return its value. Errors have a traceback without this frame.

        SystemExit, KeyboardInterrupt and GeneratorExit must not leave a task: the first two would end the
        loop, and the third would close the coroutines that await the task. So they are returned as
        `CapturedFatal`, and the caller that waits raises them. Nobody waits for a background cell, so it
        raises a RuntimeError that names the exception.

        Args:
            global_ns: The global variables.
            local_ns: The local ones; in a notebook they are the same.
            deadline: Called in the task that runs the source. Its context manager ends that task in
                TimeoutError if it takes too long.
            in_background: Nobody waits for the value.
        """
        value = None
        try:
            with deadline():
                if self._function is not None:
                    value = await self._function(global_ns)
                else:
                    value = await self._run_codes(global_ns, local_ns)
                if self.is_expression and not self.does_await:
                    value = await _checked(value)
        except BaseException as error:
            error.__traceback__ = users_frames(error.__traceback__)
            if isinstance(error, Exception | asyncio.CancelledError):
                raise
            if in_background:
                raise RuntimeError(f"the background cell ended in {error_text(error)}") from error
            return CapturedFatal(error)
        return value if self.has_value else None

    async def _run_codes(self, global_ns: dict[str, Any], local_ns: dict[str, Any]) -> Any:
        value = None
        for code in self.codes:
            value = eval(code, global_ns, local_ns)
            if _is_coroutine_code(code):
                value = await value
        return value


def compile_body(
    shell: Any,
    body: str,
    *,
    count: int,
    raw_cell: str | None = None,
    interactivity: str = "last_expr",
    heading: str = "",
) -> Source:
    """Compile the lines below `%%aloop`. Line 1 is the line of the magic itself.

    Args:
        shell: The shell, whose transformers and compiler flags apply.
        body: The lines.
        count: Execution count of the cell, for tracebacks.
        raw_cell: The whole cell as typed, so that a debugger finds its breakpoints.
        interactivity: Which values are displayed, a value of `InteractiveShell.ast_node_interactivity`.
        heading: What tracebacks show as line 1: a comment, or nothing.

    Raises:
        SyntaxError: The lines do not compile.
    """
    blank = len(body) - len(body.lstrip("\n"))
    text = heading + "\n" * (1 + blank) + shell.transform_cell(body)
    name = shell.compile.cache(text, count, raw_code=raw_cell or text)
    tree = shell.transform_ast(shell.compile.ast_parse(text, filename=name))
    statements = tree.body
    if interactivity == "last_expr_or_assign":
        statements += _assigned(statements)
    last = statements.pop() if statements and isinstance(statements[-1], ast.Expr) else None
    codes = [_compile_statement(shell, node, name, is_shown=interactivity == "all") for node in statements]
    if last is not None:
        codes.append(_compile(shell, ast.Expression(last.value), name, "eval"))
    elif statements and interactivity == "last":
        codes[-1] = _compile_statement(shell, statements[-1], name, is_shown=True)
    quiet = interactivity == "none" or ends_with_semicolon(shell, body)
    return Source(codes, text, name, has_value=last is not None, is_quiet=quiet)


def _compile_statement(shell: Any, node: ast.stmt, name: str, *, is_shown: bool) -> CodeType:
    if is_shown:  # "single" sends the values of expressions to `sys.displayhook`
        return _compile(shell, ast.Interactive([node]), name, "single")
    return _compile(shell, ast.Module([node], []), name, "exec")


def _assigned(statements: list[ast.stmt]) -> list[ast.stmt]:
    """Return an expression for the variable that the last statement assigns to, or nothing."""
    match statements[-1:]:
        case [
            ast.Assign(targets=[ast.Name(id=name)])
            | ast.AugAssign(target=ast.Name(id=name))
            | ast.AnnAssign(target=ast.Name(id=name))
        ]:
            shown = ast.copy_location(ast.Expr(ast.Name(name, ast.Load())), statements[-1])
            return [ast.fix_missing_locations(shown)]
    return []


def compile_expression(
    shell: Any, expression: str, *, count: int, line: int = 1, local_ns: Mapping[str, Any] | None = None
) -> Source:
    """Compile the expression of `%aloop`.

    Args:
        shell: The shell, whose compiler flags apply.
        expression: The expression.
        count: Execution count of the cell, for tracebacks.
        line: Line number of the expression in its cell.
        local_ns: Local variables of the function around the expression; None if there is no function.

    Raises:
        SyntaxError: It is not an expression.
    """
    quiet = expression.endswith(";")
    text = "\n" * (line - 1) + expression.rstrip(";")
    name = shell.compile.cache(text, count)
    tree = shell.compile.ast_parse(text, filename=name, symbol="eval")
    code = _compile(shell, tree, name, "eval")
    function = _in_function(shell, tree, name, local_ns) if local_ns is not None else None
    return Source([code], text, name, has_value=True, is_quiet=quiet, is_expression=True, function=function)


def line_forms(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the text after each `%aloop` of a cell, and its line number."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Call(func=ast.Name(id="get_ipython")), attr="run_line_magic"),
                args=[ast.Constant(value="aloop"), ast.Constant(value=str(line))],
            ):
                yield line, node.lineno


def _in_function(
    shell: Any, tree: ast.Expression, name: str, local_ns: Mapping[str, Any]
) -> Callable[[dict[str, Any]], Awaitable[Any]]:
    """Make the expression the body of a function whose arguments are the local variables it names.

    Two simpler ways fail. In a copy of the globals with the locals merged in, the expression would not see
    what the functions it calls do to the globals. And lambdas and comprehensions do not see the locals that
    `eval` is given.
    """
    used = {node.id: local_ns[node.id] for node in ast.walk(tree) if _is_name_in(node, local_ns)}
    module = parse(f"async def aloop({', '.join(used)}): return ...")
    cast("Any", module.body[0]).body = [ast.copy_location(ast.Return(tree.body), tree.body)]
    code = _compile(shell, module, name, "exec")

    def call(global_ns: dict[str, Any]) -> Awaitable[Any]:
        made: dict[str, Any] = {}
        exec(code, global_ns, made)
        value: Awaitable[Any] = made["aloop"](**used)
        return value

    return call


def _is_name_in(node: ast.AST, local_ns: Mapping[str, Any]) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and node.id in local_ns


def _checked(value: Any) -> Awaitable[Any]:
    """Return *value*, the result of an expression without `await`, if `%aloop` can await it.

    Raises:
        UsageError: It cannot be awaited.
    """
    if inspect.isawaitable(value):
        return value
    raise UsageError(
        f"%aloop awaits its expression, and {repr_text(value, 60)} ({type(value).__name__}) cannot be "
        "awaited. Leave %aloop out to show the value."
    )


def _compile(shell: Any, tree: ast.AST, name: str, mode: str) -> CodeType:
    with shell.compile.extra_flags(ast.PyCF_ALLOW_TOP_LEVEL_AWAIT):
        code: CodeType = shell.compile(tree, name, mode)
    return code


def _is_coroutine_code(code: CodeType) -> bool:
    return bool(code.co_flags & inspect.CO_COROUTINE)
