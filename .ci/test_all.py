"""What `make test` runs once, on everything older that loopnb supports; the last lines sum up.

The tests that need no IPython and CPython's asyncio tests on every CPython that can be had, the
tests in real kernels on the older versions of ipykernel, and a minute of the stress.

Arguments go to pytest. The variable PARTS chooses from `pythons`, `kernels` and `stress`.
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
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pythons
import sid
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "test-all"
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
GROUP = "engine"
PARTS = ("pythons", "kernels", "stress")

# The first and the last of each line; `make test` runs on the newest.
KERNELS = ["6.29.*", "6.31.*", "7.1.*", "7.3.*"]


@dataclass
class Outcome:
    """How the tests ended on one Python, or on one ipykernel.

    Attributes:
        name: Of the Python or the ipykernel.
        passed: Whether all did.
        took_s: Seconds.
        detail: One line more.
        left_out: Why tests were left out, and how many.
    """

    name: str
    passed: bool
    took_s: float = 0.0
    detail: str = ""
    left_out: list[str] = field(default_factory=list)


class NotReadyError(Exception):
    """Why the tests cannot be given what they need."""


def _stamp() -> str:
    return hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()


def _pip(*arguments: str) -> None:
    if subprocess.run([*PIP, *arguments], cwd=ROOT, check=False).returncode != 0:
        raise NotReadyError("pip could not install what the tests need")


def venv_of(python: pythons.Python, folder: Path, *wanted: str) -> Path:
    """Give *python* a virtual environment with what is *wanted* of pip, and return its interpreter.

    It has no pip: Debian keeps that in another package, and ours can install into it.
    """
    executable = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp = folder / "stamp"
    if stamp.exists() and stamp.read_text() == _stamp():
        return executable
    made = subprocess.run([python.path, "-m", "venv", "--clear", "--without-pip", folder], check=False)
    if made.returncode != 0:
        raise NotReadyError("it cannot make a virtual environment")
    _pip("--python", str(executable), "install", *wanted)
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


def test_engine(python: pythons.Python, name: str, command: list[str], root: str) -> Outcome:
    """Run the engine's tests by *command*, for which the repository is at *root*."""
    parts = ["tests/nesting", "tests/loop", "tests/tracking"]
    parts += ["tests/cpython"] if python.has_asyncio_tests else []
    # Some tests take minutes, and what runs in them is another process: no stack of ours says where.
    slow = ["-m", "slow or not slow", "-o", "faulthandler_timeout=0"]
    outcome = run_pytest(name, command, [*slow, *parts], root, dict(os.environ))
    outcome.detail += "" if python.has_asyncio_tests else "; it ships without its asyncio tests"
    return outcome


def run_pytest(
    name: str, command: list[str], arguments: list[str], root: str, env: dict[str, str]
) -> Outcome:
    """Run pytest by *command*, for which the repository is at *root*."""
    print(f"\n== {name}", flush=True)
    report = BUILD / "report.xml"
    report.unlink(missing_ok=True)
    seen = f"{root}/{report.relative_to(ROOT).as_posix()}"
    options = ["-p", "no:cacheprovider", "-q", f"--junit-xml={seen}", *arguments, *sys.argv[1:]]
    began = time.monotonic()
    ran = subprocess.run([*command, "-m", "pytest", *options], cwd=ROOT, env=env, check=False)
    detail, left_out = _read(report)
    return Outcome(name, ran.returncode == 0, time.monotonic() - began, detail, left_out)


def _read(report: Path) -> tuple[str, list[str]]:
    """Return the counts in a line, and each reason for which tests were left out."""
    if not report.exists():
        return "no report was written", []
    cases = list(ET.parse(report).getroot().iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    marks = [mark for case in cases if (mark := case.find("skipped")) is not None]
    reasons = Counter(mark.get("message", "no reason given") for mark in marks)
    counts = f"{len(cases) - len(bad) - len(marks)} passed, {len(bad)} failed, {len(marks)} left out"
    return counts, [f"{count} of its tests: {reason}" for reason, count in reasons.items()]


def test_here(python: pythons.Python) -> Outcome:
    """Run the engine's tests on a Python of this machine."""
    name = f"{python.version} ({python.path})"
    tag = hashlib.sha256(python.path.encode()).hexdigest()[:8]
    try:
        executable = venv_of(python, BUILD / f"{python.version}-{tag}", "--group", GROUP)
    except NotReadyError as error:
        return Outcome(name, passed=False, detail=str(error))
    return test_engine(python, name, [str(executable)], str(ROOT))


def test_kernel(python: pythons.Python, version: str) -> Outcome:
    """Run the tests in real kernels on an older *version* of ipykernel."""
    name = f"ipykernel {version} ({python.version})"
    wanted = ["--editable", ".", f"ipykernel=={version}", "--group", "kernels"]
    # With CI=true a test that is left out fails the run. Here some are, by the version: they are named below.
    env = {key: value for key, value in os.environ.items() if key != "CI"}
    try:
        executable = venv_of(python, BUILD / f"ipykernel-{version.removesuffix('.*')}", *wanted)
    except NotReadyError as error:
        return Outcome(name, passed=False, detail=str(error))
    return run_pytest(name, [str(executable)], ["tests/kernel"], str(ROOT), env)


def test_stress() -> Outcome:
    """Run a sample of the stress; its report says how to repeat it."""
    print("\n== stress", flush=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.stress", "--quick"]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    print(ran.stdout, flush=True)
    left_out = [line for line in ran.stdout.splitlines() if line.startswith("LEFT OUT")]
    repeat = ran.stdout.strip().rsplit("\n", maxsplit=1)[-1]
    return Outcome("stress", ran.returncode == 0, time.monotonic() - began, repeat, left_out)


def test_in_sid() -> Outcome:
    """Run the engine's tests on the newest Python in a Debian sid.

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
    return test_engine(python, name, sid.enter(folder, ROOT, "sh", "-c", inside, seen), "/loopnb")


def main() -> int:
    """Run all of them, whatever the others say."""
    BUILD.mkdir(parents=True, exist_ok=True)
    parts = (os.environ.get("PARTS") or " ".join(PARTS)).split()
    if not set(parts) <= set(PARTS):
        print(f"PARTS is {' '.join(parts)!r}; it takes some of {', '.join(PARTS)}.")
        return 2
    found = pythons.find() if "pythons" in parts else []
    outcomes = [test_here(python) for python in found]
    left_out = []
    newest = pythons.SUPPORTED[-1]
    if "pythons" in parts and not any(python.minor == newest for python in found):
        try:
            outcomes.append(test_in_sid())
        except sid.NoSidError as error:
            left_out.append(f"{newest[0]}.{newest[1]}: none is installed, and no Debian sid: {error}")
    own = pythons.ask([sys.executable])
    if "kernels" not in parts:
        pass
    elif own is None:
        left_out.append(f"ipykernel {', '.join(KERNELS)}: they are tested on a supported CPython only")
    else:
        outcomes += [test_kernel(own, version) for version in KERNELS]
    if "stress" in parts:
        outcomes.append(test_stress())
    return sum_up(outcomes, left_out)


def sum_up(outcomes: list[Outcome], not_run: list[str]) -> int:
    """Print how all went and what was left out, and return the exit status."""
    print(f"\n{'-' * 78}")
    for outcome in outcomes:
        word = "ok    " if outcome.passed else "FAILED"
        print(f"{word}  {outcome.name:<52} {outcome.took_s:6.1f} s  {outcome.detail}")
    left_out = [f"{outcome.name}: {line}" for outcome in outcomes for line in outcome.left_out] + not_run
    for line in left_out:
        print(f"LEFT OUT  {line}")
    failed = not all(outcome.passed for outcome in outcomes) or (not_run and os.environ.get("CI") == "true")
    print("FAILED" if failed else f"All passed{', but see what was left out' * bool(left_out)}.")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
