"""Packages that make asyncio re-entrant, by distribution: two of them are imported by one name."""

from __future__ import annotations

import shutil
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: By distribution, the name that it is imported by.
PEERS = {
    "nest-asyncio": "nest_asyncio",
    "anest-asyncio": "nest_asyncio",
    "nest-asyncio2": "nest_asyncio2",
    "reloop": "reloop",
}


def is_installed(distribution: str) -> bool:
    """Return True if that distribution is installed."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def isolate(distribution: str, folder: Path) -> None:
    """Make an import find that distribution, once *folder* comes first in `sys.path`.

    The module of nest-asyncio and the package of anest-asyncio may both be installed. Then an import finds
    the package.
    """
    if distribution == "nest-asyncio":
        found = metadata.distribution(distribution).locate_file("nest_asyncio.py")
        shutil.copy(str(found), folder)
