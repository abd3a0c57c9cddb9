"""A Debian sid in a folder, for the newest CPython where none is installed.

Debian only, and as root: debootstrap unpacks packages as their owners, and chroot needs it too. All
mounts are made in a namespace of the command's own, so none can be left behind, however it ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PYTHON = "python3.14"
#: The test suite holds CPython's own asyncio tests.
_PACKAGES = f"{PYTHON},lib{PYTHON}-testsuite,ca-certificates"

_PRIVATE = ["unshare", "--mount", "--propagation", "private"]
# $0 is the folder, $1 what shall be seen in it as /loopnb.
_ENTER = """
mount -t proc proc "$0/proc" && mount --bind "$1" "$0/loopnb" || exit 125
shift
exec chroot "$0" "$@"
"""


class NoSidError(Exception):
    """Why there can be no Debian sid here."""


def enter(folder: Path, shown: Path, *command: str) -> list[str]:
    """Return the command that runs *command* in *folder*, where *shown* is `/loopnb`."""
    return [*_PRIVATE, "sh", "-c", _ENTER, str(folder), str(shown), *command]


def make(folder: Path) -> None:
    """Unpack Debian sid in *folder*, unless it is there from an earlier time.

    Raises:
        NoSidError: It cannot be done here.
    """
    ready = folder.with_name(f"{folder.name}.ready")
    if ready.exists():
        return
    _check()
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"Unpacking Debian sid with {PYTHON} in {folder}; this takes a minute", flush=True)
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
    ready.touch()


def _check() -> None:
    release = Path("/etc/os-release")
    if not release.exists() or "ID=debian" not in release.read_text(encoding="utf-8").splitlines():
        raise NoSidError("only on Debian can one be made")
    if sys.platform == "win32" or os.geteuid() != 0:
        raise NoSidError("only root can make one")
    if shutil.which("debootstrap") is None:
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in ("update -q", "install -y -q --no-install-recommends debootstrap"):
            subprocess.run(["apt-get", *command.split()], env=env, check=False)
    if shutil.which("debootstrap") is None:
        raise NoSidError("debootstrap is missing, and could not be installed")
