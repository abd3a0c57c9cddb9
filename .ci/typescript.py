"""Find the TypeScript compiler, which checks the types of the widget's JavaScript, or install it from npm."""

from __future__ import annotations

import shutil
import subprocess

import debian
from steps import ROOT

WANTED = ROOT / "tests" / "widget" / "package.json"
FOLDER = ROOT / "build" / "typescript"

#: What the checker is called with. `tsconfig.json` says the rest.
OPTIONS = ["-p", str(WANTED.with_name("tsconfig.json"))]


def ensure() -> str | None:
    """Return the path of a compiler of the version in `package.json`, installed now if need be.

    Return None if that failed.
    """
    wanted, installed = WANTED.read_text(encoding="utf-8"), FOLDER / "package.json"
    compiler = FOLDER / "node_modules" / ".bin" / "tsc"
    if compiler.exists() and installed.read_text(encoding="utf-8") == wanted:
        return str(compiler)
    if shutil.which("npm") is None:
        debian.install(["npm"], "No npm was found to install TypeScript")
    npm = shutil.which("npm")
    if npm is None:
        return None
    FOLDER.mkdir(parents=True, exist_ok=True)
    shutil.copy(WANTED, installed)
    subprocess.run([npm, "install", "--no-audit", "--no-fund", "--silent", "--prefix", FOLDER], check=False)
    return str(compiler) if compiler.exists() else None
