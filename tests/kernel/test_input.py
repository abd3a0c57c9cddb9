"""What asks the user something inside a nested run: input, a debugger, another shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.requests import without_ansi

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver

NESTED = "async def main():\n    await asyncio.sleep(0)\n    z = 5\n    {}\nasyncio.run(main())"
IN_TASK = (
    "async def main():\n    await asyncio.sleep(0)\n    z = 5\n    {}\nawait asyncio.create_task(main())"
)


@pytest.fixture(autouse=True)
def functions(kernel: KernelDriver) -> None:
    kernel.run(
        "import asyncio, getpass, IPython, pdb\n"
        "async def later(x):\n    await asyncio.sleep(0.001)\n    return x\n"
        "async def fails(wanted):\n    await asyncio.sleep(0)\n    raise ValueError(wanted)\n"
        "def helper(x):\n    got = asyncio.run(later(x))\n    return got"
    )


@pytest.mark.parametrize("function", ["input", "getpass.getpass"])
def test_a_nested_run_can_ask_for_input(kernel: KernelDriver, function: str) -> None:
    cell = kernel.start(NESTED.format(f"return {function}('name? ')"), allow_stdin=True)

    asked = cell.answer("Joe")

    assert asked.content == {"prompt": "name? ", "password": function != "input"}
    assert cell.wait().result == "'Joe'"


@pytest.mark.parametrize("code", [NESTED, IN_TASK], ids=["nested run", "task"])
def test_one_interrupt_ends_a_question(kernel: KernelDriver, code: str) -> None:
    cell = kernel.start(code.format("return input('name? ')"), allow_stdin=True)
    cell.wait_asked()

    kernel.interrupt()

    assert cell.wait().ename == "KeyboardInterrupt"
    assert kernel.run("helper(2)").result == "2"


def test_a_debugger_steps_over_a_nested_run_and_sees_the_variables_of_one(kernel: KernelDriver) -> None:
    code = NESTED.format("pdb.set_trace()\n    got = helper(z)\n    return got + 1")
    cell = kernel.start(code, allow_stdin=True)
    for line in ("p 'z is', z", "next", "p 'got is', got", "continue"):
        cell.answer(line)

    result = cell.wait()
    assert "('z is', 5)" in result.stdout
    assert "('got is', 5)" in result.stdout
    assert result.result == "6"


def test_a_nested_run_works_at_the_prompt_of_a_debugger(kernel: KernelDriver) -> None:
    cell = kernel.start(NESTED.format("pdb.set_trace()\n    return z"), allow_stdin=True)
    for line in ("p 'nested', helper(77)", "continue"):
        cell.answer(line)

    assert "('nested', 77)" in cell.wait().expect_ok().stdout


def test_quitting_a_debugger_in_a_nested_run_ends_that_cell_and_no_more(kernel: KernelDriver) -> None:
    cell = kernel.start(NESTED.format("pdb.set_trace()\n    return z"), allow_stdin=True)
    cell.answer("quit")

    assert cell.wait().ename == "BdbQuit"
    assert kernel.run("helper(2)").result == "2"


@pytest.mark.parametrize(
    "code", ["%debug", NESTED.format("get_ipython().run_line_magic('debug', '')")], ids=["cell", "nested run"]
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
    cell = kernel.start(NESTED.format("IPython.embed()\n    return 'left'"), allow_stdin=True)
    for line in ("z * 11", "helper(66)", "exit"):
        cell.answer(line)

    result = cell.wait()
    assert "55" in result.stdout
    assert "66" in result.stdout
    assert result.result == "'left'"
