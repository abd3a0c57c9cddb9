"""Measure, and print the tables (`make bench`, or `python -m tests.benchmarks --help`)."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from tests.benchmarks import machine, profile, report, rounds
from tests.benchmarks.tools import LOOPNB, STOCK, TOOLS, TRACKING

if TYPE_CHECKING:
    from collections.abc import Callable


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds: for a first look")
    parser.add_argument("--rounds", type=int, help="how many rounds to time")
    parser.add_argument("--markdown", action="store_true", help="print the tables for the README")
    parser.add_argument("--profile", action="store_true", help="count bytecodes instead of taking times")
    parser.add_argument("--widget", action="store_true", help="the widget at 10,000 tasks, in JupyterLab")
    return parser.parse_args()


def _say(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def _show(table: list[list[str]], lay_out: Callable[[list[list[str]]], str]) -> None:
    print(f"\n{lay_out(table)}")


def _show_profiles(lay_out: Callable[[list[list[str]]], str]) -> None:
    for case in profile.CASES:
        print(f"\nBytecodes of one operation, {case}:")
        tools = (STOCK, LOOPNB, TRACKING)
        table = profile.table([rounds.profile(tool, case) for tool in tools])
        _show([["function", *(tool.name for tool in tools)], *table], lay_out)


def _show_widget(rounds: int, lay_out: Callable[[list[list[str]]], str]) -> None:
    from tests.benchmarks import widget  # it needs JupyterLab and Playwright

    table, own = widget.measure(rounds, _say)
    print(f"{machine.sentence(machine.describe(['ipykernel', 'jupyterlab', 'loopnb']))}; {rounds} rounds.")
    _show(table, lay_out)
    print(f"\n{own}")


def main() -> None:
    """Measure, print the tables and write build/bench.json."""
    arguments = _arguments()
    if arguments.widget:
        lay_out = report.as_markdown if arguments.markdown else report.as_text
        _show_widget(arguments.rounds or (1 if arguments.quick else 8), lay_out)
        return
    if arguments.profile:
        _show_profiles(report.as_markdown if arguments.markdown else report.as_text)
        return
    count = arguments.rounds or (10 if arguments.quick else 100)
    distributions = ["greenlet", *(tool.distribution for tool in TOOLS if tool.distribution)]
    described = machine.describe(distributions)
    samples = rounds.time_cases(TOOLS, count, _say)
    findings = rounds.look(TOOLS, 1 if arguments.quick else 9, _say)
    _say("")
    lay_out = report.as_markdown if arguments.markdown else report.as_text
    print(f"{machine.sentence(described)}; {count} rounds.")
    _show(report.timings(samples, TOOLS), lay_out)
    _show(report.findings_table(findings, TOOLS), lay_out)
    print("", *report.notes(), sep="\n")
    print("", *report.targets(samples), sep="\n")
    out = rounds.ROOT / "build" / "bench.json"
    out.parent.mkdir(exist_ok=True)
    data = {"on": described, "rounds": count, **report.as_data(samples, findings)}
    out.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
