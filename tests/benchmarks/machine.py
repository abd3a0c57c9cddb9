"""Describe what the figures were measured on: machine, Python, packages."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def describe(distributions: list[str]) -> dict[str, str]:
    """Return the facts to name beside the figures, including the versions of *distributions*."""
    described = {
        "machine": f"{_cpu()}, {os.cpu_count()} cores",
        "system": platform.system(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for distribution in dict.fromkeys(distributions):
        described[distribution] = metadata.version(distribution)
    return described


def sentence(described: dict[str, str]) -> str:
    """Put *described* in one line."""
    versions = [
        f"{key} {value}" for key, value in described.items() if key not in ("machine", "system", "python")
    ]
    return f"{described['python']} on {described['machine']} ({described['system']}); {', '.join(versions)}"
