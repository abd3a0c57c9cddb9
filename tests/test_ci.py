"""Check what CI relies on: CI=true leaves no test out, and the summary and the README tell the truth."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent

CASES = {
    "skipped": "import pytest\ndef test_it() -> None:\n    pytest.skip('no reason')\n",
    "xfailed": "import pytest\n@pytest.mark.xfail\ndef test_it() -> None:\n    assert False\n",
    "module skipped": "import pytest\npytest.skip('all', allow_module_level=True)\n",
    "passed": "def test_it() -> None: ...\n",
}


@pytest.mark.parametrize(
    ("case", "ci", "status"),
    [
        ("passed", "true", 0),
        ("skipped", "true", 1),
        ("xfailed", "true", 1),
        ("module skipped", "true", 1),
        ("skipped", "", 0),
    ],
)
def test_only_ci_takes_a_left_out_test_for_a_failure(case: str, ci: str, status: int, tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_case.py").write_text(CASES[case])
    (tmp_path / "test_other.py").write_text(CASES["passed"])
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path],
        env={**os.environ, "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == status, ran.stdout
    assert ("left out although CI=true" in ran.stdout) == (status == 1)


def load_steps() -> Any:
    """Import `.ci/steps.py`, which is in no package."""
    spec = importlib.util.spec_from_file_location("steps", ROOT / ".ci" / "steps.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up by name.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


def test_a_report_counts_the_tests_and_names_those_left_out(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite>"
        "<testcase classname='tests.test_a' name='passes'/>"
        "<testcase classname='tests.test_a' name='fails'><failure/></testcase>"
        "<testcase classname='tests.test_a' name='skips'><skipped message='no server'/></testcase>"
        "<testcase name='tests.test_b'><skipped message='no browser'/></testcase>"
        "</testsuite></testsuites>"
    )
    found = load_steps().read_reports(report)

    assert found.counts == "1 passed, 1 failed, 2 left out"
    assert found.skipped == [("tests.test_a.skips", "no server"), ("tests.test_b", "no browser")]
    assert load_steps().read_reports(tmp_path / "none.xml").counts == "pytest wrote no report"


@pytest.mark.parametrize(
    ("passed", "left_out", "not_run", "ci", "status", "last"),
    [
        (True, [], [], "", 0, "All passed."),
        (True, ["a test"], [], "", 0, "All passed, but see what was left out."),
        (True, [], ["a part"], "", 0, "All passed, but see what was left out."),
        (True, [], ["a part"], "true", 1, "FAILED: something did not run at all, although CI=true"),
        (False, [], [], "", 1, "FAILED: pytest"),
    ],
)
def test_the_last_line_says_whether_all_passed(
    passed: bool,
    left_out: list[str],
    not_run: list[str],
    ci: str,
    status: int,
    last: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CI", ci)
    steps = load_steps()

    assert steps.sum_up([steps.Outcome("pytest", passed, left_out=left_out)], not_run) == status
    assert capsys.readouterr().out.splitlines()[-1] == last


@pytest.fixture
def ci(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import modules of `.ci` by name, as its commands do."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(ROOT / ".ci")
    yield importlib.import_module
    for path in (ROOT / ".ci").glob("*.py"):
        if path.stem not in before:
            sys.modules.pop(path.stem, None)


def test_the_readme_gets_what_ran_in_each_environment(
    ci: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results, versions = ci("results"), ci("versions")
    monkeypatch.setattr(results, "FILE", tmp_path / "results.json")
    monkeypatch.setattr(versions, "README", tmp_path / "README.md")
    versions.README.write_text(f"before\n{versions.BEGIN}\n{versions.END}after\n")

    def rows() -> list[str]:
        assert versions.main() == 0
        lines = versions.README.read_text().splitlines()
        assert (lines[0], lines[-1]) == ("before", "after")
        assert "| Windows | nothing: by construction only | | | |" in lines
        assert any(line.startswith(f"| CPython 3.11 | {versions._NOT_COUNTED}") for line in lines)
        return [line for line in lines if "tests" in line]

    for environment, passed in (("Spam: egg 1", 1), ("CPython 3.12.1", 2000), ("Spam: egg 2", 3)):
        results.keep(results.Result(environment, "tests", passed, failed=0, left_out=5))
    python, spam = "| CPython 3.12.1 | tests | 2,000 | 0 | 5 |", "| Spam: egg 2 | tests | 3 | 0 | 5 |"
    assert rows() == [python, spam]

    results.FILE.unlink()
    results.keep(results.Result("Spam: egg 3", "tests", 4, failed=1, left_out=0))
    assert rows() == [python, "| Spam: egg 3 | tests | 4 | 1 | 0 |"]


def test_the_tests_that_ci_runs_for_each_host_exist(ci: Any) -> None:
    assert [path for path in ci("reach").DIFFERING if not (ROOT / path).exists()] == []


def test_an_environment_is_made_anew_when_a_pin_has_changed(ci: Any, tmp_path: Path) -> None:
    test_all, pins, folder = ci("test_all"), tmp_path / "host.txt", tmp_path / "environment"
    wanted = ["--requirement", str(pins)]
    pins.write_text("# Python 3.12: a host\nipython==8.37.0\n")
    folder.mkdir()
    test_all._mark_up_to_date(folder, *wanted)
    assert test_all._is_up_to_date(folder, *wanted)

    pins.write_text("# Python 3.12: a host\nipython==8.38.0\n")

    assert not test_all._is_up_to_date(folder, *wanted)
