"""What cells wait for until a test lets them go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Gate:
    """What cells wait for until the test lets them go on, however long it takes.

    In a cell that has imported `os` it is an expression: true as soon as the gate is open.

    Args:
        path: A file that does not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return f"os.path.exists({str(self._path)!r})"

    def open(self) -> None:
        """Let the cells go on."""
        self._path.touch()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate that is open after the test, so that no cell blocks the kernel of the next one."""
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()
