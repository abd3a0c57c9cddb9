"""Run a notebook in a real kernel, tell how each cell went, and render the page."""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from traitlets import default
from traitlets.config import Config

if TYPE_CHECKING:
    from collections.abc import Callable

BUILD = Path(__file__).parent.parent / "build"
CELL_TIMEOUT_S = 60


class ThisPython(KernelSpecManager):
    """Finds the kernel of the Python that runs this file, whatever others are installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return it under any name."""
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name=kernel_name, language="python")


class ThisPythonsKernel(AsyncKernelManager):
    """Starts it."""

    @default("kernel_spec_manager")
    def _find_this_python(self) -> KernelSpecManager:
        return ThisPython()


def first_line(source: str) -> str:
    """Return the first line of a cell that is code, shortened."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    code = [line for line in lines if not line.startswith("#")]
    return (code or lines or [""])[0][:70]


def execute(
    path: Path, tell: Callable[[int, str, float, str], None] = lambda *_: None
) -> tuple[nbformat.NotebookNode, str]:
    """Run all cells of a notebook, up to the first that fails.

    Args:
        path: The notebook; it is not written to.
        tell: Called after each cell with its number, `ok`, `FAILED` or `not run`, seconds, its first line.

    Returns:
        The notebook with its outputs, and the failure as text ("" if there was none).
    """
    notebook = nbformat.read(path, as_version=4)
    numbers = {index: n for n, index in enumerate(_code_cells(notebook), start=1)}
    began: dict[int, float] = {}
    told: set[int] = set()

    def report(index: int, outcome: str) -> None:
        told.add(index)
        took = time.monotonic() - began.get(index, time.monotonic())
        tell(numbers[index], outcome, took, first_line(notebook.cells[index].source))

    def executed(cell: Any, cell_index: int, execute_reply: dict[str, Any]) -> None:
        report(cell_index, "ok" if execute_reply["content"]["status"] == "ok" else "FAILED")

    client = NotebookClient(
        notebook,
        kernel_manager_class=ThisPythonsKernel,
        extra_arguments=["--log-level=ERROR"],
        timeout=CELL_TIMEOUT_S,
        resources={"metadata": {"path": str(path.parent)}},
        shutdown_kernel="immediate",
        store_widget_state=False,
        on_cell_execute=lambda cell, cell_index: began.setdefault(cell_index, time.monotonic()),
        on_cell_executed=executed,
    )
    failure = ""
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        failure = str(error)
    for index in numbers.keys() - told:
        report(index, "FAILED" if index in began else "not run")
    return notebook, failure


def _code_cells(notebook: nbformat.NotebookNode) -> list[int]:
    """Return the places of the cells that run; nbclient passes over empty ones."""
    return [n for n, cell in enumerate(notebook.cells) if cell.cell_type == "code" and cell.source.strip()]


def render(notebook: nbformat.NotebookNode, page: Path) -> None:
    """Write an executed notebook as one HTML file that loads nothing from elsewhere."""
    config = Config()
    # A widget's view needs a kernel or the network; its table in HTML needs neither.
    config.NbConvertBase.display_data_priority = ["text/html", "image/png", "text/markdown", "text/plain"]
    # Nor does a page without formulas need the scripts for them. Their tags stay, empty.
    scripts = {"mathjax_url": "", "require_js_url": "", "jquery_url": ""}
    html, _ = HTMLExporter(config=config, **scripts).from_notebook_node(
        notebook, resources={"metadata": {"name": page.stem}}
    )
    html = re.sub(r'<script src="">\s*</script>', "", html)
    page.write_text(html, encoding="utf-8")


def main() -> int:
    """Run, tell, render; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--to", type=Path, default=BUILD, help="folder for the page and the notebook as run")
    chosen = parser.parse_args()

    def tell(number: int, outcome: str, took_s: float, line: str) -> None:
        print(f"{number:>3}  {outcome:<8} {took_s:5.2f} s  {line}", flush=True)

    print(f"Running {chosen.notebook} in a real kernel", flush=True)
    notebook, failure = execute(chosen.notebook, tell)
    if failure:
        print("\n" + re.sub(r"\x1b\[[0-9;]*m", "", failure))
    page = chosen.to / f"{chosen.notebook.stem}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    render(notebook, page)
    nbformat.write(notebook, page.with_suffix(".ipynb"))
    print(f"{'A cell FAILED' if failure else 'All cells ran'}; the page is {page}")
    return bool(failure)


if __name__ == "__main__":
    sys.exit(main())
