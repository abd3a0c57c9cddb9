"""The hosts that people have: what is installed there, and whether loopnb would move any of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pythons
from steps import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]

#: The tests that depend most on the versions of IPython and ipykernel: where cells begin and end, and their
#: numbers, magics, output, messages, widgets, interrupts, tracebacks of tasks, loading and the kernel's end.
#: With the packages of Colab they take half as long as all.
DIFFERING = tuple(
    f"tests/kernel/test_{name}.py"
    for name in (
        "aloop",
        "awkward_ends",
        "blocks",
        "colab",
        "comms",
        "configuration",
        "contexts",
        "input",
        "interrupts",
        "loading",
        "nested_cells",
        "output",
        "reruns",
        "shutdown",
        "signals",
        "tasks",
        "timers",
    )
)

# What the README names of a host's packages.
_TELLING = ("ipython", "ipykernel", "ipywidgets")

_FIRST_LINE = re.compile(r"# Python (\d+)\.(\d+): (.+)")


@dataclass(frozen=True)
class Host:
    """One of the files in `tests/reach`.

    Attributes:
        name: The name of the file, without its suffix.
        title: What to call the host.
        minor: The Python that it has.
        pins: The file, which `pip install -r` and `-c` take.
    """

    name: str
    title: str
    minor: tuple[int, int]
    pins: Path

    def python(self, found: list[pythons.Python]) -> pythons.Python | None:
        """Return the one of *found* to use: the host's own version, or else that of this interpreter."""
        own = [python for python in found if python.minor == self.minor]
        return own[0] if own else pythons.ask([sys.executable])

    def label(self, python: str | None = None) -> str:
        """Return what the README calls the host, with the version of *python*; None means the host's own."""
        versions = pinned(self.pins)
        packages = [f"{package} {versions[package]}" for package in _TELLING if package in versions]
        python = python or ".".join(map(str, self.minor))
        return f"{self.title}: CPython {python}, {', '.join(packages)}"

    def moved(self, executable: Path) -> list[str]:
        """Return what `pip install loopnb` would change of what is installed, each as `name: old to new`.

        Args:
            executable: An interpreter in whose environment the host's packages are installed.

        Raises:
            subprocess.CalledProcessError: pip cannot install loopnb there at all.
        """
        pip = [*PIP, "--python", str(executable)]
        aloud = [word for word in pip if word != "--quiet"]  # quiet, it lists nothing
        listed = json.loads(_output_of([*aloud, "list", "--format", "json"]))
        before = {_normal(package["name"]): package["version"] for package in listed}
        report = json.loads(_output_of([*pip, "install", "--dry-run", "--report", "-", f"{ROOT}[kernel]"]))
        after = {
            _normal(package["metadata"]["name"]): package["metadata"]["version"]
            for package in report["install"]
        }
        return [f"{name}: {before[name]} to {version}" for name, version in after.items() if name in before]


def hosts() -> dict[str, Host]:
    """Return the hosts by their names."""
    return {path.stem: _read(path) for path in sorted((ROOT / "tests" / "reach").glob("*.txt"))}


def pinned(path: Path) -> dict[str, str]:
    """Return the versions that a file of pins names."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def _read(path: Path) -> Host:
    found = _FIRST_LINE.match(path.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{path} must begin with a line '# Python 3.12: what host'")
    major, minor, title = found.groups()
    return Host(path.stem, title, (int(major), int(minor)), path)


def _output_of(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
