"""The bounds in pyproject.toml leave what the hosts have installed as it is.

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


def required() -> dict[str, Requirement]:
    """Return what loopnb requires, with the extra `kernel`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["kernel"]]
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


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
