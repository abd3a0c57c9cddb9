"""`%loopnb wait`: which tasks it waits for, and what it raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from IPython.core.error import UsageError

from loopnb.magics.waiting import take_timeout

if TYPE_CHECKING:
    from tests.shells import Notebook

SPAWNS = """
async def ends(value):
    await asyncio.sleep(0.01)
    ended.append(value)
async def fails(text):
    await asyncio.sleep(0.01)
    raise ValueError(text)
ended = []
"""


@pytest.fixture
def spawning(notebook: Notebook) -> Notebook:
    """Lend a notebook that has coroutine functions to spawn."""
    notebook.run(SPAWNS)
    return notebook


@pytest.mark.parametrize(
    ("rest", "left", "seconds"),
    [
        ("", "", None),
        ("-t 5", "", 5.0),
        ("--all -t 0.5", "--all", 0.5),
        ("-t 5 --cell 3", "--cell 3", 5.0),
        ("my-task", "my-task", None),
        ("feed --timeout=2", "feed", 2.0),
    ],
)
def test_the_timeout_may_stand_anywhere(rest: str, left: str, seconds: float | None) -> None:
    assert take_timeout(rest) == (left, seconds)


@pytest.mark.parametrize("line", ["%loopnb wait", "%loopnb wait --all"])
def test_it_waits_for_all_tasks_and_for_those_that_they_spawn(spawning: Notebook, line: str) -> None:
    spawning.run(
        """
        async def spawns():
            await ends(1)
            loopnb.spawn(ends(2))
        loopnb.spawn(spawns())
        """
    )

    spawning.run(line)

    assert spawning.value("ended") == [1, 2]


def test_one_task_or_one_cell_is_waited_for_alone(spawning: Notebook) -> None:
    spawning.run("stuck = loopnb.spawn(asyncio.sleep(60), name='stuck')")
    count = spawning.shell.execution_count
    spawning.run("loopnb.spawn(ends(1)); loopnb.spawn(ends(2))")
    spawning.run("loopnb.spawn(ends(3), name='third')")

    spawning.run(f"%loopnb wait --cell {count}")
    assert {1, 2} <= set(spawning.value("ended"))
    spawning.run("%loopnb wait third")
    assert 3 in spawning.value("ended")
    assert not spawning.value("stuck").done()
    spawning.run("stuck.cancel()")


@pytest.mark.parametrize("line", ["%loopnb wait --all", "%loopnb wait feed"])
@pytest.mark.parametrize("is_late", [False, True], ids=["before the wait", "during the wait"])
def test_what_failed_is_raised_with_the_frames_of_the_task(
    spawning: Notebook, line: str, is_late: bool
) -> None:
    spawning.run("task = loopnb.spawn(fails('no'), name='feed')")
    if not is_late:
        spawning.run("await asyncio.wait([task])")

    error = spawning.error(line)

    assert type(error) is ValueError
    assert error.__notes__[0].startswith("Task 'feed', spawned by In[")
    frames = []
    tb = error.__traceback__
    while tb is not None:
        frames.append(tb.tb_frame.f_code)
        tb = tb.tb_next
    assert frames[-1].co_name == "fails"
    assert not [code for code in frames if "loopnb/magics" in code.co_filename]


def test_several_failures_are_raised_as_a_group_and_only_once(spawning: Notebook) -> None:
    spawning.run("for text in 'ab': loopnb.spawn(fails(text))")

    error = spawning.error("%loopnb wait")

    assert isinstance(error, ExceptionGroup)
    assert sorted(map(str, error.exceptions)) == ["a", "b"]
    spawning.run("%loopnb wait")


def test_a_failure_that_another_task_has_handled_is_none(spawning: Notebook) -> None:
    spawning.run(
        """
        async def handles():
            await asyncio.gather(fails('a'), fails('b'), return_exceptions=True)
            ended.append('handled')
        loopnb.spawn(handles())
        """
    )

    spawning.run("%loopnb wait")

    assert spawning.value("ended") == ["handled"]


def test_a_cancelled_task_and_one_that_has_ended_well_raise_nothing(spawning: Notebook) -> None:
    spawning.run("task = loopnb.spawn(ends(1), name='well'); other = loopnb.spawn(ends(2), name='gone')")
    spawning.run("other.cancel(); await asyncio.wait([task, other])")

    spawning.run("%loopnb wait well")
    spawning.run("%loopnb wait gone")
    spawning.run("%loopnb wait")
    assert isinstance(spawning.error("%loopnb wait nobody"), UsageError)


def test_after_the_timeout_the_tasks_go_on_and_are_named(spawning: Notebook) -> None:
    spawning.run("task = loopnb.spawn(asyncio.sleep(60), name='feed')")

    error = spawning.error("%loopnb wait -t 0.01")

    assert type(error) is TimeoutError
    assert "'feed', waiting for sleep()" in str(error)
    assert not spawning.value("task").done()
    spawning.run("failed = loopnb.spawn(fails('no'), name='failed'); await asyncio.wait([failed])")
    both = spawning.error("%loopnb wait -t 0.01")
    assert isinstance(both, ExceptionGroup)
    assert [type(error) for error in both.exceptions] == [ValueError, TimeoutError]
    spawning.run("task.cancel()")


def test_what_is_held_is_not_waited_for(notebook: Notebook) -> None:
    notebook.run(
        """
        import contextlib
        @contextlib.asynccontextmanager
        async def opens():
            yield 'held'
        await loopnb.hold(opens());
        """
    )

    notebook.run("%loopnb wait -t 5")
    notebook.run("await loopnb.release('held')")
