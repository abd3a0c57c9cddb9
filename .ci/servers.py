"""PostgreSQL and Redis for the tests of their clients: those that are there, or installed now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import debian

ROOT = Path(__file__).parent.parent
_ASK = "from tests.kernel import servers; print(*servers.missing())"


def missing() -> list[str]:
    """Return the Debian packages whose servers are not there, as the tests see it."""
    asked = subprocess.run([sys.executable, "-c", _ASK], cwd=ROOT, capture_output=True, text=True, check=True)
    return asked.stdout.split()


def ensure() -> list[str]:
    """Install the servers that are not there; return those that could not be had.

    Their tests skip themselves, so that each is named in the end.
    """
    lacking = missing()
    if not lacking:
        return []
    debian.install(lacking, f"No {' and no '.join(lacking)} was found for the tests of clients")
    return missing()
