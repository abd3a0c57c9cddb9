"""Installs Debian packages where that can be done: on Debian, as root or by sudo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def install(packages: list[str], missing: str) -> bool:
    """Install *packages*, after saying so.

    Args:
        packages: Their names.
        missing: What was not found, and whose tests need it.

    Returns:
        False if it cannot be done here, or did not work.
    """
    prefix = _as_root()
    if not _is_debian() or prefix is None:
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


def _is_debian() -> bool:
    # Ubuntu's Chromium only fetches a snap, which containers and CI machines cannot run.
    release = Path("/etc/os-release")
    return release.exists() and "ID=debian" in release.read_text(encoding="utf-8").splitlines()


def _as_root() -> list[str] | None:
    """Return what to put before a command that needs root; None if there is nothing."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        return None
    # Without a terminal nobody can type a password: then sudo must not ask.
    return ["sudo"] if sys.stdin.isatty() else ["sudo", "-n"]
