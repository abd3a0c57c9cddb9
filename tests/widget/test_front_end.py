"""Runs the front end's own tests, and looks at the files that are shipped."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from loopnb.widgets import assets
from loopnb.widgets.assets import STATIC
from tests.node import find_node

HERE = Path(__file__).parent
SCRIPTS = sorted(STATIC.glob("*.js"))

#: What a module has at its top, where joined modules must not use a name twice.
TOP_NAMES = re.compile(r"^(?:export )?(?:function|class|let|const|var) (\w+)", re.MULTILINE)


def test_the_pure_part_of_the_front_end() -> None:
    node = find_node()
    if node is None:
        pytest.skip(
            "neither Playwright nor Node is installed: the front end's pure functions were not tested"
        )
    command = [node, "--test", "widget.test.mjs"]
    ran = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=50, check=False)

    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_names_from_user_code_never_become_html(path: Path) -> None:
    source = path.read_text(encoding="utf-8")

    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|DOMParser", source)


def test_nothing_is_fetched_from_elsewhere() -> None:
    for text in (assets.ESM, assets.CSS):
        assert not re.search(r"https?://|@import|url\(|^\s*import\b|\bfetch\(", text, re.MULTILINE)


def test_all_modules_are_joined_and_each_follows_what_it_imports() -> None:
    places = {path.name: assets.ESM.find(_first_name(path)) for path in SCRIPTS}

    assert min(places.values()) >= 0
    for path in SCRIPTS:
        for imported in re.findall(r'from "\./(\w+\.js)"', path.read_text(encoding="utf-8")):
            assert places[imported] < places[path.name], f"{path.name} imports {imported}"


def _first_name(path: Path) -> str:
    """Return the statement at the top of a module that names its first function, class or constant."""
    found = TOP_NAMES.search(path.read_text(encoding="utf-8"))
    assert found is not None
    return found.group()


def test_no_two_modules_use_a_name_twice_at_their_top() -> None:
    names = TOP_NAMES.findall(assets.ESM)

    assert len(names) > 20
    assert sorted(names) == sorted(set(names))


def test_the_joined_script_is_a_module_with_a_view() -> None:
    node = find_node()
    if node is None:
        pytest.skip("node is not installed: the joined script was not tried")
    script = """
        let source = await new Response(process.stdin).text();
        let widget = await import(`data:text/javascript,${encodeURIComponent(source)}`);
        console.log(typeof widget.default.render);
    """
    command = [node, "--input-type=module", "--eval", script]
    ran = subprocess.run(command, input=assets.ESM, capture_output=True, text=True, timeout=50, check=False)

    assert ran.stdout == "function\n", ran.stderr


def test_every_selector_is_our_own() -> None:
    css = re.sub(r"/\*.*?\*/", "", (STATIC / "widget.css").read_text(encoding="utf-8"), flags=re.S)
    css = re.sub(r"@media [^{]*\{", "", css)
    selectors = [part.strip() for group in re.findall(r"([^{}]+)\{", css) for part in group.split(",")]

    assert selectors
    assert [selector for selector in selectors if not selector.startswith(".loopnb-")] == []
