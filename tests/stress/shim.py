"""Build `hold.c`, and ask for a kernel that runs with it to be held."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SOURCE = Path(__file__).with_name("hold.c")


class NoShimError(Exception):
    """Raised when no kernel can be held here. The text says why."""


def build(folder: Path) -> Mapping[str, str]:
    """Compile the shim into *folder*. Return the environment of a kernel that files there hold.

    Raises:
        NoShimError: This is not Linux, or there is no C compiler.
    """
    compiler = shutil.which("cc")
    if not sys.platform.startswith("linux"):
        raise NoShimError("LD_PRELOAD and epoll are Linux's")
    if compiler is None:
        raise NoShimError("there is no C compiler (cc)")
    library = folder / "hold.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE), "-ldl"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise NoShimError(f"cc says {built.stderr.strip()[-200:]!r}")
    return {"LD_PRELOAD": str(library), "HOLD_FOLDER": str(folder)}


def ask(folder: Path, call: str, content: str = "") -> None:
    """Have the next such *call* of the kernel's main thread held."""
    forget(folder)
    unfinished = folder / "unfinished"
    unfinished.write_text(content)
    unfinished.rename(folder / call)


def is_held(folder: Path, timeout: float) -> bool:
    """Wait up to *timeout* seconds until the kernel is held; return False if it is not."""
    end = time.monotonic() + timeout
    while not (folder / "held").exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


def forget(folder: Path) -> None:
    """Take back what was asked, and what is known of earlier holds."""
    for name in ("held", "epoll_wait", "clock_nanosleep", "sem_wait", "sigaction"):
        (folder / name).unlink(missing_ok=True)
