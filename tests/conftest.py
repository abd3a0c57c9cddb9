"""What holds for every test: nothing leaks out of it, the quick ones run first, CI leaves none out."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from loopnb.tracking.cells import current_cell

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parent

# Later folders are slower. What starts kernels comes after all that does not: its threads live on, and want
# the GIL at the same moments as the watchdog. The browser comes last for another reason too: while its
# fixture lives, Playwright keeps a loop running in this thread.
ORDER = ("libraries", "reach", "stress", "kernel", "test_packaging.py", "test_notebooks.py", "browser")

# Their fixtures outlive a test on purpose, and what they test is in another process.
MAY_KEEP_THINGS = ("kernel", "browser")

# Where loopnb, like nest-asyncio, would put its patches.
PATCHED_OWNERS: tuple[Any, ...] = (
    asyncio,
    asyncio.events,
    asyncio.runners,
    asyncio.tasks,
    asyncio.Runner,
    asyncio.BaseEventLoop,
    asyncio.SelectorEventLoop,
    *asyncio.SelectorEventLoop.__bases__,
)


# How many examples hypothesis tries: `make test-all` chooses the second. A busy machine is no fault.
ANY_SPEED: Any = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("quick", max_examples=50, **ANY_SPEED)
settings.register_profile("thorough", max_examples=200, **ANY_SPEED)
settings.load_profile("quick")


def _callables_of(owner: Any) -> dict[str, tuple[object, object]]:
    return {
        name: (value, getattr(value, "__code__", None))
        for name, value in vars(owner).items()
        if callable(value)
    }


# Taken before any test has run.
STOCK = [_callables_of(owner) for owner in PATCHED_OWNERS]


def _part(path: Path) -> str:
    """Name the folder or module directly below tests/ that *path* belongs to."""
    return path.relative_to(TESTS).parts[0] if path.is_relative_to(TESTS) else ""


@pytest.fixture(scope="module", autouse=True)
def frozen_heap() -> None:
    """Keep all that was imported so far out of the sight of `gc.collect()`, which many tests call.

    Else each call looks at hundreds of thousands of objects, for a tenth of a second and more.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that a test leaves asyncio as it was, no running loop and no thread."""
    if _part(request.path) in MAY_KEEP_THINGS:
        yield
        return
    before = set(threading.enumerate())
    yield
    current_cell.set(None)  # tests that play the shell set it, and all tests share one Context
    for owner, stock in zip(PATCHED_OWNERS, STOCK, strict=True):
        changed = {name for name, value in _callables_of(owner).items() if stock.get(name) != value}
        assert not changed, f"{owner.__name__} is not what it was: {sorted(changed)}"
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    assert not [thread for thread in threading.enumerate() if thread not in before and _stays(thread)]


def _stays(thread: threading.Thread) -> bool:
    if thread.daemon:
        return False
    thread.join(5)  # an executor's worker may be on its way out
    return thread.is_alive()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the parts named in ORDER after all others, in that order."""
    rank = {name: number for number, name in enumerate(ORDER, start=1)}
    items.sort(key=lambda item: rank.get(_part(item.path), 0))


def _left_out(config: pytest.Config) -> list[pytest.TestReport]:
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    return (
        [] if reporter is None else [*reporter.stats.get("skipped", ()), *reporter.stats.get("xfailed", ())]
    )


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn a run with CI=true that left a test out into a failure."""
    if os.environ.get("CI") == "true" and exitstatus == pytest.ExitCode.OK and _left_out(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what was left out, where that is a failure."""
    left_out = _left_out(config)
    if os.environ.get("CI") == "true" and left_out:
        terminalreporter.section("left out although CI=true", red=True, bold=True)
        for report in left_out:
            terminalreporter.line(report.nodeid, red=True)
