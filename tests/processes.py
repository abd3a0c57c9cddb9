"""What tests of other processes share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


class WaitTimedOutError(TimeoutError):
    """Raised when what a test waits for did not come; the text tells what came instead."""


def run_script(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run *script* in a Python of its own, which may end as it likes, and return what it printed."""
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
