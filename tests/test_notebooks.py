"""Run every notebook from top to bottom in a real kernel, and test what the quickstart shows."""

from __future__ import annotations

import functools
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytestmark = pytest.mark.timeout(180)

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
QUICKSTART = FOLDER / "01_quickstart.ipynb"
DOCTOR = FOLDER / "02_doctor.ipynb"


def name_of(path: Path) -> str:
    """Return the name of a notebook."""
    return path.stem


@dataclass(frozen=True)
class Executed:
    """One run of `notebooks/run.py`.

    Attributes:
        status: The exit status.
        said: What the run printed.
        notebook: The notebook with its outputs.
        page: The rendered page, as HTML.
    """

    status: int
    said: str
    notebook: nbformat.NotebookNode
    page: str

    def outputs_of(self, cell_id: str) -> list[Mapping[str, Any]]:
        """Return the outputs of one cell."""
        (cell,) = (cell for cell in self.notebook.cells if cell.id == cell_id)
        return list(cell.outputs)

    def text_of(self, cell_id: str) -> str:
        """Return the outputs of one cell as plain text."""
        return "".join(
            output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"]
            for output in self.outputs_of(cell_id)
        )


def execute(path: Path, folder: Path) -> Executed:
    """Run a notebook as `make demo` does."""
    ran = subprocess.run(
        [sys.executable, FOLDER / "run.py", path, "--to", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (folder / path.name).exists(), ran.stdout
    notebook = nbformat.read(folder / path.name, as_version=4)
    page = (folder / path.with_suffix(".html").name).read_text(encoding="utf-8")
    return Executed(ran.returncode, ran.stdout, notebook, page)


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Executed]:
    """Return a function that runs each notebook only once."""
    return functools.cache(lambda path: execute(path, tmp_path_factory.mktemp(path.stem)))


@pytest.fixture(params=NOTEBOOKS, ids=name_of)
def executed(request: pytest.FixtureRequest, run_once: Callable[[Path], Executed]) -> Executed:
    """Return each notebook, executed."""
    return run_once(request.param)


@pytest.fixture
def quickstart(run_once: Callable[[Path], Executed]) -> Executed:
    """Return the first notebook, executed."""
    return run_once(QUICKSTART)


def test_no_cell_of_a_notebook_fails(executed: Executed) -> None:
    assert executed.status == 0, executed.said
    for cell in executed.notebook.cells:
        outputs = cell.get("outputs", ())
        assert "error" not in [output.output_type for output in outputs]
        # A cell whose subject is a line on standard error says so in its tags.
        is_expected = "stderr" in cell.metadata.get("tags", ())
        assert ("stderr" in [output.get("name") for output in outputs]) == is_expected, outputs


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_is_saved_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)

    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]


def test_a_cell_that_fails_is_named_and_ends_the_run(tmp_path: Path) -> None:
    broken = tmp_path / "broken.ipynb"
    cells = [nbformat.v4.new_code_cell(source) for source in ("1 + 1", "# why\n1 / 0", "'never'")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), broken)
    folder = tmp_path / "to"
    ran = execute(broken, folder)
    outcomes = [line.split()[1] for line in ran.said.splitlines() if line[:3].strip().isdigit()]

    assert ran.status == 1
    assert outcomes == ["ok", "FAILED", "not"]
    assert "ZeroDivisionError" in ran.said
    assert f"A cell FAILED; the page is {folder / 'broken.html'}" in ran.said


def test_the_quickstart_loads_silently(quickstart: Executed) -> None:
    assert quickstart.outputs_of("load") == []


def test_the_quickstart_shows_the_answers(quickstart: Executed) -> None:
    assert quickstart.text_of("client") == "'ACME 101'"
    assert quickstart.text_of("foreground") == "'INIT 101'"
    assert quickstart.text_of("nested") == "'SHARE49 101'"


def test_the_quickstart_lists_the_ticker_until_it_is_cancelled(quickstart: Executed) -> None:
    assert "ticker" in quickstart.text_of("tasks")
    assert "ticker" in quickstart.text_of("cancel")
    assert quickstart.text_of("close").startswith("The ticker got ")


def test_the_executed_quickstart_keeps_the_widgets_table(quickstart: Executed) -> None:
    (shown,) = quickstart.outputs_of("show")

    assert set(shown["data"]) == {"text/html", "text/plain"}
    assert "ticker" in shown["data"]["text/html"]
    assert "ticker" in shown["data"]["text/plain"]


def test_the_rendered_page_holds_the_table_and_loads_nothing(quickstart: Executed) -> None:
    assert "ticker" in quickstart.page
    assert "ACME 101" in quickstart.page
    for loading in ('src="http', "src='http", 'rel="stylesheet" href="http'):
        assert loading not in quickstart.page


@pytest.mark.parametrize(
    ("cell_id", "code"),
    [
        ("coroutine", "blocked-by-coroutine"),
        ("cell-found", "blocked-by-cell"),
        ("failure", "unobserved-failure"),
        ("dropped", "dropped-while-pending"),
        ("deadlock", "deadlock"),
        ("wait", "waits-for-long"),
        ("spins", "spins"),
        ("fan-out", "unbounded-fan-out"),
        ("executor", "executor-saturated"),
        ("other-loop", "object-of-other-loop"),
        ("foreign", "foreign-patch"),
    ],
)
def test_the_doctor_finds_what_each_cell_does(
    run_once: Callable[[Path], Executed], cell_id: str, code: str
) -> None:
    assert f" {code}" in run_once(DOCTOR).text_of(cell_id).partition(":")[0]


def test_the_doctor_finds_nothing_in_a_healthy_notebook(run_once: Callable[[Path], Executed]) -> None:
    assert run_once(DOCTOR).text_of("healthy").startswith("Nothing found. Looked at ")
