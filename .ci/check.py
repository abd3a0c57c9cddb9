"""Run every check of the project (`make test`). The last lines say what failed and what was left out."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import browser
import display
import servers
import steps
import typescript
from steps import ROOT, Outcome

BIN = Path(sys.executable).parent
REPORTS = ROOT / "build"

#: Each share is a pytest of its own, and all run at the same time: tests mostly wait, for kernels, pages and
#: prompts. The shares take about equally long. What no share names is in the first.
NAMED_SHARES = [
    [
        "tests/terminal",
        "tests/kernel/test_debugger.py",
        "tests/kernel/test_embedded.py",
        "tests/kernel/test_engines.py",
        "tests/kernel/test_gui.py",
        "tests/kernel/test_headless.py",
        "tests/kernel/test_interrupts.py",
        "tests/kernel/test_loading.py",
        "tests/kernel/test_loop_guard.py",
        "tests/kernel/test_progress.py",
        "tests/kernel/test_pytest_in_cells.py",
        "tests/kernel/test_shutdown.py",
        "tests/kernel/test_signals.py",
    ],
    [
        "tests/browser",
        "tests/nesting",
        "tests/test_notebooks.py",
        "tests/kernel/test_clients.py",
        "tests/kernel/test_deadlocks.py",
        "tests/kernel/test_widget.py",
    ],
]
SHARES = [[f"--ignore={path}" for share in NAMED_SHARES for path in share], *NAMED_SHARES]

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
    began = time.monotonic()
    tool, *arguments = command
    ran = subprocess.run(
        # A path stays as it is.
        [BIN / tool, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    outcome = Outcome(name, ran.returncode == 0, time.monotonic() - began)
    print(f"{outcome}  {name}", flush=True)
    if not outcome.passed:
        print(ran.stdout, flush=True)
    return outcome


def run_tests(chromium: str | None, arguments: list[str]) -> Outcome:
    """Run pytest with *arguments*. Without a Chromium or a server, leave out the tests that need it."""
    began = time.monotonic()
    print(f"Browser: {chromium or 'none'}", flush=True)
    print(f"Missing for tests of GUI toolkits: {display.ensure() or 'nothing'}", flush=True)
    print(f"Missing servers: {', '.join(servers.ensure()) or 'none'}", flush=True)
    REPORTS.mkdir(exist_ok=True)
    for report in REPORTS.glob("tests*.xml"):
        report.unlink()
    if not arguments:
        # Tests that are named run even where they are to be ignored, so leave out the name, too.
        shares = [[name for name in share if chromium or name != "tests/browser"] for share in SHARES]
    else:
        shares = [arguments if chromium else ["--ignore=tests/browser", *arguments]]
    reports = [REPORTS / f"tests-{number}.xml" for number in range(1, len(shares) + 1)]
    passed = run_shares(
        [[f"--junit-xml={report}", *share] for report, share in zip(reports, shares, strict=True)]
    )
    found = steps.read_reports(*reports)
    skipped = [f"{test}: {reason}" for test, reason in found.skipped]
    return Outcome("pytest", passed, time.monotonic() - began, found.counts, skipped)


def run_shares(shares: list[list[str]]) -> bool:
    """Run a pytest for each share, all at the same time. Return True if all passed.

    The output of the first is printed as it comes, and that of the others when all have ended.
    """
    env = steps.keeping_bytecode(os.environ)
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in shares[1:]]
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "pytest", *share], cwd=ROOT, env=env, stdout=output, stderr=output
            )
            for share, output in zip(shares, [None, *outputs], strict=True)
        ]
        passed = [pytest.wait() == 0 for pytest in running]
        for output in outputs:
            output.seek(0)
            print(output.read(), flush=True)
    return all(passed)


def main() -> int:
    """Run all steps, whether the earlier ones passed or not. The command line's arguments go to pytest."""
    tsc = typescript.ensure()
    linters = LINTERS | ({"tsc": [tsc, *typescript.OPTIONS]} if tsc else {})
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        outcomes = list(threads.map(lint, linters, linters.values()))
    chromium = browser.ensure()
    outcomes.append(run_tests(chromium, sys.argv[1:]))
    missing = {
        "tests/browser: no Chromium was found, and none could be installed": chromium,
        "tsc: there is no npm, or it could not install TypeScript": tsc,
    }
    return steps.sum_up(outcomes, [line for line, found in missing.items() if found is None])


if __name__ == "__main__":
    sys.exit(main())
