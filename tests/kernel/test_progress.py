"""What a cell shows of its own progress while it waits, and what stays of that."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.cells import dedented, filled

if TYPE_CHECKING:
    from tests.gates import Gate
    from tests.kernel.driver import Cell, KernelDriver

LOAD = """
import asyncio
async def job(number):
    await asyncio.sleep(0.4 + number / 10)
    if number == 3: raise ValueError('no such page')
"""
#: Half of the jobs end at once, and the others when a gate is opened.
GATED = """
import asyncio, os
async def job(number):
    while number >= 8 and not {gate}: await asyncio.sleep(0.05)
    if number == 3: raise ValueError('no such page')
"""
GATHER = "await asyncio.gather(*map(job, range(16)), return_exceptions=True);"
ALOOP = dedented(
    """
    %%aloop --progress
    {}
    """
)


def lines(cell: Cell) -> list[tuple[str, str]]:
    """Return the lines of progress that were sent for a cell: the type of the message, and the text."""
    return [
        (message.msg_type, message.content["data"]["text/plain"])
        for message in cell.messages
        if message.msg_type in {"display_data", "update_display_data"}
    ]


@pytest.mark.parametrize("cell", [GATHER, ALOOP], ids=["LoopNB.progress", "%%aloop --progress"])
def test_a_cell_that_waits_shows_how_far_it_has_come(kernel: KernelDriver, cell: str, gate: Gate) -> None:
    kernel.run(GATED.format(gate=gate))
    kernel.run(f"%config LoopNB.progress = {cell is GATHER}")
    text = filled(cell, GATHER) if cell is ALOOP else cell
    started = kernel.start(text)
    started.wait_for(lambda: len(lines(started)) == 2, "update of the line")
    gate.open()
    number = started.wait().expect_ok().execution_count
    kernel.run("%config LoopNB.progress = False")
    first, *_, (kind, last) = shown = lines(started)

    assert first[0] == "display_data"
    assert {kind for kind, _text in shown[1:]} == {"update_display_data"}
    assert re.match(rf"In\[{number}\] runs, [\d.]+ s: 8 of 16 tasks done", first[1])
    assert any("a second, about" in text for _kind, text in shown)
    assert any("waiting for gather" in text for _kind, text in shown)
    assert kind == "update_display_data"
    assert re.fullmatch(rf"In\[{number}\] took [\d.]+ s: 16 of 16 tasks done, 1 of them failed", last)


def test_what_an_interrupt_has_cancelled_is_not_done(kernel: KernelDriver, gate: Gate) -> None:
    kernel.run(GATED.format(gate=gate))
    started = kernel.start(filled(ALOOP, GATHER))
    started.wait_for(lambda: len(lines(started)) == 2, "update of the line")
    kernel.interrupt()
    started.wait()
    _kind, last = lines(started)[-1]

    assert re.fullmatch(r"In\[\d+\] took [\d.]+ s: 8 of 16 tasks done, 1 of them failed, 8 cancelled", last)


def test_a_cell_that_ends_soon_shows_nothing(kernel: KernelDriver) -> None:
    started = kernel.start(
        """
        %%aloop --progress
        await asyncio.sleep(0)
        """
    )
    started.wait().expect_ok()

    assert lines(started) == []


def test_one_line_stays_in_the_saved_notebook(tmp_path: Any) -> None:
    cells = [LOAD, "%load_ext loopnb", filled(ALOOP, GATHER)]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    [output] = [output for output in notebook.cells[-1].outputs if "data" in output]

    assert re.match(r"In\[3\] took [\d.]+ s: 16 of 16 tasks done", output.data["text/plain"])
    assert "16 of 16 tasks done" in output.data["text/html"]


@pytest.mark.parametrize("option", ["-b", "--fresh"])
def test_only_a_cell_that_waits_on_this_loop_can_show_it(kernel: KernelDriver, option: str) -> None:
    refused = kernel.execute(f"%aloop --progress {option} job(1)")

    assert refused.ename == "UsageError"
