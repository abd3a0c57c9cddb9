"""What asks the user something inside a nested run: input, a debugger, another shell."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.cells import NESTED, dedented, filled
from tests.kernel.requests import without_ansi

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver

IN_TASK = dedented(
    """
    async def main():
        await asyncio.sleep(0)
        z = 5
        {}
    await asyncio.create_task(main())
    """
)
STOPS = """
    pdb.set_trace()
    return z
    """


@pytest.fixture(autouse=True)
def functions(kernel: KernelDriver) -> None:
    kernel.run(
        """
        import asyncio, getpass, IPython, pdb
        async def later(x):
            await asyncio.sleep(0.001)
            return x
        async def fails(wanted):
            await asyncio.sleep(0)
            raise ValueError(wanted)
        def helper(x):
            got = asyncio.run(later(x))
            return got
        """
    )


@pytest.mark.parametrize("function", ["input", "getpass.getpass"])
def test_a_nested_run_can_ask_for_input(kernel: KernelDriver, function: str) -> None:
    cell = kernel.start(filled(NESTED, f"return {function}('name? ')"), allow_stdin=True)

    asked = cell.answer("Joe")

    assert asked.content == {"prompt": "name? ", "password": function != "input"}
    assert cell.wait().result == "'Joe'"


@pytest.mark.parametrize("code", [NESTED, IN_TASK], ids=["nested run", "task"])
def test_one_interrupt_ends_a_question(kernel: KernelDriver, code: str) -> None:
    cell = kernel.start(filled(code, "return input('name? ')"), allow_stdin=True)
    cell.wait_asked()

    kernel.interrupt()

    assert cell.wait().ename == "KeyboardInterrupt"
    assert kernel.run("helper(2)").result == "2"


@pytest.mark.parametrize("code", ["{}", NESTED], ids=["plain", "nested run"])
def test_an_interrupt_that_is_swallowed_while_the_user_is_asked_is_sent_again(
    kernel: KernelDriver, code: str
) -> None:
    # In stock, pyzmq swallows about one in a thousand, where it frees a message.
    kernel.run(
        """
        import signal, zmq

        class Swallows:
            def __del__(self):
                signal.raise_signal(signal.SIGINT)

        def select_once(*args):
            zmq.select = select
            Swallows()
            return select(*args)

        select, zmq.select = zmq.select, select_once
        """
    )

    cell = kernel.start(filled(code, "input('name? ')"), allow_stdin=True)

    assert cell.wait().ename == "KeyboardInterrupt"
    assert kernel.value("zmq.select is select") is True


def test_a_debugger_steps_over_a_nested_run_and_sees_the_variables_of_one(kernel: KernelDriver) -> None:
    code = filled(
        NESTED,
        """
        pdb.set_trace()
        got = helper(z)
        return got + 1
        """,
    )
    cell = kernel.start(code, allow_stdin=True)
    # From 3.13 on, `set_trace()` stops in its own line.
    steps = ["next"] * (2 if sys.version_info >= (3, 13) else 1)
    for line in ("p 'z is', z", *steps, "p 'got is', got", "continue"):
        cell.answer(line)

    result = cell.wait()
    assert "('z is', 5)" in result.stdout
    assert "('got is', 5)" in result.stdout
    assert result.result == "6"


def test_a_nested_run_works_at_the_prompt_of_a_debugger(kernel: KernelDriver) -> None:
    cell = kernel.start(filled(NESTED, STOPS), allow_stdin=True)
    for line in ("p 'nested', helper(77)", "continue"):
        cell.answer(line)

    assert "('nested', 77)" in cell.wait().expect_ok().stdout


def test_quitting_a_debugger_in_a_nested_run_ends_that_cell_and_no_more(kernel: KernelDriver) -> None:
    cell = kernel.start(filled(NESTED, STOPS), allow_stdin=True)
    cell.answer("quit")

    assert cell.wait().ename == "BdbQuit"
    assert kernel.run("helper(2)").result == "2"


@pytest.mark.parametrize(
    "code",
    ["%debug", filled(NESTED, "get_ipython().run_line_magic('debug', '')")],
    ids=["cell", "nested run"],
)
def test_debug_after_an_error_in_a_nested_run_begins_in_the_users_frame(
    kernel: KernelDriver, code: str
) -> None:
    assert kernel.execute("asyncio.run(fails('seen'))").ename == "ValueError"
    cell = kernel.start(code, allow_stdin=True)
    for line in ("p 'wanted is', wanted", "up", "p 'up is', 'helper' in globals()", "quit"):
        cell.answer(line)

    shown = without_ansi(cell.wait().expect_ok().stdout)
    assert "('wanted is', 'seen')" in shown
    assert "asyncio.run(fails('seen'))" in shown  # where `up` leads: to the cell, past the engine
    assert "engine.py" not in shown


def test_an_embedded_shell_in_a_nested_run_sees_its_variables_and_ends(kernel: KernelDriver) -> None:
    cell = kernel.start(
        filled(
            NESTED,
            """
            IPython.embed()
            return 'left'
            """,
        ),
        allow_stdin=True,
    )
    for line in ("z * 11", "helper(66)", "exit"):
        cell.answer(line)

    result = cell.wait()
    assert "55" in result.stdout
    assert "66" in result.stdout
    assert result.result == "'left'"
