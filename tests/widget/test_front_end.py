"""Runs the front end's own tests, and looks at the files that are shipped."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from loopnb.widget.model import STATIC
from tests.node import find_node

HERE = Path(__file__).parent


def test_the_pure_part_of_the_front_end() -> None:
    node = find_node()
    if node is None:
        pytest.skip(
            "neither Playwright nor Node is installed: the front end's pure functions were not tested"
        )
    command = [node, "--test", "widget.test.mjs"]
    ran = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=50, check=False)

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_names_from_user_code_never_become_html() -> None:
    source = (STATIC / "widget.js").read_text(encoding="utf-8")

    assert not re.search(r"innerHTML\s*[+=]|outerHTML|insertAdjacentHTML|document\.write|\beval\b", source)


def test_nothing_is_fetched_from_elsewhere() -> None:
    for path in STATIC.iterdir():
        assert not re.search(r"https?://|@import|url\(|^import ", path.read_text(encoding="utf-8"), re.M), (
            path
        )


def test_every_selector_is_our_own() -> None:
    css = re.sub(r"/\*.*?\*/", "", (STATIC / "widget.css").read_text(encoding="utf-8"), flags=re.S)
    selectors = [part.strip() for group in re.findall(r"([^{}]+)\{", css) for part in group.split(",")]

    assert selectors
    assert [selector for selector in selectors if not selector.startswith(".loopnb-")] == []
