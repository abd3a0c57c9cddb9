"""Run every check of the project (`make test`). The last lines say what failed and what was left out."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import browser
import display
import servers
import steps
from steps import ROOT

if TYPE_CHECKING:
    from steps import Outcome

BIN = Path(sys.executable).parent
REPORTS = ROOT / "build"

#: These run at the same time as all others. The two halves take about equally long, and both mostly wait:
#: for pages, prompts and kernels.
BESIDE = ["tests/browser", "tests/terminal", "tests/nesting"]

# mypy runs for the oldest and the newest Python, because loopnb branches on the version.
LINTERS = {
    "ruff check": ["ruff", "check"],
    "ruff format": ["ruff", "format", "--check"],
    "mypy, Python 3.11": ["mypy", "--strict", "--python-version", "3.11"],
    "mypy, Python 3.15": ["mypy", "--strict", "--python-version", "3.15"],
    "import-linter": ["lint-imports"],
}


def lint(name: str, command: list[str]) -> Outcome:
    """Run one linter. Print what it says only if it complains."""
    tool, *arguments = command
    outcome, said = steps.run(
        name, [BIN / tool, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    print(f"{outcome}  {name}", flush=True)
    if not outcome.passed:
        print(said, flush=True)
    return outcome


def run_tests(chromium: str | None, arguments: list[str]) -> Outcome:
    """Run pytest with *arguments*. Without a Chromium or a server, leave out the tests that need it."""
    began = time.monotonic()
    print(f"Browser: {chromium or 'none'}", flush=True)
    print(f"Missing for tests of GUI toolkits: {display.ensure() or 'nothing'}", flush=True)
    print(f"Missing servers: {', '.join(servers.ensure()) or 'none'}", flush=True)
    REPORTS.mkdir(exist_ok=True)
    report, report_beside = REPORTS / "tests.xml", REPORTS / "tests-beside.xml"
    for path in (report, report_beside):
        path.unlink(missing_ok=True)
    if chromium is None:
        arguments = ["--ignore=tests/browser", *arguments]
    if arguments:
        outcome, _ = steps.run("pytest", _pytest(report, *arguments))
        found = steps.read_reports(report)
    else:
        outcome = _run_two_halves(report, report_beside)
        found = steps.read_reports(report, report_beside)
    outcome.took_s = time.monotonic() - began
    outcome.detail = found.counts
    outcome.left_out = [f"{test}: {reason}" for test, reason in found.skipped]
    return outcome


def _pytest(report: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", f"--junit-xml={report}", *arguments]


def _run_two_halves(report: Path, report_beside: Path) -> Outcome:
    """Run two pytests at the same time. Print the output of the second when the first has ended."""
    with tempfile.TemporaryFile("w+") as output:
        command = _pytest(report_beside, *BESIDE)
        beside = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        outcome, _ = steps.run("pytest", _pytest(report, *(f"--ignore={path}" for path in BESIDE)))
        outcome.passed &= beside.wait() == 0
        output.seek(0)
        print(output.read(), flush=True)
    return outcome


def main() -> int:
    """Run all steps, whether the earlier ones passed or not. The command line's arguments go to pytest."""
    with ThreadPoolExecutor(os.cpu_count()) as linters:
        outcomes = list(linters.map(lint, LINTERS, LINTERS.values()))
    chromium = browser.ensure()
    outcomes.append(run_tests(chromium, sys.argv[1:]))
    no_browser = "tests/browser: no Chromium was found, and none could be installed"
    return steps.sum_up(outcomes, [] if chromium else [no_browser])


if __name__ == "__main__":
    sys.exit(main())
