"""Measure one tool in a process of its own.

    python -m tests.benchmarks.worker TOOL                  run one case for each line of standard input
    python -m tests.benchmarks.worker TOOL PROBE            run one probe
    python -m tests.benchmarks.worker TOOL --profile CASE   count the bytecodes of one operation

Each answer is a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import warnings
from pathlib import Path

from tests.benchmarks import cases, probes, profile, tools


def serve(tool: tools.Tool) -> None:
    """Print the seconds per operation of each case that standard input names."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    tool.apply(loop)
    for line in sys.stdin:
        case = cases.BY_NAME[line.strip()]
        print(json.dumps(loop.run_until_complete(cases.measure(case, tool.nests))), flush=True)


def main() -> None:
    """Do what the command line says."""
    # The other tools use what asyncio has deprecated.
    warnings.simplefilter("ignore")
    tool = tools.BY_NAME[sys.argv[1]]
    with tempfile.TemporaryDirectory() as folder:
        tools.prepare(tool, Path(folder))
        if len(sys.argv) == 2:
            serve(tool)
        elif sys.argv[2] == "--profile":
            print(json.dumps(profile.count(tool, sys.argv[3])), flush=True)
        else:
            print(json.dumps(probes.BY_NAME[sys.argv[2]].look(tool)), flush=True)


if __name__ == "__main__":
    main()
