"""Run the tests on everything older that loopnb supports (`make test-all`). The last lines sum up.

The tests that need no IPython and CPython's own asyncio tests run on every CPython that is found. The tests
in real kernels run on the older versions of ipykernel, and with the packages of the hosts in `tests/reach`.
Some tests run here because they need packages that take minutes to install, and those of JupyterLite since
they need Pyodide. So does the classic Notebook, which wants an old ipywidgets. A sample of the stress takes a
minute, and all combinations of signal handlers take some more.

Arguments go to pytest. The variable PARTS chooses from `pythons`, `kernels`, `reach`, `libraries`, `classic`,
`jupyterlite` and `stress`. A single host, such as `colab`, is a part, too. With CI=true a host runs only the
tests that differ most between hosts. `versions.py` writes what has run into the README.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import browser
import jupyterlite
import pythons
import reach
import results
import sid
import steps
from packaging.requirements import Requirement
from steps import ROOT, Outcome

BUILD = ROOT / "build" / "test-all"
GROUP = "engine"
PARTS = ("pythons", "kernels", "reach", "libraries", "classic", "jupyterlite", "stress")

# The first and the last version of 6 and of 7, without the newest: `make test` runs on that one.
KERNELS = ["6.29.*", "6.31.*", "7.1.*", "7.3.*"]


IS_CI = os.environ.get("CI") == "true"

# What the README says that ran.
IN_KERNELS = "tests in real kernels"


@dataclass(frozen=True)
class Environment:
    """Where tests run.

    Attributes:
        name: What the summary calls it.
        title: What the README calls it.
        ran: Which tests run there, as the README calls them.
    """

    name: str
    title: str
    ran: str


class NotReadyError(Exception):
    """Raised when what the tests need cannot be installed. The text says why."""


def _stamp(*wanted: str) -> str:
    # Of a file of requirements, its text counts and not only its name.
    files = [ROOT / "pyproject.toml", *(path for path in map(Path, wanted) if path.suffix == ".txt")]
    parts = [*map(str.encode, wanted), *(path.read_bytes() for path in files)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _is_up_to_date(folder: Path, *wanted: str) -> bool:
    """Return True if *folder* was filled completely, for the pyproject.toml and what is *wanted* today."""
    stamp = folder / "stamp"
    return stamp.exists() and stamp.read_text() == _stamp(*wanted)


def _mark_up_to_date(folder: Path, *wanted: str) -> None:
    (folder / "stamp").write_text(_stamp(*wanted))


def _pip(*arguments: str) -> None:
    if subprocess.run([*reach.PIP, *arguments], cwd=ROOT, check=False).returncode != 0:
        raise NotReadyError("pip could not install what the tests need")


def venv_of(python: pythons.Python, folder: Path, *wanted: str) -> Path:
    """Make a virtual environment of *python* in *folder*, and return its interpreter.

    The environment gets no pip, which on Debian is in a package of its own. Our pip installs into it.

    Args:
        python: The interpreter to make it with.
        folder: Where to put it. One that an earlier run has made there with the same is used again.
        wanted: What to install, as arguments of `pip install`.

    Raises:
        NotReadyError: It could not be made, or pip failed.
    """
    executable = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if _is_up_to_date(folder, *wanted):
        return executable
    made = subprocess.run([python.path, "-m", "venv", "--clear", "--without-pip", folder], check=False)
    if made.returncode != 0:
        raise NotReadyError("it cannot make a virtual environment")
    _pip("--python", str(executable), "install", *wanted)
    _mark_up_to_date(folder, *wanted)
    return executable


def packages_for(python: pythons.Python, folder: Path) -> None:
    """Put what the tests need into *folder*, for a *python* that cannot run pip itself.

    Raises:
        NotReadyError: pip failed.
    """
    if _is_up_to_date(folder):
        return
    if folder.exists():
        shutil.rmtree(folder)  # pip would leave packages there that are not wanted any more
    version = ".".join(map(str, python.minor))
    fixed = ["--python-version", version, "--only-binary=:all:"]
    _pip("install", "--target", str(folder), *fixed, *_requirements(version))
    _mark_up_to_date(folder)


def _requirements(version: str) -> list[str]:
    # Evaluate markers here: pip evaluates them for the Python it runs on, whatever --python-version says.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    requirements = [Requirement(line) for line in project["dependency-groups"][GROUP]]
    environment = {"python_version": version}
    return [
        f"{requirement.name}{requirement.specifier}"
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate(environment)
    ]


def test_engine(python: pythons.Python, where: str, command: list[str], root: str) -> Outcome:
    """Run the engine's tests with *command*, which sees the repository at *root*.

    Args:
        python: The interpreter.
        where: What tells it from another of the same version.
        command: What starts it, with the packages that the tests need.
        root: Where it finds the repository.
    """
    parts = ["tests/nesting", "tests/loop", "tests/tracking", "tests/watch", "tests/test_cpython.py"]
    parts += ["tests/cpython"] if python.has_asyncio_tests else []
    # Slow tests take minutes, and they wait for other processes: faulthandler's stacks would show nothing.
    slow = ["-m", "slow or not slow", "-o", "faulthandler_timeout=0", "--hypothesis-profile=thorough"]
    note = "" if python.has_asyncio_tests else "; this Python has no asyncio tests of its own"
    ran = "tests that need no IPython" + (", asyncio's own" if python.has_asyncio_tests else "")
    name = f"{python.version} ({where})"
    environment = Environment(name, f"CPython {python.version}", ran)
    return run_pytest(environment, command, [*slow, *parts], root, dict(os.environ), note)


def run_pytest(
    environment: Environment,
    command: list[str],
    arguments: list[str],
    root: str,
    env: dict[str, str],
    note: str = "",
    *,
    is_whole: bool = True,
) -> Outcome:
    """Run pytest with *command*, which sees the repository at *root*. *note* follows the numbers of tests.

    The numbers are kept if *is_whole*, unless the command line's arguments may have chosen some of the tests.
    """
    began = time.monotonic()
    print(f"\n== {environment.name}", flush=True)
    report = BUILD / "report.xml"
    report.unlink(missing_ok=True)
    report_there = f"{root}/{report.relative_to(ROOT).as_posix()}"
    options = ["-p", "no:cacheprovider", "-q", f"--junit-xml={report_there}", *arguments, *sys.argv[1:]]
    kept = steps.keeping_bytecode(env)
    ran = subprocess.run([*command, "-m", "pytest", *options], cwd=ROOT, env=kept, check=False)
    found = steps.read_reports(report)
    reasons = Counter(reason for _, reason in found.skipped)
    left_out = [f"{count} of its tests: {reason}" for reason, count in reasons.items()]
    took_s = time.monotonic() - began
    if is_whole and not sys.argv[1:] and report.exists():  # else pytest was killed
        counts = (found.passed, found.failed, len(found.skipped))
        results.keep(results.Result(environment.title, environment.ran, *counts))
    return Outcome(environment.name, ran.returncode == 0, took_s, found.counts + note, left_out)


def test_here(python: pythons.Python) -> Outcome:
    """Run the engine's tests on a Python of this machine."""
    tag = hashlib.sha256(python.path.encode()).hexdigest()[:8]
    try:
        executable = venv_of(python, BUILD / f"{python.version}-{tag}", "--group", GROUP)
    except NotReadyError as error:
        return Outcome(f"{python.version} ({python.path})", passed=False, detail=str(error))
    return test_engine(python, python.path, [str(executable)], str(ROOT))


def test_kernel(python: pythons.Python, version: str) -> Outcome:
    """Run the tests in real kernels on an older *version* of ipykernel."""
    name = f"ipykernel {version} ({python.version})"
    wanted = ["--editable", ".", f"ipykernel=={version}", "--group", "kernels"]
    # CI=true would turn tests that are left out into failures. Old versions cannot run some of them; the
    # summary names those.
    env = {key: value for key, value in os.environ.items() if key != "CI"}
    try:
        executable = venv_of(python, BUILD / f"ipykernel-{version.removesuffix('.*')}", *wanted)
    except NotReadyError as error:
        return Outcome(name, passed=False, detail=str(error))
    title = f"ipykernel {version.removesuffix('.*')}, CPython {python.version}"
    environment = Environment(name, title, IN_KERNELS)
    return run_pytest(environment, [str(executable)], ["tests/kernel"], str(ROOT), env)


def test_host(host: reach.Host, python: pythons.Python) -> Outcome:
    """See that installing loopnb moves no package of *host*, and run the tests in its kernel."""
    name = f"{host.name} ({python.version})"
    print(f"\n== {name}: {host.title}", flush=True)
    folder = BUILD / f"reach-{host.name}"
    try:
        moved = host.moved(venv_of(python, folder / "stock", "--requirement", str(host.pins)))
        if moved:
            return Outcome(name, passed=False, detail=f"installing loopnb moves {', '.join(moved)}")
        wanted = ["--requirement", str(host.pins), "--editable", ".[kernel]", "--group", "kernels"]
        executable = venv_of(python, folder / "tested", *wanted)
    except (NotReadyError, subprocess.CalledProcessError) as error:
        return Outcome(name, passed=False, detail=str(error))
    env = {key: value for key, value in os.environ.items() if key != "CI"}  # as in `test_kernel`
    # Old packages in the process of the tests, not in the kernel, use what later Pythons deprecate.
    options = ["-W", "ignore::DeprecationWarning", "-W", "ignore::PendingDeprecationWarning"]
    environment = Environment(name, host.label(python.version), IN_KERNELS)
    tests = reach.DIFFERING if IS_CI else ("tests/kernel",)
    command = [str(executable)]
    return run_pytest(environment, command, [*options, *tests], str(ROOT), env, is_whole=not IS_CI)


def test_libraries(python: pythons.Python) -> Outcome:
    """Run the tests with other people's packages that take minutes to install."""
    name = f"other people's packages ({python.version})"
    wanted = ["--editable", ".[kernel]", "--group", "kernels", "--group", "large-libraries"]
    try:
        executable = venv_of(python, BUILD / "libraries", *wanted)
    except NotReadyError as error:
        return Outcome(name, passed=False, detail=str(error))
    packages = "openai-agents, pydantic-ai, Telethon, async-kernel"
    title = f"Other people's packages: {packages}; CPython {python.version}"
    environment = Environment(name, title, IN_KERNELS)
    arguments = ["-m", "slow", "tests/libraries"]  # `make test` runs the others
    return run_pytest(environment, [str(executable)], arguments, str(ROOT), dict(os.environ))


def test_classic(python: pythons.Python) -> Outcome:
    """Run the test of the widget in the classic Notebook, in a real Chromium."""
    name = f"classic Notebook ({python.version})"
    pins = ROOT / "tests" / "reach" / "classic" / "packages.txt"
    if browser.ensure() is None:
        return Outcome(name, passed=False, detail="there is no Chromium")
    try:
        executable = venv_of(python, BUILD / "classic", "--requirement", str(pins), "--editable", ".[kernel]")
    except NotReadyError as error:
        return Outcome(name, passed=False, detail=str(error))
    versions = reach.pinned(pins)
    packages = ", ".join(f"{package} {versions[package]}" for package in ("ipywidgets", "anywidget"))
    title = f"Classic Notebook {versions['notebook']}: {packages}, CPython {python.version}"
    environment = Environment(name, title, "the widget in Chromium")
    arguments = ["-m", "classic", "-o", "faulthandler_timeout=0", "tests/browser/test_classic.py"]
    env = os.environ | {"CLASSIC_PYTHON": str(executable)}
    return run_pytest(environment, [sys.executable], arguments, str(ROOT), env)


def test_jupyterlite() -> Outcome:
    """Run the tests in JupyterLite's kernel, with Pyodide and Node from npm."""
    folder = BUILD / "jupyterlite"
    try:
        jupyterlite.install(folder)
    except jupyterlite.MissingError as error:
        return Outcome("JupyterLite", passed=False, detail=str(error))
    env = os.environ | {"JUPYTERLITE_FOLDER": str(folder)}
    arguments = ["-m", "jupyterlite", "tests/reach", "tests/browser/test_jupyterlite.py"]
    ran = "its kernel in Node, its site in Chromium"
    environment = Environment("JupyterLite", jupyterlite.title(), ran)
    return run_pytest(environment, [sys.executable], arguments, str(ROOT), env)


def test_stress(name: str, *arguments: str) -> Outcome:
    """Run the stress with *arguments*; its report says how to repeat it."""
    print(f"\n== {name}", flush=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.stress", *arguments]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    print(ran.stdout, flush=True)
    left_out = [line for line in ran.stdout.splitlines() if line.startswith("LEFT OUT")]
    repeat = ran.stdout.strip().rsplit("\n", maxsplit=1)[-1]
    return Outcome(name, ran.returncode == 0, time.monotonic() - began, repeat, left_out)


def test_in_sid(version: tuple[int, int]) -> Outcome:
    """Run the engine's tests on one of the Pythons in a Debian sid.

    Args:
        version: One of `sid.VERSIONS`.

    Raises:
        sid.NoSidError: No Debian sid can be made here.
    """
    folder = BUILD / "sid"
    sid.make(folder)
    command = sid.command_of(version)
    python = pythons.ask(sid.enter(folder, ROOT, command))
    if python is None:
        raise sid.NoSidError(f"{command} does not start in it")
    name = f"{python.version} (Debian sid)"
    packages = BUILD / f"{python.version}-sid"
    packages_there = f"/loopnb/{packages.relative_to(ROOT).as_posix()}"
    inside = "cd /loopnb && PYTHONPATH=$0 PYTHONDONTWRITEBYTECODE=1 exec " + command + ' "$@"'
    try:
        packages_for(python, packages)
    except NotReadyError as error:
        return Outcome(name, passed=False, detail=str(error))
    command_there = sid.enter(folder, ROOT, "sh", "-c", inside, packages_there)
    return test_engine(python, "Debian sid", command_there, "/loopnb")


def main() -> int:
    """Run all parts, whether the earlier ones passed or not."""
    BUILD.mkdir(parents=True, exist_ok=True)
    hosts = reach.hosts()
    parts = (os.environ.get("PARTS") or " ".join(PARTS)).split()
    if not set(parts) <= {*PARTS, *hosts}:
        print(f"PARTS is {' '.join(parts)!r}; it takes some of {', '.join([*PARTS, *hosts])}.")
        return 2
    found = pythons.find()
    outcomes = [test_here(python) for python in found] if "pythons" in parts else []
    not_run = []
    installed = {python.minor for python in found}
    for version in sid.VERSIONS if "pythons" in parts else []:
        if version in installed:
            continue
        try:
            outcomes.append(test_in_sid(version))
        except sid.NoSidError as error:
            not_run.append(f"{version[0]}.{version[1]}: none is installed, and Debian sid is no way: {error}")
    own = pythons.ask([sys.executable])
    if own is None:
        left_out = [part for part in ("kernels", "libraries", "classic") if part in parts]
        not_run += [f"{part}: this Python is not one that loopnb supports" for part in left_out]
    else:
        outcomes += [test_kernel(own, version) for version in KERNELS if "kernels" in parts]
        outcomes += [test_libraries(own)] if "libraries" in parts else []
        outcomes += [test_classic(own)] if "classic" in parts else []
    for host in hosts.values():
        python = host.python(found)
        if not {"reach", host.name} & set(parts):
            continue
        if python is None:
            not_run.append(f"{host.name}: no Python here is one that loopnb supports")
        else:
            outcomes.append(test_host(host, python))
    if "jupyterlite" in parts:
        outcomes.append(test_jupyterlite())
    if "stress" in parts:
        outcomes.append(test_stress("stress, a sample", "--quick"))
        outcomes.append(test_stress("stress, all signal handlers", "handlers"))
    return steps.sum_up(outcomes, not_run)


if __name__ == "__main__":
    sys.exit(main())
