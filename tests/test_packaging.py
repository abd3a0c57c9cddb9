"""Test what the wheel holds and what it requires."""

from __future__ import annotations

import subprocess
import sys
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZipFile]:
    """Build the wheel with the backend that pyproject.toml names, in this environment."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    with ZipFile(built) as archive:
        yield archive


def test_the_wheel_holds_the_package_and_nothing_else(wheel: ZipFile) -> None:
    source = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "loopnb").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert inside == source
    assert {
        "loopnb/py.typed",
        "loopnb/widgets/static/widget.js",
        "loopnb/widgets/static/view.js",
        "loopnb/widgets/static/widget.css",
    } <= inside
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())


def test_the_wheel_asks_for_what_the_code_imports(wheel: ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = message_from_bytes(wheel.read(name))
    required = metadata.get_all("Requires-Dist", [])

    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert {line for line in required if "extra" not in line} == {
        "anywidget>=0.9.13",
        "greenlet>=3.1; sys_platform != 'emscripten'",
        "ipython>=7.34",
        "ipywidgets>=7.7",
        "nest-asyncio2>=1.7; python_version >= '3.12' and sys_platform != 'emscripten'",
        "nest-asyncio>=1.6; python_version < '3.12'",
    }
    assert {line for line in required if "extra" in line} == {"ipykernel!=7.0.*,>=6.17; extra == 'kernel'"}
