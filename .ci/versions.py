"""Write the table of versions into the README, from what `make test-all` has run on this machine.

Run it after `make test-all`, or after each of its parts: .venv/bin/python .ci/versions.py
"""

from __future__ import annotations

import sys

import results
from steps import ROOT

README = ROOT / "README.md"
BEGIN = "<!-- To update: make test-all, then .venv/bin/python .ci/versions.py -->\n"
END = "<!-- End of the table. -->\n"

#: No test runs there. What the code does for them follows from their documentation and their source.
UNTESTED = ("Windows", "macOS", "VS Code", "Colab's own front end")

#: What stands first in the table. Any other key is the name of a host.
_ORDER = ("python", "ipykernel", "host", "libraries", "classic", "jupyterlite")


def _rank(key: str) -> int:
    first = key.partition(" ")[0]
    return _ORDER.index(first if first in _ORDER else "host")


def table(found: dict[str, results.Result]) -> str:
    """Return the table of what ran, and below it what did not run."""
    lines = ["| Environment | What ran | Passed | Failed | Left out |", "|---|---|---|---|---|"]
    for key in sorted(found, key=lambda key: (_rank(key), key)):
        one = found[key]
        counts = (f"{count:,}" for count in (one.passed, one.failed, one.left_out))
        lines.append(f"| {one.environment} | {one.ran} | {' | '.join(counts)} |")
    lines += [f"| {name} | nothing: by construction only | | | |" for name in UNTESTED]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Replace the table between its two marks."""
    found = results.read()
    if not found:
        print(f"There are no results in {results.FILE}: run `make test-all` first.")
        return 1
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    README.write_text(f"{before}{BEGIN}\n{table(found)}\n{END}{after}", encoding="utf-8")
    print(f"README.md has {len(found)} environments.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
