"""Kernels forked from a process that has imported what every kernel imports, which is most of a start.

Such a kernel is a child of this process. It has the command line, folder, environment and standard streams
that it would have if it had been started alone. It has the seed of its hashes in common with other kernels.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import runpy
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

#: The number of an option of Linux: orphans below this process become its children.
_PR_SET_CHILD_SUBREAPER = 36


class Adopted(subprocess.Popen[bytes]):
    """A child of this process that it has not started itself.

    Args:
        args: Its command line.
        pid: Its number.
    """

    def __init__(self, args: list[str], pid: int) -> None:
        self.args = args
        self.pid = pid
        self.returncode: Any = None  # until it has been waited for
        self.stdin = self.stdout = self.stderr = None
        # What the inherited methods ask for.
        self._waitpid_lock = threading.Lock()
        self._child_created = True
        self._sigint_wait_secs = 0.25


class Zygote:
    """The process that forks kernels. It begins with the first one. Linux only."""

    #: Whether there can be one here.
    is_possible = sys.platform == "linux"

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def start(
        self, arguments: Sequence[str], *, folder: Path, env: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a kernel; it leads a session of its own.

        Args:
            arguments: Those of `ipykernel_launcher`.
            folder: Its working directory.
            env: All of its environment.
            log: Where its standard output and standard error go.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=dict(env),  # packages read some of it when they are imported
                start_new_session=True,
            )
        asked = {"arguments": [*arguments], "folder": str(folder), "env": {**env}, "log": str(log)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with _adopting():
            print(json.dumps(asked), file=self._process.stdin, flush=True)
            pid = int(self._process.stdout.readline())
            assert self._process.stdout.readline() == "adopted\n"
        return Adopted([sys.executable, "-m", "ipykernel_launcher", *arguments], pid)

    def close(self) -> None:
        """End it. The kernels go on."""
        if self._process is not None:
            self._process.communicate()
            self._process = None


@contextmanager
def _adopting() -> Iterator[None]:
    """Become the parent of processes whose parent ends meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1) == 0
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0)


def _wait_asked() -> dict[str, Any] | None:
    """Fork for each request, in the zygote. Return the request in the kernel to be, and None at the end."""
    while line := sys.stdin.readline():
        between = os.fork()
        if between == 0:
            kernel = os.fork()
            if kernel == 0:
                asked: dict[str, Any] = json.loads(line)
                return asked
            os.write(1, f"{kernel}\n".encode())
            os._exit(0)  # which makes it an orphan
        os.waitpid(between, 0)
        os.write(1, b"adopted\n")
    return None


def _become_kernel(arguments: list[str], folder: str, env: dict[str, str], log: str) -> None:
    """Set up what `subprocess.Popen` would, and run what `python -m ipykernel_launcher` runs."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    os.closerange(3, 64)
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, log, os.O_WRONLY | os.O_APPEND),
        (2, log, os.O_WRONLY | os.O_APPEND),
    ):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.path[0] = folder
    sys.argv = ["-m", *arguments]
    runpy._run_module_as_main("ipykernel_launcher")  # type: ignore[attr-defined]  # what `-m` calls


def main() -> None:
    """Import what every kernel imports, and fork until standard input ends."""
    for name in ("ipykernel.kernelapp", "ipykernel.debugger", "IPython.core.completerlib"):
        importlib.import_module(name)
    asked = _wait_asked()
    if asked is not None:
        _become_kernel(**asked)


if __name__ == "__main__":
    main()
