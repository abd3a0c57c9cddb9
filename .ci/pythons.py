"""Find every CPython on this machine that loopnb supports, on PATH and among pyenv's versions."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

SUPPORTED = [(3, 11), (3, 12), (3, 13), (3, 14), (3, 15)]

_DESCRIBE = """
import importlib.util, json, os, platform, sys
has_tests = importlib.util.find_spec("test") and importlib.util.find_spec("test.test_asyncio")
print(json.dumps({
    "path": os.path.realpath(sys.executable),
    "version": platform.python_version(),
    "minor": sys.version_info[:2],
    "implementation": platform.python_implementation(),
    "has_asyncio_tests": bool(has_tests),
}))
"""


@dataclass(frozen=True)
class Python:
    """One interpreter.

    Attributes:
        path: The path of the executable, with all links resolved.
        version: The full version, such as "3.13.0".
        has_asyncio_tests: CPython's own asyncio tests are installed with it.
    """

    path: str
    version: str
    has_asyncio_tests: bool

    @property
    def minor(self) -> tuple[int, int]:
        """The first two numbers of the version."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)


def _pyenv_versions() -> Path:
    try:
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        root = os.environ.get("PYENV_ROOT") or str(Path.home() / ".pyenv")
    return Path(root) / "versions"


def _candidates() -> list[Path]:
    folders = [Path(folder) for folder in os.get_exec_path() if folder]
    folders += sorted(_pyenv_versions().glob("*/bin"))
    names = [f"python{major}.{minor}" for major, minor in SUPPORTED]
    return [folder / name for folder in folders for name in names if os.access(folder / name, os.X_OK)]


def ask(command: list[str]) -> Python | None:
    """Describe the interpreter that *command* starts.

    Return None if it does not start, or is not a CPython that loopnb supports.
    """
    try:
        ran = subprocess.run([*command, "-I", "-c", _DESCRIBE], capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # for instance one of pyenv's shims, whose version is not selected
    said = json.loads(ran.stdout)
    if said["implementation"] != "CPython" or tuple(said["minor"]) not in SUPPORTED:
        return None
    return Python(said["path"], said["version"], said["has_asyncio_tests"])


def find() -> list[Python]:
    """Return each supported CPython once, oldest version first."""
    found = {python.path: python for path in _candidates() if (python := ask([str(path)])) is not None}
    return sorted(found.values(), key=lambda python: (python.minor, python.path))
