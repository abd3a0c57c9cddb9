"""Notebooks that papermill, `jupyter execute` and nbconvert run: `%loopnb wait` and `LoopNB.on_failure`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

from tests.cells import dedented

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver

ROOT = Path(__file__).parents[2]
#: By tool, its command line: executes one notebook and saves it, with its outputs, as another.
TOOLS = {
    "papermill": ["-m", "papermill", "--no-progress-bar", "--kernel", "here", "{notebook}", "{saved}"],
    "jupyter execute": ["-m", "jupyter", "execute", "--kernel_name=here", "{notebook}", "--output={saved}"],
    "nbconvert": [
        "-m", "nbconvert", "--to=notebook", "--execute", "--ExecutePreprocessor.kernel_name=here",
        "{notebook}", "--output={saved}",
    ],
}  # fmt: skip
LOADS = dedented(
    """
    import asyncio
    %load_ext loopnb
    """
)
WAITS = dedented(
    """
    asyncio.get_running_loop().call_later(0.01, go.set)
    %loopnb wait
    """
)
RAISES = dedented(
    """
    import asyncio
    %load_ext loopnb
    %config LoopNB.on_failure = 'raise'
    """
)
SPAWNS = """
go = asyncio.Event()
async def prints(name):
    await go.wait()
    print(name, 'has ended')
    display({'text/plain': f'{name} displays'}, raw=True)
async def fails():
    await asyncio.sleep(0)
    raise ValueError('feed is down')
"""


@dataclass(frozen=True)
class Ran:
    """What became of a notebook.

    Attributes:
        status: The exit status of the tool.
        said: What the tool printed.
        saved: The notebook with its outputs; None if the tool saved none.
    """

    status: int
    said: str
    saved: Any

    def outputs_of(self, source: str) -> list[Any]:
        """Return the outputs of the cell with that text. papermill adds cells above the notebook's own."""
        return [output for cell in self.saved.cells if cell.source == source for output in cell.outputs]

    def text_of(self, source: str) -> str:
        """Return what the cell with that text has printed and displayed."""
        outputs = self.outputs_of(source)
        texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
        return "".join(texts)


@pytest.fixture(params=["papermill", "jupyter execute"])
def tool(request: pytest.FixtureRequest) -> list[str]:
    """Name a tool by its command line."""
    return TOOLS[request.param]


def run_notebook(folder: Path, tool: list[str], *cells: str) -> Ran:
    """Have *tool* run a notebook of these cells, in a kernel of this Python."""
    spec = folder / "kernels" / "here"
    spec.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    said = {"argv": command, "display_name": "here", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(said))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(dedented(cell)) for cell in cells])
    nbformat.write(notebook, folder / "made.ipynb")
    saved = folder / "saved.ipynb"
    scripts = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ran = subprocess.run(
        [sys.executable, *(word.format(notebook=folder / "made.ipynb", saved=saved) for word in tool)],
        cwd=folder,
        env={
            **os.environ,
            "JUPYTER_PATH": str(folder),
            "IPYTHONDIR": str(folder / "ipython"),
            "PATH": scripts,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=55,
        check=False,
    )
    return Ran(ran.returncode, ran.stdout, nbformat.read(saved, as_version=4) if saved.exists() else None)


def test_wait_shows_in_the_last_cell_what_tasks_print_meanwhile(tmp_path: Path, tool: list[str]) -> None:
    ran = run_notebook(
        tmp_path,
        tool,
        LOADS,
        SPAWNS,
        "task = asyncio.create_task(prints('task'))",
        """
        %%aloop -b -n feed
        await prints('feed')
        """,
        WAITS,
    )

    assert ran.status == 0, ran.said
    shown = ran.text_of(WAITS)
    assert "task has ended\n" in shown
    assert "feed has ended\n" in shown
    assert "task displays" in shown
    assert "feed displays" in shown


def test_wait_raises_what_failed_and_the_exit_status_is_1(tmp_path: Path, tool: list[str]) -> None:
    ran = run_notebook(
        tmp_path, tool, LOADS, SPAWNS, "task = asyncio.create_task(fails(), name='feed')", "%loopnb wait"
    )

    assert ran.status == 1
    assert "ValueError" in ran.said
    assert "feed is down" in ran.said
    assert "Task 'feed', spawned by In[3], failed." in ran.said


def test_without_either_a_failure_leaves_exit_status_0(tmp_path: Path) -> None:
    ran = run_notebook(
        tmp_path, TOOLS["jupyter execute"], LOADS, SPAWNS, "task = asyncio.create_task(fails())", "print(1)"
    )

    assert ran.status == 0, ran.said


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_the_next_cell_raises_what_failed_and_the_exit_status_is_1(tmp_path: Path, tool: list[str]) -> None:
    ran = run_notebook(
        tmp_path,
        tool,
        RAISES,
        SPAWNS,
        "task = asyncio.create_task(fails()); await asyncio.sleep(0.1)",
        "print('next')",
        "print('the one after')",
    )

    assert ran.status == 1
    assert "feed is down" in ran.said
    assert "this cell has not run" in ran.said
    if ran.saved is not None:  # nbconvert saves nothing then
        (failed,) = ran.outputs_of("print('next')")
        assert failed.ename == "ValueError"


def test_output_goes_to_the_waiting_cell_only_while_it_waits(kernel: KernelDriver) -> None:
    kernel.run("import asyncio")
    spawning = kernel.start(
        """
        async def prints():
            for turn in range(3):
                await turns[turn].wait()
                print('turn', turn)
                print('error', turn, file=__import__('sys').stderr)
                display({'text/plain': f'shown {turn}'}, raw=True)
                told[turn].set()
        turns, told = [[asyncio.Event() for _ in range(3)] for _ in range(2)]
        task = asyncio.create_task(prints(), name='printer')
        """
    )
    spawning.wait()
    kernel.run("turns[0].set(); await told[0].wait()")

    waiting = kernel.start(
        """
        turns[1].set()  # the task goes on when the cell waits
        %loopnb wait printer -t 0.5
        """
    )
    waits = waiting.wait()
    assert waits.ename == "TimeoutError"
    kernel.run("turns[2].set(); await told[2].wait(); await task")

    assert "turn 1" in waits.stdout
    assert "error 1" in waits.stderr
    assert "shown 1" in str(waits.displays)
    assert "turn 0" not in waits.stdout
    own = spawning.wait()
    assert "turn 0" in own.stdout
    assert "turn 1" not in own.stdout
    spawning.wait_output("turn 2")
    assert "msg" not in kernel.value("sorted(vars(get_ipython().kernel.session))")


def test_an_interrupt_ends_the_wait_and_leaves_the_task(kernel: KernelDriver) -> None:
    kernel.run("import asyncio; task = asyncio.create_task(asyncio.sleep(60), name='sleeper')")

    cell = kernel.start(
        """
        print('waits')
        %loopnb wait sleeper
        """
    )
    cell.wait_output("waits")
    kernel.interrupt()

    assert cell.wait().ename == "KeyboardInterrupt"
    assert not kernel.value("task.done()")
    kernel.run("task.cancel()")
