"""What asks the user something inside a nested run, in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cells import NESTED, filled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.terminal.driver import Terminal


# What is waited for is never in the echo of the code.
QUESTIONS: dict[str, tuple[str, Sequence[tuple[str, str]], str]] = {
    "input": ("return input('na' + 'me? ')[::-1]", [(r"name\? ", "abc\r")], "'cba'"),
    "getpass": ("return getpass.getpass('na' + 'me? ')[::-1]", [(r"name\? ", "abc\r")], "'cba'"),
    "breakpoint": (
        """
        breakpoint()
        got = helper(z)
        return got + 2
        """,
        [(r"\(Pdb\) ", "p z * 11\r"), (r"55\s+\(Pdb\) ", "n\r"), (r"\(Pdb\) ", "p helper(7) * 111\r"),
         (r"777\s+\(Pdb\) ", "c\r")],
        "7",
    ),
    "embed": (
        """
        IPython.embed()
        return z + 3
        """,
        [(r"In \[1\]:", "z * 11\r"), (r"Out\[1\]: 55[\s\S]+In \[2\]:", "helper(6) * 111\r"),
         (r"Out\[2\]: 666[\s\S]+In \[3\]:", "exit\r")],
        "8",
    ),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def functions(shared_terminal: Terminal) -> None:
    shared_terminal.run("import getpass, IPython")
    shared_terminal.run(
        """
        async def later(x):
            await asyncio.sleep(0.001)
            return x
        async def fails(wanted):
            raise ValueError(await later(wanted))
        def helper(x):
            return asyncio.run(later(x))
        """
    )


@pytest.mark.parametrize(("code", "answers", "result"), QUESTIONS.values(), ids=QUESTIONS)
def test_a_nested_run_can_ask_and_goes_on(
    shared_terminal: Terminal, code: str, answers: Sequence[tuple[str, str]], result: str
) -> None:
    number = shared_terminal.count
    shared_terminal.start(filled(NESTED, code))
    for asked, keys in answers:
        answer(shared_terminal, asked, keys)

    assert f"Out[{number}]: {result}" in shared_terminal.wait_prompt()
    assert shared_terminal.value("helper(3)") == "3"


def test_debug_after_an_error_in_a_nested_run_begins_in_the_users_frame(shared_terminal: Terminal) -> None:
    shared_terminal.run("asyncio.run(fails('seen'))")
    shared_terminal.start("%debug")
    answer(shared_terminal, "ipdb>", "p wanted * 2\r")
    answer(shared_terminal, r"'seenseen'\s+ipdb>", "up\r")
    # Past the engine, to the cell.
    answer(shared_terminal, r"-> 1 asyncio\.run\(fails\('seen'\)\)\s+ipdb>", "q\r")

    assert "Error" not in shared_terminal.wait_prompt()


def answer(terminal: Terminal, asked: str, keys: str) -> None:
    terminal.mark = terminal.wait_for(asked).end()
    terminal.keys(keys)
