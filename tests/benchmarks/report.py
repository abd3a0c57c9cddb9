"""Compute medians, ratios and targets, and build the tables. Pure: samples in, text and data out."""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.benchmarks.cases import CASES
from tests.benchmarks.probes import PROBES
from tests.benchmarks.tools import LOOPNB, NEST_ASYNCIO, NEST_ASYNCIO2, STOCK, TRACKING

if TYPE_CHECKING:
    from tests.benchmarks.probes import Found
    from tests.benchmarks.rounds import Findings, Samples
    from tests.benchmarks.tools import Tool

_RUN, _ASYNCIO_RUN, _OBSERVED, _STEP, _BELOW, _FUTURE, _GATHER, _GROUP, *_ = (case.name for case in CASES)

#: What tracking may make of a spawn. On 3.14 stock asyncio spawns faster.
_TRACKED = 1.25 if sys.version_info < (3, 14) else 1.40

#: row, tool, compared with, at most
TARGETS = [
    (row, LOOPNB, tool, most)
    for row in (_RUN, _ASYNCIO_RUN)
    for tool, most in ((NEST_ASYNCIO, 0.85), (NEST_ASYNCIO2, 0.65), (STOCK, 1.15))
] + [
    (_STEP, LOOPNB, STOCK, 1.03),
    (_STEP, TRACKING, STOCK, 1.03),
    (_BELOW, LOOPNB, STOCK, 1.03),
    (_GATHER, TRACKING, STOCK, _TRACKED),
    (_GROUP, TRACKING, STOCK, _TRACKED),
]


@dataclass(frozen=True)
class Spread:
    """The middle of a sample: its median, and its first and third quartile."""

    median: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.low:{spec}}-{self.high:{spec}})"


def spread(sample: list[float]) -> Spread:
    """Return the middle of *sample*."""
    if len(sample) == 1:
        return Spread(sample[0], sample[0], sample[0])
    low, median, high = statistics.quantiles(sample, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio(row: dict[str, list[float]], tool: str, base: str) -> Spread:
    """Compare two tools round by round, because what disturbs a round disturbs both of them."""
    return spread([mine / theirs for mine, theirs in zip(row[tool], row[base], strict=True)])


@dataclass(frozen=True)
class Target:
    """A ratio to reach, and the measured one."""

    row: str
    tool: str
    base: str
    most: float
    measured: Spread

    @property
    def is_reached(self) -> bool:
        """True if the median reaches the target, rounded to the two digits of the target."""
        return round(self.measured.median, 2) <= self.most

    def __str__(self) -> str:
        word = "reached    " if self.is_reached else "NOT REACHED"
        what = f"{self.tool}: {self.row}"
        return f"{word}  {what:<54} {self.measured:.2f}, at most {self.most:.2f} x {self.base}"


def targets(samples: Samples) -> list[Target]:
    """Compare the samples with every target whose tools were measured."""
    return [
        Target(row, tool.name, base.name, most, ratio(samples[row], tool.name, base.name))
        for row, tool, base, most in TARGETS
        if base.name in samples[row]
    ]


def timings(samples: Samples, tools: list[Tool]) -> list[list[str]]:
    """Build the table of the cases: microseconds, and the ratio to stock asyncio."""
    lines = [["", *(tool.name for tool in tools)]]
    for case in CASES:
        row = samples[case.name]
        cells = []
        for tool in tools:
            cell = f"{spread(row[tool.name]).median * 1e6:.2f} us"
            if tool is not STOCK:
                cell += f", {ratio(row, tool.name, STOCK.name):.2f}x"
            cells.append(cell)
        lines.append([case.name, *cells])
    return lines


def findings_table(findings: Findings, tools: list[Tool]) -> list[list[str]]:
    """Build the table of the probes."""
    bare = [tool.name for tool in tools if tool.is_bare]
    lines = [["", *bare]]
    for probe in PROBES:
        row = findings[probe.name]
        lines.append([probe.name, *(_found(row[name], probe.unit) for name in bare)])
    return lines


def _found(found: list[Found], unit: str) -> str:
    numbers = [value for value in found if isinstance(value, float | int)]
    if len(numbers) == len(found):
        return f"{spread(numbers):.1f} {unit}"
    return ", ".join(
        dict.fromkeys(value if isinstance(value, str) else f"{value:.1f} {unit}" for value in found)
    )


def notes() -> list[str]:
    """Return the lines that explain the figures."""
    return [
        "Medians over interleaved rounds; ratios to stock, round by round, quartiles in brackets. CPU time.",
        *(f"{case.name}: for stock, {case.of_stock}." for case in CASES if case.of_stock),
        *(f"{probe.name}: {probe.note}." for probe in PROBES if probe.note),
    ]


def as_text(table: list[list[str]]) -> str:
    """Lay *table* out in columns."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [map(str.ljust, line, widths) for line in table]
    return "\n".join("  ".join(cells).rstrip() for cells in lines)


def as_markdown(table: list[list[str]]) -> str:
    """Lay *table* out in Markdown."""
    rule = ["---"] * len(table[0])
    return "\n".join("| " + " | ".join(line) + " |" for line in [table[0], rule, *table[1:]])


def as_data(samples: Samples, findings: Findings) -> dict[str, Any]:
    """Return everything as JSON can hold it. Times of cases are in seconds; probes name their units."""
    return {
        "samples_s": samples,
        "findings": findings,
        "units": {probe.name: probe.unit for probe in PROBES},
        "targets": [
            {
                "row": target.row,
                "tool": target.tool,
                "base": target.base,
                "at_most": target.most,
                "median": target.measured.median,
                "quartiles": [target.measured.low, target.measured.high],
                "reached": target.is_reached,
            }
            for target in targets(samples)
        ],
    }
