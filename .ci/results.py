"""Keep what `make test-all` has run, for the table of versions in the README: `versions.py` writes it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from steps import ROOT

FILE = ROOT / "build" / "test-all" / "results.json"


@dataclass(frozen=True)
class Result:
    """What ran in one environment.

    Attributes:
        environment: What the README calls the environment. The part before ": " or ", " tells it from others.
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
    """Return the last result of each environment, by the part of its name that tells it from others."""
    if not FILE.exists():
        return {}
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    return {short(result["environment"]): Result(**result) for result in kept}


def keep(result: Result) -> None:
    """Replace what is kept of one environment."""
    kept = read() | {short(result.environment): result}
    lines = [asdict(known) for known in kept.values()]
    FILE.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


def short(environment: str) -> str:
    """Return the part of an environment's name that tells it from others."""
    return environment.partition(": " if ": " in environment else ", ")[0]
