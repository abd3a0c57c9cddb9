"""Put kernels under load, and count what is lost or left: `make stress`.

The parts: interrupts at random moments, bursts of interrupts, interrupts forced into rare races, signal
handlers that cells set, a soak of many cells in one kernel, and shutdowns with everything left open. The same
seed makes the same choices.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.stress import bursts, forced, handlers, interrupts, report, shutdowns, soak
from tests.stress.kernels import Options

PARTS = {
    "interrupts": interrupts.run,
    "bursts": bursts.run,
    "forced": forced.run,
    "handlers": handlers.run,
    "soak": soak.run,
    "shutdowns": shutdowns.run,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; without any, all")
    parser.add_argument("--seed", type=int, help="of all random choices; without one, a new one")
    parser.add_argument("--quick", action="store_true", help="a sample that takes a minute")
    parser.add_argument("--only", default="", metavar="TEXT", help="the scenarios whose name holds this text")
    parser.add_argument("--times", type=float, default=1.0, help="so many times as many scenarios")
    parser.add_argument(
        "--stock", action="store_true", help="interrupts and bursts: a kernel without loopnb, to compare"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return arguments


def main() -> int:
    """Run the parts and print the report; return 1 if anything was lost, killed or left."""
    arguments = _arguments()
    seed = random.randrange(10_000) if arguments.seed is None else arguments.seed
    options = Options(seed, arguments.quick, arguments.only, arguments.times, arguments.stock)
    found = []
    for part in arguments.parts or PARTS:
        print(f"== {part}, seed {seed}", flush=True)
        began = time.monotonic()
        found.append(PARTS[part](options))
        found[-1].notes.append(f"took {time.monotonic() - began:.0f} s")
    print(f"\n{report.text(found, seed, str(options))}", flush=True)
    return int(report.has_failed(found))


if __name__ == "__main__":
    sys.exit(main())
