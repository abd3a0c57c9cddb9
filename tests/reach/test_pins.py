"""The bounds in pyproject.toml leave what hosts have installed as it is; the README says what ran there.

`make test-all` asks pip the same, with all that the packages in turn require.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
HOSTS = sorted(Path(__file__).parent.glob("*.txt"), key=lambda path: path.stem)
CLASSIC = Path(__file__).parent / "classic" / "packages.txt"

README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = [line for line in README.partition("## Versions")[2].splitlines() if line.startswith("| ")]


def required() -> dict[str, Requirement]:
    """Return what loopnb requires, with the extra `kernel`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["kernel"]]
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


def pinned(path: Path) -> dict[str, str]:
    """Return the version of each package that a file pins."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("host", HOSTS, ids=lambda path: path.stem)
def test_the_bounds_take_what_the_host_has_installed(host: Path) -> None:
    first, *lines = host.read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines]
    wanted = required()

    assert re.match(r"# Python 3\.1[1-5]: .", first)
    assert {"ipython", "ipykernel"} <= {pin.name for pin in pins}
    for pin in pins:
        (spec,) = pin.specifier
        assert spec.operator == "=="
        if pin.name in wanted:
            assert wanted[pin.name].specifier.contains(spec.version), pin


@pytest.mark.parametrize("host", HOSTS, ids=lambda path: path.stem)
def test_the_readme_says_what_ran_with_the_packages_of_the_host(host: Path) -> None:
    title = host.read_text(encoding="utf-8").splitlines()[0].partition(": ")[2]
    [row] = [row for row in ROWS if row.startswith(f"| {title}: ")]

    versions = pinned(host)
    for package in versions.keys() & {"ipython", "ipykernel", "ipywidgets"}:
        assert f"{package} {versions[package]}" in row


def test_the_readme_says_what_ran_elsewhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pythons = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    classic = pinned(CLASSIC)
    wanted = [f"CPython {version}" for version in pythons]
    wanted += [
        f"Classic Notebook {classic['notebook']}: ipywidgets {classic['ipywidgets']},",
        "JupyterLite: ",
    ]

    assert [start for start in wanted if not any(row.startswith(f"| {start}") for row in ROWS)] == []
    for name in ("Windows", "macOS", "VS Code", "Colab's own front end"):
        assert f"| {name} | nothing: by construction only | | | |" in ROWS
