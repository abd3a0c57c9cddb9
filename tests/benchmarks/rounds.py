"""Drive the workers: each round runs every tool in turn, so that noise hits all of them alike."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.cases import CASES
from tests.benchmarks.probes import PROBES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.probes import Found, Probe
    from tests.benchmarks.tools import Tool

    #: What each round found, by row and then by tool.
    Samples = dict[str, dict[str, list[float]]]
    Findings = dict[str, dict[str, list[Found]]]

ROOT = Path(__file__).parent.parent.parent
_WARM_UP = 2


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.benchmarks.worker", *arguments]


class _Worker:
    """The process of one tool. It lives through all rounds, so that it stays warmed up."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self._process = subprocess.Popen(
            _command(tool.name), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def measure(self, case: str) -> float:
        """Run one round of *case* and return seconds per operation."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(case + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The worker of {self.tool.name} ended in {case!r}.")
        seconds: float = json.loads(answer)
        return seconds


def time_cases(tools: list[Tool], rounds: int, progress: Callable[[str], None]) -> Samples:
    """Time every case with every tool, *rounds* times. Return seconds per operation."""
    samples: Samples = {case.name: {tool.name: [] for tool in tools} for case in CASES}
    workers = [_Worker(tool) for tool in tools]
    try:
        for number in range(-_WARM_UP, rounds):
            progress(f"round {max(0, number + 1)} of {rounds}")
            for case in CASES:
                for worker in workers:
                    seconds = worker.measure(case.name)
                    if number >= 0:
                        samples[case.name][worker.tool.name].append(seconds)
    finally:
        for worker in workers:
            worker.end()
    return samples


def look(tools: list[Tool], repeats: int, progress: Callable[[str], None]) -> Findings:
    """Run every probe with every tool, each time in a fresh process."""
    bare = [tool for tool in tools if tool.is_bare]
    findings: Findings = {}
    for probe in PROBES:
        progress(probe.name)
        row: dict[str, list[Found]] = {tool.name: [] for tool in bare}
        for _ in range(min(repeats, probe.repeats)):
            for tool in bare:
                row[tool.name].append(_ask(tool, probe))
        findings[probe.name] = row
    return findings


def profile(tool: Tool, case: str) -> dict[str, float]:
    """Count, in a fresh process, the bytecodes that one operation of *case* runs with *tool*, by function."""
    ran = subprocess.run(
        _command(tool.name, "--profile", case), cwd=ROOT, capture_output=True, text=True, check=True
    )
    counted: dict[str, float] = json.loads(ran.stdout)
    return counted


def _ask(tool: Tool, probe: Probe) -> Found:
    try:
        ran = subprocess.run(
            _command(tool.name, probe.name),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=probe.limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "hangs"
    answers = ran.stdout.splitlines()
    if not answers:
        raise RuntimeError(f"The probe {probe.name!r} of {tool.name} failed:\n{ran.stderr}")
    found: Found = json.loads(answers[-1])
    return found
