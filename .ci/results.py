"""Keep what `make test-all` has run, for the table of versions in the README: `.ci/versions.py` writes it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from steps import ROOT

FILE = ROOT / "build" / "test-all" / "results.json"


@dataclass(frozen=True)
class Result:
    """What ran in one environment.

    Attributes:
        environment: The environment, as the README calls it.
        ran: Which tests, as the README calls them.
        passed: How many passed.
        failed: How many failed.
        left_out: How many were left out.
    """

    environment: str
    ran: str
    passed: int
    failed: int
    left_out: int


def read() -> dict[str, Result]:
    """Return the last result of each environment, by a key that lasts: `python 3.12`, `colab`."""
    if not FILE.exists():
        return {}
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    return {key: Result(**result) for key, result in kept.items()}


def keep(key: str, result: Result) -> None:
    """Replace what is kept of one environment."""
    kept = {name: asdict(known) for name, known in read().items()} | {key: asdict(result)}
    FILE.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
