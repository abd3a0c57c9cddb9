"""Find PostgreSQL and Redis for the tests of their clients, or install them."""

from __future__ import annotations

import subprocess
import sys

import debian
from steps import ROOT

_ASK = "from tests.kernel import servers; print(*servers.missing())"


def missing() -> list[str]:
    """Return the Debian packages of the servers that the tests do not find."""
    asked = subprocess.run([sys.executable, "-c", _ASK], cwd=ROOT, capture_output=True, text=True, check=True)
    return asked.stdout.split()


def ensure() -> list[str]:
    """Install the servers that are missing. Return those that are missing after that.

    Their tests skip themselves, so that the summary names each of them.
    """
    lacking = missing()
    if not lacking:
        return []
    debian.install(lacking, f"No {' and no '.join(lacking)} was found for the tests of clients")
    return missing()
