"""What Tab completes behind the magics, and behind `loopnb.`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from IPython.core.completer import provisionalcompleter

import loopnb
from loopnb import session

if TYPE_CHECKING:
    from tests.shells import Notebook, Shell


def completed(shell: Shell, code: str) -> list[str]:
    """Return *code* with each completion that a front end offers at its end."""
    with provisionalcompleter():
        found = list(shell.Completer.completions(code, len(code)))
    return [code[: completion.start] + completion.text for completion in found]


@pytest.fixture
def with_tasks(notebook: Notebook) -> Notebook:
    """Run tasks with names of every kind."""
    notebook.run(
        """
        names = ["feed", "feed", "my task", 'a "b"', "bad\\n"]
        tasks = [asyncio.create_task(asyncio.Event().wait(), name=name) for name in names]
        """
    )
    return notebook


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("%loopnb ca", ["%loopnb cancel"]),
        ("  %loopnb ta", ["  %loopnb tasks"]),
        ("%loopnb cancel --", ["%loopnb cancel --all", "%loopnb cancel --cell"]),
        ("%loopnb tasks --all --f", ["%loopnb tasks --all --finished"]),
        ("%loopnb cancel --all f", ["%loopnb cancel --all feed"]),
        ("%loopnb where f", ["%loopnb where feed"]),
        ("%loopnb where m", ['%loopnb where "my task"']),
        ('%loopnb where "my t', ['%loopnb where "my task"']),
        ("%loopnb where a", ["%loopnb where 'a \"b\"'"]),
        ("%loopnb nesting h", ["%loopnb nesting handoff"]),
        ("%aloop --fr", ["%aloop --fresh"]),
        ("x = %aloop -n fe", ["x = %aloop -n feed"]),
        ("%aloop -b --name fe", ["%aloop -b --name feed"]),
        ("%%aloop -b --re", ["%%aloop -b --replace"]),
        ("%%aloop -bn fe", ["%%aloop -bn feed"]),
        ("%%aloop -b\nasyncio.create_tas", ["%%aloop -b\nasyncio.create_task"]),
        ("%aloop asyncio.create_tas", ["%aloop asyncio.create_task"]),
    ],
)
def test_commands_options_and_names_are_completed(with_tasks: Notebook, code: str, found: list[str]) -> None:
    assert completed(with_tasks.shell, code) == found


def test_behind_the_magic_every_command_is_offered_and_nothing_else(with_tasks: Notebook) -> None:
    offered = completed(with_tasks.shell, "%loopnb ")

    assert "%loopnb help" in offered
    assert all(" " not in text.removeprefix("%loopnb ") for text in offered)
    assert "%loopnb feed" not in offered


def test_nothing_is_offered_behind_an_unknown_command(with_tasks: Notebook) -> None:
    assert "%loopnb nonsense feed" not in completed(with_tasks.shell, "%loopnb nonsense fe")


def test_the_package_shows_its_public_names(notebook: Notebook) -> None:
    shown = {text.removeprefix("loopnb.") for text in completed(notebook.shell, "loopnb.")}

    assert shown == {*loopnb.__all__, "errors", "nesting"}
    assert {name for name in dir(loopnb) if not name.startswith("_")} == shown


def test_unloading_leaves_completion_to_ipython(notebook: Notebook) -> None:
    matchers = notebook.shell.Completer.custom_matchers
    assert len(matchers) == 1

    notebook.run("%unload_ext loopnb")

    assert matchers == []


@pytest.mark.parametrize("fault", ["raises", "is no text"])
def test_a_task_whose_name_cannot_be_read_costs_no_traceback(
    notebook: Notebook, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    notebook.run(
        f"""
        class Odd(asyncio.Task):
            def get_name(self):
                return 1 / 0 if {fault!r} == "raises" else 7

        odd = Odd(asyncio.Event().wait(), loop=asyncio.get_running_loop())
        """
    )
    capsys.readouterr()

    assert completed(notebook.shell, "%loopnb where zz") == []
    assert capsys.readouterr().err == ""


def test_where_the_loop_has_ended_no_names_are_offered(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    """A front end may ask for completions in a thread of its own."""
    session.current("test").owner.end()
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(completed(notebook.shell, "%loopnb where zz")))
    thread.start()
    thread.join()

    assert found == []
    assert capsys.readouterr().err == ""
