"""The engine's tests and CPython's asyncio tests, on every CPython that can be had; the last lines sum up.

Arguments go to pytest.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import pythons
import sid
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "test-all"
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
GROUP = "engine"


@dataclass
class Outcome:
    """How the tests ended on one Python.

    Attributes:
        name: Of the Python.
        passed: Whether all did.
        took_s: Seconds.
        detail: One line more.
    """

    name: str
    passed: bool
    took_s: float = 0.0
    detail: str = ""


class NotReadyError(Exception):
    """Why a Python cannot be given what the tests need."""


def _stamp() -> str:
    return hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()


def _pip(*arguments: str) -> None:
    if subprocess.run([*PIP, *arguments], cwd=ROOT, check=False).returncode != 0:
        raise NotReadyError("pip could not install what the tests need")


def venv_of(python: pythons.Python) -> Path:
    """Give *python* a virtual environment with all the tests need, and return its interpreter.

    It has no pip: Debian keeps that in another package, and ours can install into it.
    """
    tag = hashlib.sha256(python.path.encode()).hexdigest()[:8]
    folder = BUILD / f"{python.version}-{tag}"
    executable = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp = folder / "stamp"
    if stamp.exists() and stamp.read_text() == _stamp():
        return executable
    made = subprocess.run([python.path, "-m", "venv", "--clear", "--without-pip", folder], check=False)
    if made.returncode != 0:
        raise NotReadyError("it cannot make a virtual environment")
    _pip("--python", str(executable), "install", "--group", GROUP)
    stamp.write_text(_stamp())
    return executable


def packages_for(python: pythons.Python, folder: Path) -> None:
    """Put what the tests need into *folder*, for a *python* from which no index can be reached."""
    stamp = folder / "stamp"
    if stamp.exists() and stamp.read_text() == _stamp():
        return
    if folder.exists():
        shutil.rmtree(folder)  # pip leaves there what is not wanted any more
    version = ".".join(map(str, python.minor))
    fixed = ["--python-version", version, "--only-binary=:all:"]
    _pip("install", "--target", str(folder), *fixed, *_requirements(version))
    stamp.write_text(_stamp())


def _requirements(version: str) -> list[str]:
    # pip takes markers to ask about the Python it runs on, whatever --python-version says.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    every = [Requirement(line) for line in project["dependency-groups"][GROUP]]
    wanted = [one for one in every if one.marker is None or one.marker.evaluate({"python_version": version})]
    return [f"{one.name}{one.specifier}" for one in wanted]


def test(python: pythons.Python, name: str, command: list[str], root: str) -> Outcome:
    """Run the tests by *command*, for which the repository is at *root*."""
    print(f"\n== {name}", flush=True)
    report = BUILD / "report.xml"
    report.unlink(missing_ok=True)
    parts = ["tests/nesting", *(["tests/cpython"] if python.has_asyncio_tests else [])]
    # Some tests take minutes, and what runs in them is another process: no stack of ours says where.
    options = ["-m", "slow or not slow", "-o", "faulthandler_timeout=0", "-p", "no:cacheprovider", "-q"]
    seen = f"{root}/{report.relative_to(ROOT).as_posix()}"
    began = time.monotonic()
    ran = subprocess.run(
        [*command, "-m", "pytest", *options, f"--junit-xml={seen}", *parts, *sys.argv[1:]],
        cwd=ROOT,
        check=False,
    )
    detail = _counts(report) + ("" if python.has_asyncio_tests else "; it ships without its asyncio tests")
    return Outcome(name, ran.returncode == 0, time.monotonic() - began, detail)


def _counts(report: Path) -> str:
    if not report.exists():
        return "no report was written"
    cases = list(ET.parse(report).getroot().iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    return f"{len(cases) - len(bad) - len(skipped)} passed, {len(bad)} failed, {len(skipped)} left out"


def test_here(python: pythons.Python) -> Outcome:
    """Run the tests on a Python of this machine."""
    name = f"{python.version} ({python.path})"
    try:
        return test(python, name, [str(venv_of(python))], str(ROOT))
    except NotReadyError as error:
        return Outcome(name, passed=False, detail=str(error))


def test_in_sid() -> Outcome:
    """Run the tests on the newest Python in a Debian sid.

    Raises:
        sid.NoSidError: There can be none here.
    """
    folder = BUILD / "sid"
    sid.make(folder)
    python = pythons.ask(sid.enter(folder, ROOT, sid.PYTHON))
    if python is None:
        raise sid.NoSidError(f"{sid.PYTHON} does not start in it")
    name = f"{python.version} (Debian sid)"
    packages = BUILD / f"{python.version}-sid"
    seen = f"/loopnb/{packages.relative_to(ROOT).as_posix()}"
    inside = "cd /loopnb && PYTHONPATH=$0 PYTHONDONTWRITEBYTECODE=1 exec " + sid.PYTHON + ' "$@"'
    try:
        packages_for(python, packages)
    except NotReadyError as error:
        return Outcome(name, passed=False, detail=str(error))
    return test(python, name, sid.enter(folder, ROOT, "sh", "-c", inside, seen), "/loopnb")


def main() -> int:
    """Run the tests everywhere, whatever the others say."""
    BUILD.mkdir(parents=True, exist_ok=True)
    found = pythons.find()
    outcomes = [test_here(python) for python in found]
    left_out = []
    newest = pythons.SUPPORTED[-1]
    if not any(python.minor == newest for python in found):
        try:
            outcomes.append(test_in_sid())
        except sid.NoSidError as error:
            left_out.append(f"{newest[0]}.{newest[1]}: none is installed, and no Debian sid: {error}")
    print(f"\n{'-' * 78}")
    for outcome in outcomes:
        word = "ok    " if outcome.passed else "FAILED"
        print(f"{word}  {outcome.name:<52} {outcome.took_s:6.1f} s  {outcome.detail}")
    for line in left_out:
        print(f"LEFT OUT  {line}")
    failed = not all(outcome.passed for outcome in outcomes) or (left_out and os.environ.get("CI") == "true")
    print("FAILED" if failed else f"All passed{', but see what was left out' * bool(left_out)}.")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
