"""The shape of the code: sizes, layers that no linter sees, what an import does, what lies at the top.

And of the tests: how they write cells.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes import run_script

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "tests"
MODULES = sorted((ROOT / "loopnb").rglob("*.py"))
#: The modules that may reach private names of others: beside their users, one function for each name.
QUARANTINE = {"_cpython.py", "_ipython.py", "_ipykernel.py", "_packages.py", "_pyodide.py"}
OUTSIDE_QUARANTINE = [path for path in MODULES if path.name not in QUARANTINE]
#: The tests, and the scripts, too.
EVERY_MODULE = sorted([
    *MODULES, *TESTS.rglob("*.py"), *ROOT.glob("notebooks/*.py"), *ROOT.glob(".ci/*.py"),
])  # fmt: skip

#: A function is about one screen. There is no limit for modules: they are split by concern.
MAX_FUNCTION_LINES = 40

# `path:function: lines`, each with the reason why it is better whole.
LONGER: dict[str, int] = {
    # One closure, since it runs for each spawn and every further call is 1.5 % of one.
    "loopnb/tracking/_cpython.py:make_tracked": 60,
    "loopnb/tracking/_cpython.py:make_factory": 72,
    # One loop over ten thousand tasks, in which every call of a function shows.
    "loopnb/tracking/listing.py:_look_at_each": 53,
}

TOP_LEVEL = {
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "binder",
    "loopnb",
    "notebooks",
    "pyproject.toml",
    "tests",
}


def name_of(path: Path) -> str:
    """Return *path* as seen from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


def sizes_of(path: Path) -> dict[str, int]:
    """Measure the body of each function of a module, without its docstring, in lines."""
    sizes = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[ast.get_docstring(node) is not None :]
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            sizes[f"{name_of(path)}:{node.name}"] = lines
    return sizes


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_fit_on_a_screen(path: Path) -> None:
    for what, lines in sizes_of(path).items():
        assert lines <= LONGER.get(what, MAX_FUNCTION_LINES), f"{what} has {lines} lines"


def test_no_exception_to_the_sizes_is_out_of_date() -> None:
    sizes = {what: lines for path in MODULES for what, lines in sizes_of(path).items()}

    assert {what: sizes.get(what) for what in LONGER} == LONGER


@pytest.mark.parametrize("path", OUTSIDE_QUARANTINE, ids=name_of)
def test_private_names_are_not_reached_by_string(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr" | "delattr"),
                args=[_, ast.Constant(value=str(name)), *_],
            ):
                pass
            case ast.Call(func=ast.Name() as func, args=[_, ast.Constant(value=str(name)), *_]) if (
                "patch" in func.id.lower() or func.id in {"MethodWrapper", "_replaced", "wrapper_aside"}
            ):
                pass
            case ast.Call(
                func=ast.Name(id="attrgetter" | "methodcaller") | ast.Attribute(attr="attrgetter"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                pass
            case ast.Subscript(
                value=ast.Call(func=ast.Name(id="vars")) | ast.Attribute(attr="__dict__"),
                slice=ast.Constant(value=str(name)),
            ):
                pass
            case _:
                continue
        assert not name.startswith("_") or name.startswith("__"), (
            f"{name_of(path)}:{node.lineno} reaches {name!r}"
        )


#: A name, a dotted name or a path to a file, in which a part is private: it begins with one underscore.
HAS_PRIVATE_PART = re.compile(r"(.*[./])?_(?!_|loopnb_)[A-Za-z][\w.<>]*")


def own_strings(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the strings that name nothing of others: docstrings, texts, slots, and type variables."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant() as string):
                yield string
            case ast.JoinedStr(values=parts):
                yield from parts
            case ast.Assign(targets=[ast.Name(id="__slots__")], value=ast.Tuple(elts=names)):
                yield from names
            case ast.Call(func=ast.Name(id="TypeVar" | "ParamSpec"), args=[name, *_]):
                yield name


def methods_of(path: Path) -> Iterator[str]:
    """Yield the qualified names of a module's methods."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef))


OWN_METHODS = {method for path in MODULES for method in methods_of(path)}


@pytest.mark.parametrize("path", OUTSIDE_QUARANTINE, ids=name_of)
def test_no_string_holds_a_private_name_of_others(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {id(string) for string in own_strings(tree)}
    found = {
        f"{node.lineno}: {node.value!r}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in own
        if HAS_PRIVATE_PART.fullmatch(node.value) and node.value not in OWN_METHODS
    }

    assert not found


def imported_by(path: Path) -> set[str]:
    """Name the modules of the package that a module imports: in functions, and for type checkers, too."""
    known = {dotted(module) for module in MODULES}
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in names}
    return found & known - {dotted(path)}


def dotted(path: Path) -> str:
    """Return the name under which a module is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_no_imports_go_round_in_a_circle() -> None:
    left = {dotted(path): imported_by(path) for path in MODULES}

    while ends := {module for module, imported in left.items() if not imported & left.keys()}:
        left = {module: imported for module, imported in left.items() if module not in ends}

    assert not left, "in a circle, or above one"


#: Cells are dedented text there.
CELL_TESTS = sorted(path for name in ("kernel", "terminal", "browser") for path in TESTS.glob(f"{name}/*.py"))


def strings_of_cells(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the strings that a driver is called with, and those that begin with a cell magic."""
    match node:
        case ast.Call(func=ast.Attribute(attr="run" | "start" | "execute" | "value"), args=[code, *_]):
            yield from (
                string for string in ast.walk(code) if isinstance(string, ast.Constant | ast.JoinedStr)
            )
        case ast.Constant(value=str(text)) if text.startswith("%%"):
            yield node
        case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]) if text.startswith("%%"):
            yield node


def has_escaped_newline(node: ast.expr) -> bool:
    """Return True if a string, or the text of an f-string, holds a newline and stands in one line."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    text = "".join(
        part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)
    )
    return "\n" in text and node.lineno == node.end_lineno


@pytest.mark.parametrize("path", CELL_TESTS, ids=name_of)
def test_a_cell_of_several_lines_is_dedented_text(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    found = {
        f"{string.lineno}: {lines[string.lineno - 1].strip()}"
        for node in ast.walk(ast.parse(source))
        for string in strings_of_cells(node)
        if has_escaped_newline(string)
    }

    assert found == set()


@pytest.mark.parametrize("path", EVERY_MODULE, ids=name_of)
def test_no_variable_is_called_one(path: Path) -> None:
    names = {
        node.id if isinstance(node, ast.Name) else node.arg
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Name | ast.arg)
    }

    assert "one" not in names


#: A comment that has a tool ignore something, and no reason behind it.
WITHOUT_REASON = re.compile(
    r"#\s*(type: ignore(\[[\w, -]*\])?|noqa(: [A-Z]+[0-9]+(, ?[A-Z]+[0-9]+)*)?|pragma: no cover)\s*$"
)


@pytest.mark.parametrize("path", EVERY_MODULE, ids=name_of)
def test_what_is_ignored_has_its_reason(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()

    assert [number for number, line in enumerate(lines, 1) if WITHOUT_REASON.search(line)] == []


def test_ruff_lets_the_same_modules_reach_private_names() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        ignores = tomllib.load(file)["tool"]["ruff"]["lint"]["per-file-ignores"]
    exempt = {pattern for pattern, rules in ignores.items() if "SLF001" in rules and "tests" not in pattern}

    (pattern,) = exempt
    folder, _, names = pattern.rpartition("/")
    stems, suffix = names.removeprefix("_{").split("}")
    assert folder == "loopnb/**"
    assert {f"_{stem}{suffix}" for stem in stems.split(",")} == QUARANTINE


def run_python(code: str) -> object:
    """Run *code* in a fresh interpreter and return the JSON it prints."""
    ran = run_script(code)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_importing_loopnb_imports_nothing_heavy() -> None:
    heavy = ["IPython", "anywidget", "greenlet", "ipykernel", "ipywidgets", "tornado", "traitlets", "zmq"]

    assert (
        run_python(f"""
import json, sys
import loopnb
print(json.dumps([name for name in {heavy} if name in sys.modules]))
""")
        == []
    )


IMPORT_EVERYTHING = """
import importlib, json, pkgutil
import loopnb

def import_everything():
    for module in pkgutil.walk_packages(loopnb.__path__, "loopnb."):
        importlib.import_module(module.name)

def public():
    return {name: getattr(loopnb, name) for name in loopnb.__all__}
"""


def test_public_names_survive_the_import_of_every_submodule() -> None:
    assert (
        run_python(f"""{IMPORT_EVERYTHING}
before = public()
import_everything()
print(json.dumps([name for name, value in public().items() if value is not before[name]]))
""")
        == []
    )


def test_a_public_function_is_one_whatever_was_imported_before() -> None:
    modules = run_python(f"""{IMPORT_EVERYTHING}
import_everything()
print(json.dumps([name for name, value in public().items() if type(value).__name__ == "module"]))
""")

    assert set(modules) <= {"errors", "nesting"}  # type: ignore[call-overload] # it is a list: printed above


def top_level() -> set[str]:
    """Name what the repository holds at its top, dotfiles left out."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        found = {line.split("/")[0] for line in listed.stdout.splitlines()}
    else:  # an unpacked archive
        found = {path.name for path in ROOT.iterdir()} - {"build", "dist"}
    return {name for name in found if not name.startswith(".")}


def test_the_top_level_holds_what_every_project_has() -> None:
    assert top_level() <= TOP_LEVEL
