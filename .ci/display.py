"""Find what the tests of GUI toolkits need: an X server that draws into memory, and Python's Tk."""

from __future__ import annotations

import importlib.util
import shutil
import sys

import debian


def ensure() -> str | None:
    """Install what is missing, where that is possible. Return what is missing after that, or None."""
    if sys.platform == "win32" or (wanted := _missing()) is None:
        return None
    # Only Debian's own Python can get Tk from a package. Any other was built with Tk or without.
    packages = ["xvfb", *(["python3-tk"] if sys.base_prefix == "/usr" else [])]
    debian.install(packages, f"No {wanted} was found for the tests of GUI toolkits")
    return _missing()


def _missing() -> str | None:
    if shutil.which("Xvfb") is None:
        return "Xvfb"
    return "tkinter" if importlib.util.find_spec("_tkinter") is None else None
