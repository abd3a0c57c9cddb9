"""A Chromium for the tests: the one on PATH, Playwright's own, or one that is installed now."""

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
    """Return the path of a Chromium that is there."""
    on_path = next(filter(None, map(shutil.which, NAMES)), None)
    if on_path is not None:
        return on_path
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def install() -> None:
    """Install one: Debian's where that can be done, else Playwright's."""
    if debian.install(["chromium"], "No Chromium was found for the browser tests"):
        return
    print("Installing Playwright's own Chromium for the browser tests (playwright install chromium)")
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)


def ensure() -> str | None:
    """Return the path of a Chromium, installing one if there is none; None if that failed."""
    found = find()
    if found is None:
        install()
        found = find()
    return found
