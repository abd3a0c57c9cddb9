"""`LoopNB.on_failure = "raise"`: the next cell fails with the error of a task that nobody awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.shells import Notebook


@pytest.fixture
def raising(notebook: Notebook) -> Iterator[Notebook]:
    """Lend a notebook with the setting, and a coroutine function that fails."""
    notebook.run("%config LoopNB.on_failure = 'raise'")
    notebook.run(
        """
        async def fails(text='no'):
            raise ValueError(text)
        ran = []
        """
    )
    yield notebook
    notebook.shell.config.pop("LoopNB")  # other tests lend the same shell


@pytest.mark.parametrize(
    "spawns",
    [
        "asyncio.create_task(fails(), name='feed')",
        "kept = asyncio.create_task(fails(), name='feed')",
        "get_ipython().run_cell_magic('aloop', '-b -n feed', 'await fails()')",
    ],
    ids=["dropped", "held", "background"],
)
@pytest.mark.parametrize("next_cell", ["ran.append(1)", "await asyncio.sleep(0); ran.append(1)"])
def test_the_next_cell_fails_once_and_does_not_run(raising: Notebook, spawns: str, next_cell: str) -> None:
    raising.run(f"{spawns}; await asyncio.sleep(0)")

    error = raising.error(next_cell)

    assert type(error) is ValueError
    assert error.__notes__[0].startswith("Task 'feed', spawned by In[")
    assert "this cell has not run" in error.__notes__[0]
    assert error.__traceback__ is not None
    code = error.__traceback__.tb_frame.f_code
    while code.co_name != "fails":  # IPython's own frame, which it leaves out, comes first
        assert "loopnb" not in code.co_filename
        error.__traceback__ = error.__traceback__.tb_next
        assert error.__traceback__ is not None
        code = error.__traceback__.tb_frame.f_code
    assert raising.value("ran") == []
    raising.run(next_cell)
    assert raising.value("ran") == [1]


def test_several_failures_are_one_group(raising: Notebook) -> None:
    raising.run("tasks = [asyncio.create_task(fails(text)) for text in 'ab']; await asyncio.sleep(0)")

    error = raising.error("ran.append(1)")

    assert isinstance(error, ExceptionGroup)
    assert list(map(str, error.exceptions)) == ["a", "b"]


def test_a_failure_that_somebody_awaited_fails_no_cell(raising: Notebook) -> None:
    raising.run(
        """
        task = asyncio.create_task(fails())
        try:
            await task
        except ValueError:
            ran.append('handled')
        """
    )

    raising.run("ran.append(1)")

    assert raising.value("ran") == ["handled", 1]


def test_a_cell_that_a_magic_runs_and_a_silent_one_do_not_fail(raising: Notebook) -> None:
    raising.run(
        """
        asyncio.create_task(fails()); await asyncio.sleep(0)
        get_ipython().run_cell('ran.append("inner")')
        """
    )

    shell: Any = raising.shell  # IPython's functions carry no annotations
    shell.run_cell("ran.append('silent')", silent=True)

    assert raising.value("ran") == ["inner", "silent"]
    assert type(raising.error("ran.append(1)")) is ValueError


def test_by_default_no_cell_fails(notebook: Notebook) -> None:
    notebook.run(
        """
        async def fails(): raise ValueError
        asyncio.create_task(fails()); await asyncio.sleep(0)
        """
    )

    notebook.run("pass")


def test_unloading_leaves_failures_to_asyncio(raising: Notebook) -> None:
    transformers = list(raising.shell.ast_transformers)

    raising.run("%unload_ext loopnb")

    left = raising.shell.ast_transformers
    assert [type(found).__name__ for found in transformers if found not in left].count("Failing") == 1
