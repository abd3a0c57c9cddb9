"""Install Debian packages where that is possible: on Debian, as root or with sudo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def install(packages: list[str], missing: str) -> bool:
    """Install *packages*. Print first what is missing and which command runs.

    Args:
        packages: The names of the packages.
        missing: What was not found, and which tests need it.

    Returns:
        True if they are installed now. False if that is impossible here, or failed.
    """
    prefix = _root_prefix()
    if not is_debian() or prefix is None:
        return False
    names = " ".join(packages)
    print(f"{missing}: installing Debian's (apt-get install {names})", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    update = [*prefix, "apt-get", "update", "-q"]
    add = [*prefix, "apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    if all(subprocess.run(command, env=env, check=False).returncode == 0 for command in (update, add)):
        return True
    print("That did not work.", flush=True)
    return False


def is_debian() -> bool:
    """Return True on Debian itself.

    Ubuntu does not count: its package `chromium` only fetches a snap, which containers and CI machines
    cannot run.
    """
    release = Path("/etc/os-release")
    return release.exists() and "ID=debian" in release.read_text(encoding="utf-8").splitlines()


def _root_prefix() -> list[str] | None:
    """Return what to put before a command that needs root, or None if root is out of reach."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        return None
    # Without a terminal nobody can type a password, so sudo must not ask for one.
    return ["sudo"] if sys.stdin.isatty() else ["sudo", "-n"]
