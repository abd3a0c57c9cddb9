"""Unpack a Debian sid in a folder, to get the newest CPythons where they are not installed.

This works on Debian only, and only as root: debootstrap changes the owners of files, and chroot needs root
too. Each command mounts in a namespace of its own, so no mount stays behind, however the command ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import debian

if TYPE_CHECKING:
    from pathlib import Path

#: The versions that Debian sid has, oldest first.
VERSIONS = [(3, 14), (3, 15)]


def command_of(version: tuple[int, int]) -> str:
    """Return the command that starts the Python of this version, such as `python3.15`."""
    return f"python{version[0]}.{version[1]}"


_PYTHONS = [command_of(version) for version in VERSIONS]
#: The packages of the test suites hold CPython's own asyncio tests.
_PACKAGES = ",".join([*_PYTHONS, *(f"lib{python}-testsuite" for python in _PYTHONS), "ca-certificates"])

_PRIVATE = ["unshare", "--mount", "--propagation", "private"]
# $0 is the folder. $1 is the repository, which appears in the folder as /loopnb.
_ENTER = """
mount -t proc proc "$0/proc" && mount --bind "$1" "$0/loopnb" || exit 125
shift
exec chroot "$0" "$@"
"""


class NoSidError(Exception):
    """Raised when no Debian sid can be made here. The text says why."""


def enter(folder: Path, repository: Path, *command: str) -> list[str]:
    """Return a command that runs *command* in the sid in *folder*. It sees *repository* as `/loopnb`."""
    return [*_PRIVATE, "sh", "-c", _ENTER, str(folder), str(repository), *command]


def make(folder: Path) -> None:
    """Unpack Debian sid in *folder*. Do nothing if an earlier run has done it, with the same packages.

    Raises:
        NoSidError: That is impossible here, or failed.
    """
    ready = folder.with_name(f"{folder.name}.ready")
    if ready.exists() and ready.read_text() == _PACKAGES:
        return
    _check()
    ready.unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"Unpacking Debian sid with {' and '.join(_PYTHONS)} in {folder}; this takes a minute", flush=True)
    command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "sid", str(folder)]
    ran = subprocess.run(
        [*_PRIVATE, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        print(ran.stdout[-3000:])
        raise NoSidError("debootstrap failed")
    (folder / "loopnb").mkdir(exist_ok=True)
    ready.write_text(_PACKAGES)


def _check() -> None:
    if not debian.is_debian():
        raise NoSidError("only on Debian can one be made")
    if os.geteuid() != 0:
        raise NoSidError("only root can make one")
    if shutil.which("debootstrap") is None:
        debian.install(["debootstrap"], "No debootstrap was found for making a Debian sid")
    if shutil.which("debootstrap") is None:
        raise NoSidError("debootstrap is missing, and could not be installed")
