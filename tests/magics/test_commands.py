"""What the commands of `%loopnb` read and print."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import pytest
from IPython.core.error import UsageError

from loopnb.magics.commands import COMMANDS, PARSER, LoopMagics, Selection, select
from loopnb.tracking.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable

    from loopnb.records import TaskRecord
    from tests.shells import Notebook, Shell

NOTHING = cast("Any", None)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "no command 'nonsense'. '%loopnb help'"),
        ("taks", "Did you mean 'tasks'?"),
        ("nesting hadoff", "Did you mean 'handoff'?"),
        ("tasks --finshed", "Did you mean '--finished'?"),
        ("help more", "does not take 'more'"),
        ("status more", "does not take 'more'"),
        ("show more", "does not take 'more'"),
        ("tasks more", "does not take 'more'"),
        ("cancel", "which task"),
        ("cancel --cell 3 ticker", "which task"),
        ("cancel --cell=x", "takes the N of In[N]"),
        ("where", "which task"),
        ("wait --all ticker", "a name or number, or --cell N, or --all"),
        ("wait ticker -t soon", "seconds above 0, not 'soon'"),
        ("wait ticker -t", "seconds above 0, not ''"),
        ("wait --finished", "there is no option '--finished'"),
    ],
)
def test_bad_input_is_told_before_anything_is_looked_at(shell: Shell, line: str, says: str) -> None:
    magics: Any = LoopMagics(shell, *[NOTHING] * 5)

    with pytest.raises(UsageError) as caught:
        magics.loopnb(line)

    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("rest", "flags", "cell", "words"),
    [
        ("", set(), None, []),
        ("--all", {"--all"}, None, []),
        ("--all --finished", {"--all", "--finished"}, None, []),
        ("--cell 3", set(), 3, []),
        ("--cell=3 --all", {"--all"}, 3, []),
        ("--cell 3 --cell 4", set(), 4, []),
        ("my task", set(), None, ["my", "task"]),
        ("--all task", {"--all"}, None, ["task"]),
        ("task --all", set(), None, ["task", "--all"]),
    ],
)
def test_flags_come_before_words(rest: str, flags: set[str], cell: int | None, words: list[str]) -> None:
    assert select("tasks", rest, "--all", "--finished") == Selection(flags, cell, words)


@pytest.mark.parametrize("rest", ["--cell", "--cell x", "--cell=", "--cell -1", "--cell --all", "--cell 1.5"])
def test_a_cell_is_a_number(rest: str) -> None:
    with pytest.raises(UsageError, match=re.escape("%loopnb tasks: --cell takes the N of In[N]")):
        select("tasks", rest, "--all")


def test_an_unknown_option_is_told_which_ones_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        select("cancel", "--finished", "--all")

    assert "'--finished'" in str(caught.value)
    assert "--all, --cell N" in str(caught.value)


def test_the_help_of_the_magic_lists_every_option_of_the_parser() -> None:
    options = {option for action in PARSER._actions for option in action.option_strings}

    assert {"-b", "--background", "--fresh", "--keep", "--replace"} < options
    assert LoopMagics.aloop.__doc__ is not None
    assert all(option in LoopMagics.aloop.__doc__ for option in options)


@pytest.fixture
def printed(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Run a cell that must succeed, and return what it has printed."""

    def run(code: str) -> str:
        capsys.readouterr()
        notebook.run(code)
        return capsys.readouterr().out

    return run


SPAWN = "tasks = [asyncio.create_task(asyncio.Event().wait(), name=name) for name in {!r}]"


def test_the_status_says_that_the_widget_has_stopped(
    notebook: Notebook, printed: Callable[[str], str]
) -> None:
    # Without IPython's singleton `loopnb.show()` prints a repr, so the test asks for the view itself.
    show = "shown = loopnb.session.current().widget()._repr_mimebundle_()"
    notebook.run("import loopnb.session")
    notebook.run(show)
    notebook.run("loopnb.session.current().widget()._source.loop_state = lambda: 1 / 0")
    assert "widget" not in printed("%loopnb")

    notebook.run(show)

    assert "stopped by an error of its own, ZeroDivisionError" in printed("%loopnb")
    notebook.run("%reload_ext loopnb")
    notebook.run(show)
    assert "widget" not in printed("%loopnb status")


def test_the_tree_folds_what_is_alike_and_names_what_is_not(
    notebook: Notebook, printed: Callable[[str], str]
) -> None:
    notebook.run(
        """
        jobs = asyncio.Queue()
        async def work():
            await jobs.get()
        async def main(tasks):
            await asyncio.gather(*tasks)
        tasks = [asyncio.create_task(work(), name=f"w{number}") for number in range(3)]
        top = asyncio.create_task(main(tasks), name="top")
        for _ in range(3): await asyncio.sleep(0)
        """
    )

    lines = printed("%loopnb tree").splitlines()
    assert re.fullmatch(r"task \d+ 'top'  main\(\) at .*, waits for gather\(\) \(3 of 3 pending\)", lines[0])
    assert re.fullmatch(r"    3 x work\(\) at .*, wait for Queue\.get\(\), oldest [\d.]+ s", lines[1])
    assert re.search("waits for Queue.get of jobs .empty, 2 others wait", printed("%loopnb tree w1"))
    assert "'top'" in printed("%loopnb tree --spawned")
    notebook.run("cells = [task.cell for task in loopnb.tasks() if task.name == 'top']")
    (cell,) = notebook.value("cells")
    assert "'top'" in printed(f"%loopnb tree --cell {cell.execution_count}")
    assert printed("%loopnb tree --cell 99").strip() == "No live tasks of In[99]."
    assert "nobody" in str(notebook.error("%loopnb tree nobody"))
    notebook.run("top.cancel(); await asyncio.wait([top, *tasks])")


def test_a_name_with_blanks_is_found_in_quotes_and_without(
    notebook: Notebook, printed: Callable[[str], str]
) -> None:
    notebook.run(SPAWN.format(["two  words"]))

    assert "'two  words'" in printed("%loopnb where two  words")
    assert "Cancelled task" in printed("%loopnb cancel 'two  words'")


def test_long_names_are_shortened_where_many_are_named(
    notebook: Notebook, printed: Callable[[str], str]
) -> None:
    notebook.run("names = [f'{n}' * 10_000 for n in range(10)]")
    notebook.run("tasks = [asyncio.create_task(asyncio.Event().wait(), name=name) for name in names]")

    assert len(str(notebook.error("%loopnb cancel nobody"))) < 600
    shown = printed("%loopnb cancel --all")
    assert shown.startswith("Cancelled 10 tasks: '0000")
    assert "and 2 more" in shown
    assert len(shown) < 600


THREE = ["worker", "worker", "worker", "other"]


def test_where_and_cancel_list_the_tasks_that_share_a_name(
    notebook: Notebook, printed: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.run(SPAWN.format(THREE))

    shown = printed("%loopnb where worker")

    assert shown.count("worker  Event.wait") == 3
    number = shown.partition("'%loopnb where ")[2].partition("'")[0]
    assert f"task {number} 'worker'" in printed(f"%loopnb where {number}")
    error = notebook.error("%loopnb cancel worker")
    assert capsys.readouterr().out.count("worker  Event.wait") == 3
    assert isinstance(error, UsageError)
    assert "'%loopnb cancel --all worker'" in str(error)
    notebook.run("await asyncio.sleep(0)")
    assert [task.done() for task in notebook.value("tasks")] == [False] * 4


def test_all_tasks_of_a_name_or_one_by_number_are_cancelled(
    notebook: Notebook, printed: Callable[[str], str]
) -> None:
    notebook.run(SPAWN.format(THREE))
    number = printed("%loopnb where worker").partition("'%loopnb where ")[2].partition("'")[0]

    assert f"Cancelled task {number}" in printed(f"%loopnb cancel {number}")
    notebook.run("await asyncio.sleep(0)")

    assert "Cancelled 2 tasks: 'worker', 'worker'" in printed("%loopnb cancel --all worker")
    notebook.run("await asyncio.sleep(0)")
    assert [task.done() for task in notebook.value("tasks")] == [True, True, True, False]


@pytest.mark.parametrize("command", ["where wroker", "cancel wroker", "cancel --all wroker"])
def test_a_misspelt_name_is_told_which_was_meant(notebook: Notebook, command: str) -> None:
    notebook.run(SPAWN.format(["worker"]))

    assert "Did you mean 'worker'?" in str(notebook.error(f"%loopnb {command}"))


def test_the_help_lists_every_command_with_every_option(printed: Callable[[str], str]) -> None:
    shown = printed("%loopnb help")

    for command in COMMANDS:
        assert f"%loopnb {command.name} " in shown
        assert all(option in shown for option in command.options)
    assert LoopMagics.loopnb.__doc__ is not None
    assert all(line in LoopMagics.loopnb.__doc__ for line in shown.splitlines())


def test_a_task_that_is_not_there_is_told(notebook: Notebook) -> None:
    error = notebook.error("%loopnb where nobody")

    assert isinstance(error, UsageError)
    assert "nobody" in str(error)


def test_an_unknown_engine_is_told(notebook: Notebook) -> None:
    error = notebook.error("%loopnb nesting uvloop")

    assert isinstance(error, UsageError)
    assert "handoff, nest-asyncio, off" in str(error)


def test_the_engine_of_jupyterlite_is_refused_elsewhere(
    notebook: Notebook, printed: Callable[[str], str]
) -> None:
    error = notebook.error("%loopnb nesting stack-switching")

    assert isinstance(error, UsageError)
    assert "only the loop of JupyterLite can switch stacks" in str(error)
    assert "engine  handoff" in printed("%loopnb nesting")


def test_of_ten_thousand_tasks_only_those_are_looked_at_that_are_shown(
    notebook: Notebook, printed: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[object] = []
    record = Tracker.record

    def counting(tracker: Tracker, task: Any) -> TaskRecord:
        looked_at.append(task)
        return record(tracker, task)

    monkeypatch.setattr(Tracker, "record", counting)
    notebook.run("many = [asyncio.create_task(asyncio.Event().wait()) for _ in range(10_000)]")

    shown = printed("%loopnb tasks")

    assert "9,801 more tasks" in shown  # the cell's own is one
    assert len(looked_at) == 200
