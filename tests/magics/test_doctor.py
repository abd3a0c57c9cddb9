"""What `%loopnb doctor`, `loopnb.diagnose()` and the status say of a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from loopnb.records import Finding
    from tests.shells import Notebook

SLEEPERS = """
    import asyncio
    sleepers = [asyncio.create_task(asyncio.sleep(60)) for _ in range(40)]
    everyone = globals().setdefault("everyone", [])
    everyone += sleepers
    """
DIAGNOSE = """
    import loopnb
    found = loopnb.diagnose()
    """


def out(notebook: Notebook, capsys: pytest.CaptureFixture[str], code: str) -> str:
    """Run a cell and return what it printed."""
    capsys.readouterr()
    notebook.run(code)
    return capsys.readouterr().out


def diagnosed(notebook: Notebook) -> list[Finding]:
    """Return what `loopnb.diagnose()` returns in a cell."""
    notebook.run(DIAGNOSE)
    found: list[Finding] = notebook.value("found")
    return found


def test_a_healthy_notebook_has_no_findings(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    said = out(notebook, capsys, "%loopnb doctor")

    assert said.startswith("Nothing found. Looked at ")
    assert "doctor  nothing found\n" in out(notebook, capsys, "%loopnb")
    assert diagnosed(notebook) == []


def test_tasks_of_earlier_runs_are_counted(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        notebook.run(SLEEPERS, cell_id="sleepers")
    (finding,) = diagnosed(notebook)
    said = out(notebook, capsys, "%loopnb doctor")
    status = out(notebook, capsys, "%loopnb")
    notebook.run("%loopnb cancel --all")

    assert finding.code == "left-over"
    assert "was run 3 times" in finding.summary
    assert "80 of the tasks of its earlier runs live on" in finding.summary
    assert said.splitlines()[0] == f"warning  left-over  at {finding.place}"
    assert f"-> {finding.remedy}" in said
    assert "doctor  1 finding: left-over; '%loopnb doctor' explains" in status


def test_a_cell_that_was_run_again_and_left_nothing_is_no_finding(notebook: Notebook) -> None:
    for _ in range(2):
        notebook.run("%loopnb cancel --all")
        notebook.run("await asyncio.sleep(0)" if "asyncio" in notebook.shell.user_ns else "import asyncio")
        notebook.run(SLEEPERS, cell_id="sleepers")
    notebook.run("%loopnb cancel --all")

    assert diagnosed(notebook) == []


RESOURCE = """
    import asyncio, contextlib, loopnb

    @contextlib.asynccontextmanager
    async def resource():
        yield 1

    async def ends_slowly():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()

    is_first = True
    """
HOLD_ONCE = """
    if is_first:
        held = await loopnb.hold(resource(), name="resource")
        ending = asyncio.create_task(ends_slowly())
        await asyncio.sleep(0)
        ending.cancel()
        await asyncio.sleep(0)
    is_first = False
    """


def test_what_is_held_and_what_is_ending_is_not_left_over(notebook: Notebook) -> None:
    notebook.run(RESOURCE)
    for _ in range(2):
        notebook.run(HOLD_ONCE, cell_id="holds")
    found = diagnosed(notebook)
    notebook.run("await loopnb.release('resource')")
    notebook.run("ending.cancel()")

    assert found == []


def test_what_is_held_may_wait_for_long(notebook: Notebook) -> None:
    notebook.run(RESOURCE)
    notebook.run("held = await loopnb.hold(resource(), name='resource')")
    notebook.run("loopnb.tasks();")  # it is seen to wait
    notebook.run("found = loopnb.diagnose(long_wait=0.0)")
    notebook.run("await loopnb.release('resource')")

    assert notebook.value("found") == []


def test_a_task_that_spins_is_found_from_a_cell(notebook: Notebook) -> None:
    notebook.run(
        """
        import asyncio

        async def poll():
            while True:
                await asyncio.sleep(0)

        polling = asyncio.create_task(poll(), name="poll")
        """
    )
    (finding,) = diagnosed(notebook)
    notebook.run("polling.cancel()")

    assert finding.code == "spins"
    assert "'poll'" in finding.summary


def test_without_nesting_the_doctor_says_what_it_has_not_looked_at(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.run("%loopnb nesting off")
    said = out(notebook, capsys, "%loopnb doctor")

    assert "Not looked at: whether a task spins." in said


def test_another_thread_may_ask(notebook: Notebook) -> None:
    notebook.run(
        """
        import asyncio, loopnb
        found = await asyncio.to_thread(loopnb.diagnose)
        """
    )

    assert notebook.value("found") == []


def test_a_background_run_whose_traceback_was_shown_is_no_unobserved_failure(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = out(
        notebook,
        capsys,
        """
        import asyncio
        async def feed():
            await asyncio.sleep(0)
            raise ValueError("no feed")
        run = %aloop -b -n feed feed()
        await asyncio.wait([run])
        """,
    )

    assert "no feed" in shown
    assert diagnosed(notebook) == []
    assert "doctor  nothing found\n" in out(notebook, capsys, "%loopnb")
    assert "no feed" in out(notebook, capsys, "%loopnb where feed")


def test_a_background_run_does_not_hide_the_failure_of_a_task_of_its(notebook: Notebook) -> None:
    notebook.run(
        """
        import asyncio
        async def item():
            raise KeyError("no item")
        async def feed():
            failing.append(asyncio.create_task(item(), name="item"))
            await asyncio.wait(failing)
            raise ValueError("no feed")
        failing = []
        run = %aloop -b -n feed feed()
        await asyncio.wait([run])
        """
    )
    (finding,) = diagnosed(notebook)

    assert finding.code == "unobserved-failure"
    assert "'item'" in finding.summary
