"""What a notebook says of tasks of a class of the user's, one of whose methods raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from loopnb.session import current
from tests.awkward import METHODS, awkward

if TYPE_CHECKING:
    from tests.shells import Notebook

SPAWN = """
    async def waits():
        await gate.wait()

    gate = asyncio.Event()
    odd = Awkward(waits(), loop=asyncio.get_running_loop(), name="odd")
    await asyncio.sleep(0)
    """


@pytest.mark.parametrize("method", METHODS)
def test_every_command_shows_them(
    notebook: Notebook, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    with awkward(method) as kind:
        notebook.shell.user_ns["Awkward"] = kind
        notebook.run(SPAWN)
        said = {}
        for command in ("", "tasks", "tree", "tree --spawned", "where odd", "doctor"):
            capsys.readouterr()
            notebook.run(f"%loopnb {command}")
            said[command] = capsys.readouterr().out
        notebook.run("names = [record.name for record in loopnb.tasks()]")
        facts = current().facts()
        notebook.run("%loopnb cancel odd")
        notebook.run("await asyncio.sleep(0)")
        left = [record.name for record in current().task_list()]

    assert all("odd" in said[command] for command in ("tasks", "tree", "tree --spawned"))
    assert "gate" in said["where odd"]
    assert "odd" in notebook.value("names")
    assert facts.unknown == ()
    assert left == []
