"""Finds a Node for tests of JavaScript, which needs none to be installed: Playwright brings one."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path


def find_node() -> str | None:
    """Return the path of Playwright's Node, or else of one that is installed; None if there is neither."""
    spec = find_spec("playwright")
    if spec is not None and spec.origin is not None:
        driver = Path(spec.origin).parent / "driver" / ("node.exe" if os.name == "nt" else "node")
        if driver.exists():
            return str(driver)
    return shutil.which("node")
