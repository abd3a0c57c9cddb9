"""Write the table of versions into the README, from what `make test-all` has run on this machine.

Run it after `make test-all`, or after each of its parts: .venv/bin/python .ci/versions.py
The row of an environment that has not run here stays as it is.
"""

from __future__ import annotations

import sys

import pythons
import reach
import results
import test_all
from steps import ROOT

README = ROOT / "README.md"
BEGIN = "<!-- To update: make test-all, then .venv/bin/python .ci/versions.py -->\n"
END = "<!-- End of the table. -->\n"

#: No test runs there. What the code does for them follows from their documentation and their source.
UNTESTED = ("Windows", "macOS", "VS Code", "Colab's own front end")

_HEAD = ("| Environment | What ran | Passed | Failed | Left out |", "|---|---|---|---|---|")
_NOT_COUNTED = "not counted yet"


def table(before: str, found: dict[str, results.Result]) -> str:
    """Return the table that takes the place of *before*, with what has been found since."""
    rows = {
        results.short(row[2:].partition(" | ")[0]): row for row in before.splitlines() if _is_counted(row)
    }
    for name, result in found.items():
        counts = (f"{count:,}" for count in (result.passed, result.failed, result.left_out))
        rows[name] = f"| {result.environment} | {result.ran} | {' | '.join(counts)} |"
    hosts = {host.title: host.label() for host in reach.hosts().values()}
    for wanted, label in ({name: name for name in _pythons_and_kernels()} | hosts).items():
        if not any(f"{name}.".startswith(f"{wanted}.") for name in rows):
            rows[wanted] = f"| {label} | {_NOT_COUNTED} | | | |"
    order = ("CPython", "ipykernel", *hosts)
    known = {name: rank for rank, start in enumerate(order) for name in rows if name.startswith(start)}
    lines = [rows[name] for name in sorted(rows, key=lambda name: (known.get(name, len(order)), name))]
    lines += [f"| {name} | nothing: by construction only | | | |" for name in UNTESTED]
    return "\n".join([*_HEAD, *lines]) + "\n"


def _pythons_and_kernels() -> list[str]:
    minors = [f"CPython {major}.{minor}" for major, minor in pythons.SUPPORTED]
    return minors + [f"ipykernel {version.removesuffix('.*')}" for version in test_all.KERNELS]


def _is_counted(line: str) -> bool:
    untested = tuple(f"| {name} | " for name in UNTESTED)
    is_row = line.startswith("| ") and line != _HEAD[0] and not line.startswith(untested)
    return is_row and _NOT_COUNTED not in line


def main() -> int:
    """Replace the table between its two marks."""
    found = results.read()
    if not found:
        print(f"There are no results in {results.FILE}: run `make test-all` first.")
        return 1
    start, rest = README.read_text(encoding="utf-8").split(BEGIN)
    before, end = rest.split(END)
    README.write_text(f"{start}{BEGIN}\n{table(before, found)}\n{END}{end}", encoding="utf-8")
    print(f"Wrote {len(found)} environments into {README}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
