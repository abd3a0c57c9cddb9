"""Report what the parts of the stress have found. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class Fault(StrEnum):
    """What can go wrong with a scenario."""

    LOST = "lost"
    """It had no effect: the cell's code still ran 3 s later, or nobody answered a request in time."""
    NO_REPLY = "no reply"
    """The cell ended, and its reply never came."""
    KILLED = "killed"
    """The kernel ended, or had to be ended, although it should live on."""
    LEFT = "left"
    """Something stayed that should have gone, or the other way round."""


@dataclass(frozen=True)
class Failure:
    """One fault of one scenario.

    Attributes:
        fault: The kind of fault.
        scenario: Its name; `--only` takes it, or a part of it.
        detail: What was seen.
        number: The number of the try. A scenario may be tried often, and have two faults of one kind in one
            try.
    """

    fault: Fault
    scenario: str
    detail: str = ""
    number: int = 0

    def __str__(self) -> str:
        return f"{self.fault.upper()}: {self.scenario}" + (f": {self.detail}" if self.detail else "")


@dataclass
class Figures:
    """What one part found.

    Attributes:
        part: Its name.
        tried: How many scenarios it ran.
        failures: Its failures, in the order in which they were seen.
        notes: Further lines for the end of the report.
        left_out: Why it could not run ("" if it could).
    """

    part: str
    tried: int = 0
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: str = ""

    def count(self, fault: Fault) -> int:
        """Return how many tries had that *fault*."""
        return len(
            {(failure.scenario, failure.number) for failure in self.failures if failure.fault is fault}
        )


def table(parts: list[Figures]) -> str:
    """Return a line for each part: how many tries it made, and how many of these had each fault."""
    lines = [["part", "tried", *Fault]]
    for figures in parts:
        counts = [str(figures.count(fault)) for fault in Fault]
        lines.append([figures.part, str(figures.tried), *counts])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def text(parts: list[Figures], seed: int, options: str = "") -> str:
    """Return the whole report: what failed and how often, notes, the table, how to repeat it.

    Args:
        parts: What they found.
        seed: The seed of all choices.
        options: Further options of the command line.
    """
    lines: list[str] = []
    for figures in parts:
        lines += [f"{figures.part}: {line}" for line in _failures(figures)]
        lines += [f"{figures.part}: {note}" for note in figures.notes]
        if figures.left_out:
            lines.append(f"LEFT OUT  {figures.part}: {figures.left_out}")
    words = [f"--seed {seed}", *([options] if options else []), *(figures.part for figures in parts)]
    again = f"python -m tests.stress {' '.join(words)}"
    return "\n".join([*lines, "", table(parts), "", f"Seed {seed}. To repeat: {again}"])


def _failures(figures: Figures) -> list[str]:
    """Return the failures by the scenario's first words, most frequent first, each with one example."""
    groups = Counter((failure.fault, _kind(failure)) for failure in figures.failures)
    lines = []
    for (fault, kind), count in groups.most_common():
        example = next(
            failure for failure in figures.failures if (failure.fault, _kind(failure)) == (fault, kind)
        )
        lines.append(f"{count} x {fault}, {kind}; first: {example.scenario}: {example.detail}".rstrip(": "))
    return lines


def _kind(failure: Failure) -> str:
    return failure.scenario.split(",", maxsplit=1)[0]


def has_failed(parts: list[Figures]) -> bool:
    """Return True if any part saw a fault."""
    return any(figures.failures for figures in parts)
