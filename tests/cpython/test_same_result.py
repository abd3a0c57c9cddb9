"""CPython's asyncio tests end the same way with the engine as without it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = "test.test_asyncio"
MODULES = [
    f"{PACKAGE}.{name}"
    for name in (
        "test_base_events",
        "test_locks",
        "test_queues",
        "test_runners",
        "test_streams",
        "test_taskgroups",
        "test_tasks",
        "test_timeouts",
    )
]
MODES = ["stock", "applied", "attached"]
#: A test that ends differently is run again in both ways, so often: some of them measure time.
TRIES = 3

Ended = dict[str, tuple[str, str]]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not importlib.util.find_spec("test") or not importlib.util.find_spec(PACKAGE),
        reason="this interpreter comes without its asyncio tests",
    ),
]


def run(mode: str, module: str, *names: str) -> Ended:
    """Run *module*, or only the tests with these *names*, and return how each ended."""
    ran = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.cpython.run_module", mode, module, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-5000:]
    ended: Ended = {
        name: (how, error) for name, (how, error) in json.loads(ran.stdout.splitlines()[-1]).items()
    }
    return ended


def different(stock: Ended, engine: Ended) -> list[str]:
    """Return the names of the tests that did not end the same way."""
    return [
        name
        for name in sorted(stock.keys() | engine.keys())
        if stock.get(name, ("absent",))[0] != engine.get(name, ("absent",))[0]
    ]


def run_in(modes: list[str], module: str, *names: str) -> list[Ended]:
    """Do so in each of *modes* at once: most tests wait for a time."""
    with ThreadPoolExecutor(len(modes)) as pool:
        return [ran.result() for ran in [pool.submit(run, mode, module, *names) for mode in modes]]


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Ended]]:
    """Keep what each mode makes of a module: two tests ask for it."""
    return {}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("module", MODULES)
def test_every_test_ends_as_it_does_without(
    module: str, mode: str, results: dict[str, dict[str, Ended]]
) -> None:
    if module not in results:
        results[module] = dict(zip(MODES, run_in(MODES, module), strict=True))
    stock, engine = results[module]["stock"], results[module][mode]
    for _ in range(1, TRIES):
        names = different(stock, engine)
        if not names:
            break
        stock, engine = run_in(["stock", mode], module, *names)

    assert {name: (stock.get(name), engine.get(name)) for name in different(stock, engine)} == {}
