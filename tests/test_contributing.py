"""CONTRIBUTING names modules and functions that exist, and its walks are short."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
WALKS = TEXT.partition("## Four walks")[2].partition("\n## ")[0].split("\n**")[1:]
STEPS = [step for walk in WALKS for step in re.findall(r"^\d+\. `([\w./]+): ([\w.]+)`", walk, re.MULTILINE)]


def names_in(path: Path) -> set[str]:
    """Return the qualified names of a module's functions and classes."""
    found: set[str] = set()

    def look(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                found.add(name)
                name += "."
            look(child, name)

    look(ast.parse(path.read_text(encoding="utf-8")), "")
    return found


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: str(walk).partition("\n")[0])
def test_a_walk_has_at_most_eight_stops(walk: str) -> None:
    assert 0 < len(re.findall(r"^\d+\. ", walk, re.MULTILINE)) <= 8


def test_there_are_four_walks() -> None:
    assert len(WALKS) == 4


@pytest.mark.parametrize(("module", "function"), STEPS)
def test_each_stop_exists(module: str, function: str) -> None:
    path = ROOT / "loopnb" / module

    if path.suffix == ".py":
        assert function in names_in(path)
    else:
        assert f"function {function}(" in path.read_text(encoding="utf-8")


def test_each_row_of_the_map_exists() -> None:
    table = TEXT.partition("## The map")[2].partition("\n`tests/`")[0]
    named = re.findall(r"^\| \d+ \| (.*?) \|", table, re.MULTILINE)
    parts = {part for row in named for part in re.findall(r"`([^`]+)`", row)}

    there = {path.name + "/" * path.is_dir() for path in (ROOT / "loopnb").iterdir()}
    assert parts == {name for name in there if not name.startswith("_") and name != "py.typed"}
