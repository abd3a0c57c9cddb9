"""What `make test` and `make test-all` share: how a step ended, and the lines that sum up."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Outcome:
    """How one step ended.

    Attributes:
        name: The name of the step.
        passed: True if it has passed.
        took_s: How long it took, in seconds.
        detail: One more line for the summary, such as the number of tests.
        left_out: What the step could not run; each line says why.
    """

    name: str
    passed: bool
    took_s: float = 0.0
    detail: str = ""
    left_out: Sequence[str] = ()

    def __str__(self) -> str:
        return "ok    " if self.passed else "FAILED"


def keeping_bytecode(env: Mapping[str, str]) -> dict[str, str]:
    """Return *env* without the variable that keeps Python from writing bytecode.

    Each process that a test starts, such as a kernel, imports all modules of ours. Without their bytecode it
    compiles them as well.
    """
    return {name: value for name, value in env.items() if name != "PYTHONDONTWRITEBYTECODE"}


@dataclass(frozen=True)
class Report:
    """What pytest wrote to its JUnit files.

    Attributes:
        passed: How many tests passed.
        failed: How many failed.
        skipped: The name and the reason of each test that was skipped or is expected to fail.
    """

    passed: int = 0
    failed: int = 0
    skipped: Sequence[tuple[str, str]] = ()

    @property
    def counts(self) -> str:
        """How many tests passed, failed and were left out, in one line."""
        if not (self.passed or self.failed or self.skipped):
            return "pytest wrote no report"
        return f"{self.passed} passed, {self.failed} failed, {len(self.skipped)} left out"


def read_reports(*paths: Path) -> Report:
    """Add up the JUnit files at *paths*."""
    if not all(path.exists() for path in paths):
        return Report()
    cases = [case for path in paths for case in ET.parse(path).getroot().iter("testcase")]
    failed = sum(case.find("failure") is not None or case.find("error") is not None for case in cases)
    skipped = [
        (
            f"{case.get('classname', '')}.{case.get('name', '')}".strip("."),
            mark.get("message", "no reason given"),
        )
        for case in cases
        if (mark := case.find("skipped")) is not None
    ]
    return Report(len(cases) - failed - len(skipped), failed, skipped)


def sum_up(outcomes: list[Outcome], not_run: Sequence[str] = ()) -> int:
    """Print how each step ended and what was left out. Return the exit status.

    Args:
        outcomes: The steps that ran.
        not_run: What could not run at all, each with its reason. With CI=true that is a failure.
    """
    width = max((len(outcome.name) for outcome in outcomes), default=0)
    print(f"\n{'-' * 78}")
    for outcome in outcomes:
        print(f"{outcome}  {outcome.name:<{width}} {outcome.took_s:6.1f} s  {outcome.detail}".rstrip())
    left_out = [f"{outcome.name}: {line}" for outcome in outcomes for line in outcome.left_out]
    left_out += not_run
    for line in left_out:
        print(f"LEFT OUT  {line}")
    failed = [outcome.name for outcome in outcomes if not outcome.passed]
    if not_run and os.environ.get("CI") == "true":
        failed.append("something did not run at all, although CI=true")
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    else:
        print(f"All passed{', but see what was left out' if left_out else ''}.")
    return int(bool(failed))
