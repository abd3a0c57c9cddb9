"""Install what the tests of JupyterLite need: Pyodide and Node from npm, packages from PyPI, and a site."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import browser
from reach import PIP, pinned
from steps import ROOT

if TYPE_CHECKING:
    from pathlib import Path

WANTED = ROOT / "tests" / "reach" / "jupyterlite"
#: The Python of Pyodide.
_PYTHON = "3.14"
#: Wheels of compiled code are for other machines than WebAssembly.
_PURE = [
    f"--python-version={_PYTHON}",
    "--platform=any",
    "--implementation=py",
    "--abi=none",
    "--only-binary=:all:",
]
#: What of Pyodide a site serves.
_PYODIDE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip")


class MissingError(Exception):
    """Raised when something cannot be installed. The text says what."""


def install(folder: Path) -> None:
    """Install into *folder* what no earlier run has installed, and build a site with loopnb.

    Raises:
        MissingError: npm or a Chromium is missing, or a command failed.
    """
    if browser.ensure() is None:
        raise MissingError("there is no Chromium")
    names = ("package.json", "packages.txt", "site.txt")
    wanted = "".join((WANTED / name).read_text(encoding="utf-8") for name in names)
    stamp = folder / "stamp"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _install_node(folder)
        _install_packages(folder)
        _run(sys.executable, "-m", "venv", "--without-pip", str(folder / "lite"))
        lite = str(folder / "lite" / "bin" / "python")
        _run(*PIP, "--python", lite, "install", "--requirement", str(WANTED / "site.txt"))
        stamp.write_text(wanted, encoding="utf-8")
    _build_site(folder)


def title() -> str:
    """Return what the README calls what is installed."""
    kernel = pinned(WANTED / "packages.txt")["jupyterlite-pyodide-kernel"]
    pyodide = json.loads((WANTED / "package.json").read_text(encoding="utf-8"))["dependencies"]["pyodide"]
    return f"JupyterLite: Pyodide kernel {kernel}, Pyodide {pyodide}, CPython {_PYTHON}"


def _install_node(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise MissingError("npm is missing (on Debian: apt-get install npm)")
    shutil.copy(WANTED / "package.json", folder)
    _run(npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder))
    if not (folder / "node_modules" / "node" / "bin" / "node").exists():
        raise MissingError("npm has not run the script by which the package `node` installs Node")


def _install_packages(folder: Path) -> None:
    """Download the wheels, and unpack them for Node."""
    wheels, packages = folder / "wheels", folder / "packages"
    listed = ["--no-deps", *_PURE, "--requirement", str(WANTED / "packages.txt")]
    _run(*PIP, "download", "--dest", str(wheels), *listed)
    _run(*PIP, "install", "--no-index", "--find-links", str(wheels), "--target", str(packages), *listed)
    for wheel in packages.rglob("pyodide-kernel-extension/static/pypi/*kernel-*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)


def _build_site(folder: Path) -> None:
    """Build a site that gets everything from itself, where `%pip install loopnb` installs this repository."""
    source, wheels, pyodide = folder / "source", folder / "wheels", folder / "node_modules" / "pyodide"
    shutil.rmtree(source, ignore_errors=True)
    shutil.rmtree(folder / "site", ignore_errors=True)
    served = source / "static" / "pyodide"
    served.mkdir(parents=True)
    shutil.copy(WANTED / "jupyter-lite.json", source)
    for name in _PYODIDE:
        shutil.copy(pyodide / name, served)
    (micropip,) = wheels.glob("micropip-*.whl")
    shutil.copy(micropip, served)
    lock = json.loads((pyodide / "pyodide-lock.json").read_text(encoding="utf-8"))
    own = lock["packages"]["micropip"]
    own |= {"file_name": micropip.name, "sha256": hashlib.sha256(micropip.read_bytes()).hexdigest()}
    lock["packages"] = {"micropip": own}  # the others would come from the web
    (served / "pyodide-lock.json").write_text(json.dumps(lock), encoding="utf-8")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels))
    build = [str(folder / "lite" / "bin" / "jupyter-lite"), "build", "--piplite-wheels", str(wheels)]
    # In a new folder: in it the command notes what it need not do again, though the site is new.
    _run(*build, "--lite-dir", str(source), "--output-dir", str(folder / "site"), is_quiet=True, cwd=source)


def _run(*command: str, is_quiet: bool = False, cwd: Path = ROOT) -> None:
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if is_quiet else {}
    ran = subprocess.run(command, cwd=cwd, check=False, **output)
    if ran.returncode != 0:
        said = (ran.stdout or b"").decode(errors="replace")[-2000:]
        raise MissingError(f"{' '.join(command[:5])} ... failed {said}")
