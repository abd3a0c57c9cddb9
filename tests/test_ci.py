"""The rule of tests/conftest.py that a run with CI=true leaves no test out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
