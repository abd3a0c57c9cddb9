"""The README's table "What it changes" names each patch, and nothing that is not there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "loopnb").rglob("*.py"))
SECTION = (
    (ROOT / "README.md").read_text(encoding="utf-8").partition("## What it changes")[2].partition("\n## ")[0]
)
ROWS = [line.split(" | ")[0] for line in SECTION.splitlines() if line.startswith("| ")][1:]
#: The last part of each name between backquotes: `run` of `asyncio.Runner.run`.
NAMED = {name.rpartition(".")[2] for row in ROWS for name in re.findall(r"`([\w.]+)`", row)}

#: What makes a patch, and which of its arguments names what is patched.
NAME_ARGUMENT = {"Patch": 1, "MethodWrapper": 1, "_replaced": 1, "wrapper_aside": 1, "CodePatch": 0}
#: Calls in which that is a variable, and the names that it takes.
VARIABLES = {
    ("kernel/messages.py", "function"): ("shell_main", "schedule_dispatch"),
    ("magics/timers.py", "awaits"): (),  # another function with the name `_replaced`
    ("nesting/other_loops.py", "name"): ("run_until_complete", "run_forever"),
    ("nesting/patches.py", "*changed"): ("run_until_complete", "run_forever"),
    ("nesting/patches.py", "function"): ("run", "apply"),
    ("nesting/patches.py", "name"): ("run_until_complete", "run_forever"),
    ("shell/_ipython.py", "name"): ("format_exception", "_format_exception_only"),
    ("shell/all_tasks.py", "stock"): ("all_tasks",),
}


def patches_in(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the line of each call in a module that makes a patch, and the names that it patches."""
    module = path.relative_to(ROOT / "loopnb").as_posix()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in NAME_ARGUMENT:
                argument = node.args[-1 if isinstance(node.args[0], ast.Starred) else NAME_ARGUMENT[name]]
            case _:
                continue
        match argument:
            case ast.Constant(value=str(patched)) | ast.Attribute(attr=patched):
                names: tuple[str, ...] = (patched,)
            case _:
                names = VARIABLES[module, ast.unparse(argument)]
        yield f"{module}:{node.lineno}", names


#: `patching.py` makes patches of what others name.
PATCHES = [found for path in MODULES if path.name != "patching.py" for found in patches_in(path)]
PARTS = {part for path in MODULES for part in re.findall(r"\w+", path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize(("line", "names"), PATCHES)
def test_the_table_names_each_patch(line: str, names: tuple[str, ...]) -> None:
    assert NAMED.issuperset(names), f"{line} patches what no row of the README's table names"


def test_the_table_names_nothing_that_is_not_there() -> None:
    assert NAMED <= PARTS
