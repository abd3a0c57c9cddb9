"""Find a Chromium for the tests, on PATH or among Playwright's own, or install one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import debian
from playwright.sync_api import sync_playwright

# The same names as in tests/browser/conftest.py.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Return the path of an installed Chromium, or None."""
    on_path = next(filter(None, map(shutil.which, NAMES)), None)
    if on_path is not None:
        return on_path
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def install() -> None:
    """Install Debian's Chromium where that is possible, and Playwright's elsewhere."""
    if debian.install(["chromium"], "No Chromium was found for the browser tests"):
        return
    print("Installing Playwright's own Chromium for the browser tests (playwright install chromium)")
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)


def ensure() -> str | None:
    """Return the path of a Chromium, installed now if need be. Return None if that failed."""
    found = find()
    if found is None:
        install()
        found = find()
    return found
