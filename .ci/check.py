"""Every check of the project; the last lines say what failed and what was left out."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import browser
import display
import servers

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
REPORTS = ROOT / "build"

#: These run beside the others, and take about as long. Pages, prompts and kernels wait most of their time.
BESIDE = ["tests/browser", "tests/terminal", "tests/nesting"]

# mypy on the oldest and the newest Python: loopnb/internals branches on the version.
LINTERS = {
    "ruff check": ["ruff", "check"],
    "ruff format": ["ruff", "format", "--check"],
    "mypy, Python 3.11": ["mypy", "--strict", "--python-version", "3.11"],
    "mypy, Python 3.14": ["mypy", "--strict", "--python-version", "3.14"],
    "import-linter": ["lint-imports"],
}


@dataclass
class Outcome:
    """How one step ended.

    Attributes:
        name: Of the step.
        passed: Whether it did.
        took_s: Seconds.
        detail: One line more.
        left_out: What it could not run, with the reasons.
    """

    name: str
    passed: bool
    took_s: float
    detail: str = ""
    left_out: list[str] = field(default_factory=list)


def lint(name: str, command: list[str]) -> Outcome:
    """Run one linter, and show what it says if it is not content."""
    began = time.monotonic()
    tool, *arguments = command
    ran = subprocess.run(
        [BIN / tool, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    passed = ran.returncode == 0
    print(f"{_word(passed)}  {name}", flush=True)
    if not passed:
        print(ran.stdout, flush=True)
    return Outcome(name, passed, time.monotonic() - began)


def run_tests() -> Outcome:
    """Run pytest; the tests in the browser, or with a server, are left out where there is none."""
    began = time.monotonic()
    left_out, arguments = [], []
    chromium = browser.ensure()
    if chromium is None:
        left_out = ["tests/browser: no Chromium was found, and none could be installed"]
        arguments = ["--ignore=tests/browser"]
    print(f"Browser: {chromium or 'none'}", flush=True)
    print(f"Missing for tests of GUI toolkits: {display.ensure() or 'nothing'}", flush=True)
    print(f"Servers that could not be had: {', '.join(servers.ensure()) or 'none'}", flush=True)
    passed, reports = _run_pytest(arguments, beside=chromium is not None and not sys.argv[1:])
    detail, skipped = _read_reports(reports)
    left_out += skipped
    passed = passed and not (left_out and os.environ.get("CI") == "true")
    return Outcome("pytest", passed, time.monotonic() - began, detail, left_out)


def _run_pytest(arguments: list[str], *, beside: bool) -> tuple[bool, list[Path]]:
    """Run pytest: in one process, or some tests *beside* the others, whose output comes first."""
    REPORTS.mkdir(exist_ok=True)
    report, second_report = REPORTS / "tests.xml", REPORTS / "tests-beside.xml"
    for path in (report, second_report):
        path.unlink(missing_ok=True)
    pytest = [sys.executable, "-m", "pytest"]
    if not beside:
        command = [*pytest, f"--junit-xml={report}", *arguments, *sys.argv[1:]]
        return subprocess.run(command, cwd=ROOT, check=False).returncode == 0, [report]
    with tempfile.TemporaryFile("w+") as output:
        command = [*pytest, f"--junit-xml={second_report}", *BESIDE]
        second = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        command = [*pytest, f"--junit-xml={report}", *(f"--ignore={path}" for path in BESIDE)]
        first = subprocess.run(command, cwd=ROOT, check=False)
        second.wait()
        output.seek(0)
        print(output.read(), flush=True)
    return first.returncode == 0 and second.returncode == 0, [report, second_report]


def _read_reports(reports: list[Path]) -> tuple[str, list[str]]:
    """Return the counts in a line, and each test that was skipped or is expected to fail."""
    if not all(report.exists() for report in reports):
        return "a report was not written", []
    cases = [case for report in reports for case in ET.parse(report).getroot().iter("testcase")]
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [(case, mark) for case in cases if (mark := case.find("skipped")) is not None]
    counts = f"{len(cases) - len(bad) - len(skipped)} passed, {len(bad)} failed, {len(skipped)} left out"
    return counts, [
        f"{case.get('classname', '')}.{case.get('name', '')}: {mark.get('message', '')}".lstrip(".")
        for case, mark in skipped
    ]


def _word(passed: bool) -> str:
    return "ok    " if passed else "FAILED"


def main() -> int:
    """Run all steps, whatever the earlier ones say. Arguments go to pytest."""
    with ThreadPoolExecutor(os.cpu_count()) as linters:
        outcomes = list(linters.map(lint, LINTERS, LINTERS.values()))
    outcomes.append(run_tests())
    print(f"\n{'-' * 78}")
    for outcome in outcomes:
        print(
            f"{_word(outcome.passed)}  {outcome.name:<20} {outcome.took_s:6.1f} s  {outcome.detail}".rstrip()
        )
    left_out = [line for outcome in outcomes for line in outcome.left_out]
    for line in left_out:
        print(f"LEFT OUT  {line}")
    failed = [outcome.name for outcome in outcomes if not outcome.passed]
    print(
        f"FAILED: {', '.join(failed)}"
        if failed
        else f"All passed{', but see what was left out' * bool(left_out)}."
    )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
