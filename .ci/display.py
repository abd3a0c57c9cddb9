"""Find what tests of GUI toolkits need: an X server that draws into memory, Python's Tk, libraries of Qt."""

from __future__ import annotations

import ctypes.util
import importlib.util
import shutil
import sys

import debian

#: Libraries that wheels of Qt expect to find, and Debian's packages of them.
_QT = {"GL": "libgl1", "fontconfig": "libfontconfig1", "gthread-2.0": "libglib2.0-0"}


def ensure() -> str | None:
    """Install what is missing, where that is possible. Return what is missing after that, or None."""
    if sys.platform == "win32" or (wanted := _missing()) is None:
        return None
    # Only Debian's own Python can get Tk from a package. Any other was built with Tk or without.
    packages = ["xvfb", *_QT.values(), *(["python3-tk"] if sys.base_prefix == "/usr" else [])]
    debian.install(packages, f"No {wanted} was found for the tests of GUI toolkits")
    return _missing()


def _missing() -> str | None:
    if shutil.which("Xvfb") is None:
        return "Xvfb"
    if sys.platform == "linux":
        for name in _QT:
            if ctypes.util.find_library(name) is None:
                return f"lib{name}"
    return "tkinter" if importlib.util.find_spec("_tkinter") is None else None
