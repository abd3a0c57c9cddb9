"""Who has cancelled a task, as the widget's details say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from loopnb import session
from loopnb.tracking import tracked
from loopnb.tracking.cancelled import Cancellers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.shells import Notebook


@pytest.fixture
def noted(notebook: Notebook) -> Iterator[list[str]]:
    """Who has cancelled tasks."""
    noted: list[str] = []
    cancellers = Cancellers(session.current("test").tracker, lambda _number, who: noted.append(who))
    notebook.run("import asyncio, loopnb")
    notebook.run("jobs = [asyncio.create_task(asyncio.sleep(99), name=f'job-{n}') for n in range(3)]")
    noted.clear()
    yield noted
    cancellers.close()
    assert tracked.on_cancelled == []


def test_a_command_is_named_with_its_line(notebook: Notebook, noted: list[str]) -> None:
    result = notebook.run("%loopnb cancel job-1")
    cell = notebook.shell.execution_count - 1
    assert result.success

    assert noted == [f"%loopnb cancel at In[{cell}], line 1"]


def test_the_users_line_is_named_though_asyncio_passes_it_on(notebook: Notebook, noted: list[str]) -> None:
    notebook.run(
        """
        together = asyncio.gather(*jobs)
        together.cancel()
        await asyncio.wait(jobs)
        """
    )
    cell = notebook.shell.execution_count - 1

    assert noted == [f"In[{cell}], line 2: together.cancel()"] * 3


def test_running_a_cell_again_is_named(notebook: Notebook, noted: list[str]) -> None:
    cell = """
        %%aloop -b -n run
        await asyncio.sleep(99)
        """
    notebook.run(cell, cell_id="a")
    notebook.run(cell, cell_id="a")

    assert "the end or another run of its cell" in noted


def test_an_observer_that_raises_does_not_keep_a_task_from_being_cancelled(
    notebook: Notebook, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_number: int, _who: str) -> None:
        raise ValueError

    cancellers = Cancellers(session.current("test").tracker, fail)
    notebook.run(
        """
        import asyncio
        job = asyncio.create_task(asyncio.sleep(99))
        job.cancel()
        await asyncio.wait([job])
        """
    )
    cancellers.close()

    assert notebook.value("job").cancelled()
    assert "an observer of cancelled tasks raised" in caplog.text
