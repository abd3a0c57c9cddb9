"""A Chromium for the tests: the one on PATH, Playwright's own, or one that is installed now."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

# The same names as in tests/browser/conftest.py.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Return the path of a Chromium that is there."""
    on_path = next(filter(None, map(shutil.which, NAMES)), None)
    if on_path is not None:
        return on_path
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def install() -> None:
    """Install one: Debian's where that can be done, else Playwright's."""
    prefix = _as_root()
    if _is_debian() and prefix is not None:
        print("No Chromium was found for the browser tests: installing Debian's (apt-get install chromium)")
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        update = [*prefix, "apt-get", "update", "-q"]
        add = [*prefix, "apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium"]
        if all(subprocess.run(command, env=env, check=False).returncode == 0 for command in (update, add)):
            return
        print("That did not work.")
    print("Installing Playwright's own Chromium for the browser tests (playwright install chromium)")
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)


def _is_debian() -> bool:
    # Ubuntu's package of that name only fetches a snap, which containers and CI machines cannot run.
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


def ensure() -> str | None:
    """Return the path of a Chromium, installing one if there is none; None if that failed."""
    found = find()
    if found is None:
        install()
        found = find()
    return found
