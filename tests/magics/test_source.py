"""What stands below `%%aloop`, and behind `%aloop`: compiled as IPython compiles a cell."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from IPython.core.error import UsageError

from loopnb.magics.source import compile_body, compile_expression
from tests.cells import dedented

if TYPE_CHECKING:
    from loopnb.magics.source import Source
    from tests.shells import Shell


def run(source: Source, global_ns: dict[str, Any]) -> Any:
    return asyncio.run(source.run(global_ns, global_ns))


def shown_by_aloop(shell: Shell, body: str) -> list[Any]:
    source = compile_body(shell, body, count=1, interactivity=shell.ast_node_interactivity)
    with shell.display_trap:
        value = run(source, shell.user_ns)
        if not source.is_quiet:
            shell.displayhook(value)
    return shell.take_shown()


def shown_by_a_cell(shell: Any, body: str) -> list[Any]:
    cell = shell.run_cell_async(body, transformed_cell=shell.transform_cell(body))
    asyncio.run(cell).raise_error()
    shown: list[Any] = shell.take_shown()
    return shown


SHOWN = {"all": ["a", "b", "c"], "last": ["c"], "last_expr": ["c"], "none": []}


@pytest.mark.parametrize("interactivity", [*SHOWN, "last_expr_or_assign"])
@pytest.mark.parametrize("end", ["", "x = 'd'", "x: str = 'd'", "if True: 'd'", "x = y = 'd'"])
def test_it_shows_the_values_that_a_plain_cell_shows(shell: Shell, interactivity: str, end: str) -> None:
    body = dedented(
        f"""
        import asyncio
        'a'
        if True: 'b'
        await asyncio.sleep(0, 'c')
        {end}
        """
    )
    shell.ast_node_interactivity = interactivity

    shown = shown_by_aloop(shell, body)

    assert shown == shown_by_a_cell(shell, body)
    assert end or interactivity not in SHOWN or shown == SHOWN[interactivity]


def test_a_trailing_semicolon_hides_the_value(shell: Shell) -> None:
    assert compile_body(shell, "6;", count=1).is_quiet
    assert compile_expression(shell, "f(6);", count=1).is_quiet
    assert not compile_body(shell, "6", count=1).is_quiet


def test_it_is_known_whether_a_body_awaits(shell: Shell) -> None:
    assert not compile_body(shell, "x = 1", count=1).does_await
    assert compile_body(shell, "x = 1\nawait f()", count=1).does_await
    assert not compile_body(shell, "async def f(): await g()", count=1).does_await


def test_names_are_those_of_the_namespace(shell: Shell) -> None:
    names: dict[str, Any] = {"asyncio": asyncio}
    source = compile_body(shell, "value = await asyncio.sleep(0, 5)\nvalue + 1", count=1)

    assert run(source, names) == 6
    assert names["value"] == 5


@pytest.mark.parametrize("body", ["\n\n1 / 0", "x = 1\n\n1 / 0"])
def test_lines_are_counted_from_the_magics_own(shell: Shell, body: str) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run(compile_body(shell, body, count=1), {})

    assert [frame.lineno for frame in traceback.extract_tb(caught.value.__traceback__)][-1] == 4


def test_a_syntax_error_has_the_line_of_the_cell(shell: Shell) -> None:
    with pytest.raises(SyntaxError) as caught:
        compile_body(shell, "x = = 1", count=1)

    assert caught.value.lineno == 2


@pytest.mark.parametrize("line", [1, 3])
def test_a_syntax_error_of_an_expression_has_its_line(shell: Shell, line: int) -> None:
    with pytest.raises(SyntaxError) as caught:
        compile_expression(shell, "f(x x)", count=1, line=line)

    assert caught.value.lineno == line


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("add(x)", 5),
        ("await add(x)", 5),
        ("asyncio.gather(*(add(y) for y in range(x, x + 1)))", [5]),
        ("(lambda: add(x))()", 5),
    ],
)
def test_an_expression_in_a_function_sees_its_variables(shell: Shell, expression: str, value: Any) -> None:
    names: dict[str, Any] = {"x": "not this one", "offset": 1, "asyncio": asyncio}
    exec("def f(x):\n    async def add(y): return x + y + offset\n    return locals()", names)

    source = compile_expression(shell, expression, count=1, local_ns=names["f"](2))

    assert run(source, names) == value


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("f(lambda n: n -1)", 4),
        ('g("a  b", x) -n', "a  b"),
        ("asyncio.sleep(0, asyncio.current_task() is None)", False),
    ],
)
def test_an_expression_is_awaited_as_typed(shell: Shell, expression: str, value: Any) -> None:
    class Text(str):
        def __sub__(self, other: int) -> Any:
            return asyncio.sleep(0, str(self))

    async def f(fn: Any) -> Any:
        return fn(5)

    names = {"asyncio": asyncio, "f": f, "g": lambda text, _x: Text(text), "n": 0, "x": 1}

    assert run(compile_expression(shell, expression, count=1), names) == value


def test_an_expression_has_to_be_awaitable(shell: Shell) -> None:
    with pytest.raises(UsageError, match="42"):
        run(compile_expression(shell, "42", count=1), {})
