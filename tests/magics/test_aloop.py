"""What `%aloop` and `%%aloop` display, refuse and leave in history; `tests/kernel` has the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from IPython.core.error import UsageError

from loopnb.magics.options import AloopOptions, Request
from loopnb.magics.source import Source
from tests.cells import below, dedented

if TYPE_CHECKING:
    from tests.shells import Notebook


@pytest.mark.parametrize("ends_with_semicolon", [False, True])
@pytest.mark.parametrize(
    ("is_background", "is_expression", "hides"),
    [
        (False, False, True),
        (False, True, True),
        (True, True, True),
        (True, False, False),  # the semicolon is about the value of the cell, and the handle is displayed
    ],
)
def test_a_semicolon_hides_what_it_stands_behind(
    is_background: bool, is_expression: bool, hides: bool, ends_with_semicolon: bool
) -> None:
    options = AloopOptions(None, is_background, None, None)
    source = Source([], "", "", has_value=True, is_quiet=ends_with_semicolon, is_expression=is_expression)

    assert Request(options, source, None).is_quiet == (hides and ends_with_semicolon)


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        (
            """
            %%aloop -x
            1
            """,
            "-x. '%aloop?' lists the options",
        ),
        (
            """
            %%aloop code here
            await asyncio.sleep(0)
            """,
            "below the first line",
        ),
        ("%aloop", "missing"),
        ("%loopnb cancel nobody", "No live task is called 'nobody'"),
    ],
)
def test_bad_input_is_told_and_nothing_is_lost(notebook: Notebook, cell: str, says: str) -> None:
    notebook.run("value = 'kept'")

    error = notebook.error(cell)

    assert isinstance(error, UsageError)
    assert says in str(error)
    assert notebook.value("value") == "kept"


def test_an_expression_that_a_magic_is_called_with_may_still_not_compile(notebook: Notebook) -> None:
    error = notebook.error("get_ipython().run_line_magic('aloop', 'f(x ' + 'x)')")

    assert isinstance(error, SyntaxError)


@pytest.mark.parametrize("interactivity", ["all", "last_expr_or_assign"])
def test_a_cell_shows_the_values_that_a_plain_cell_shows(notebook: Notebook, interactivity: str) -> None:
    body = dedented(
        """
        'a'
        if True: 'b'
        await asyncio.sleep(0, 'c')
        x = 'd'
        """
    )
    notebook.shell.ast_node_interactivity = interactivity
    notebook.shell.take_shown()

    notebook.run(below("%%aloop", body))

    shown = notebook.shell.take_shown()
    notebook.run(body)
    assert shown == notebook.shell.take_shown()
    assert shown


def test_history_holds_what_it_holds_of_any_magic(notebook: Notebook) -> None:
    notebook.run(
        """
        %%time
        value = 1
        """
    )
    of_time = notebook.value("In")[-1]

    for line in ("", " -n mine"):
        typed = dedented(
            f"""
            %%aloop{line}
            await asyncio.sleep(0)
            value = 'ran'
            """
        )
        count = notebook.run(typed).execution_count

        call = f"get_ipython().run_cell_magic('aloop', {line.strip()!r}, "
        assert notebook.value("In")[-1] == call + repr(typed.partition("\n")[2] + "\n") + ")"
        assert notebook.value(f"_i{count}") == typed
    assert of_time.startswith("get_ipython().run_cell_magic('time', '', ")
    notebook.run(
        """
        value = None
        exec(In[-2])
        """
    )
    assert notebook.value("value") == "ran"
