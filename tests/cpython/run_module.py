"""Runs one of CPython's test modules in this process and prints how each test ended, as JSON.

    python -m tests.cpython.run_module MODE MODULE [TEST...]

MODE is how the engine is there: see `MODES`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import unittest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    Error = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


#: Tests that ask for the very error that nesting does away with; two of them would run for ever.
INHERENT = {
    "RunTests.test_asyncio_run_from_running_loop": "asyncio.run() nests, without end",
    "RunnerTests.test_recursive_run": "Runner.run() nests",
    "RunningLoopTests.test_running_loop_within_a_loop": "another loop's run_forever() runs",
}


class Outcomes(unittest.TestResult):
    """How each test ended, by the name of the test; with the text of the error, if there was one."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: dict[str, tuple[str, str]] = {}

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: D102, N802, RUF100  unittest's name
        super().startTest(test)
        # Whoever ends this process because a test hangs reads here which one it was.
        print(test.id(), file=sys.stderr, flush=True)

    def _end(self, test: unittest.TestCase, how: str, error: Error | None = None) -> None:
        text = self._exc_info_to_string(error, test) if error is not None else ""  # type: ignore[attr-defined]  # what every TestResult formats errors with
        # A subtest, or a cleanup, may fail after something else has.
        self.ended.setdefault(test.id(), (how, text))

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: D102, N802, RUF100  unittest's name
        self._end(test, "passed")

    def addFailure(self, test: unittest.TestCase, err: Error) -> None:  # noqa: D102, N802, RUF100  the same
        self._end(test, "failed", err)

    def addError(self, test: unittest.TestCase, err: Error) -> None:  # noqa: D102, N802, RUF100  the same
        self._end(test, "error", err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: D102, N802, RUF100  the same
        self._end(test, "skipped")

    def addExpectedFailure(self, test: unittest.TestCase, err: Error) -> None:  # noqa: D102, N802, RUF100  the same
        self._end(test, "expected failure")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: D102, N802, RUF100  the same
        self._end(test, "unexpected success")

    def addSubTest(  # noqa: D102, N802, RUF100  the same
        self, test: unittest.TestCase, subtest: unittest.TestCase, err: Error | None
    ) -> None:
        if err is not None:
            self._end(test, "failed", err)


def _stock() -> None: ...


def _applied() -> None:
    from loopnb import nesting

    nesting.apply()


def _attached() -> None:
    """Attach the engine to every loop that is about to run, as if something had nested in it."""
    from loopnb.nesting._cpython import why_not_drivable
    from loopnb.nesting.scope import attach

    _applied()
    run_forever = asyncio.BaseEventLoop.run_forever

    def run_with_engine(self: asyncio.BaseEventLoop) -> None:
        if why_not_drivable(self) is None and not self.is_running() and not self.is_closed():
            attach(self)
        run_forever(self)

    asyncio.BaseEventLoop.run_forever = run_with_engine  # type: ignore[method-assign]  # the point of it


#: How the engine is there.
MODES: dict[str, Callable[[], None]] = {"stock": _stock, "applied": _applied, "attached": _attached}


def _tests_of(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for part in suite:
        if isinstance(part, unittest.TestSuite):
            yield from _tests_of(part)
        else:
            yield part


def _without_inherent(suite: unittest.TestSuite) -> unittest.TestSuite:
    """Return *suite* flat; unittest looks at neighbours for class fixtures, so the order stays."""
    return unittest.TestSuite(
        test for test in _tests_of(suite) if ".".join(test.id().split(".")[-2:]) not in INHERENT
    )


def main() -> None:
    """Do what the command line says. The last line of the output is the JSON."""
    mode, module, *names = sys.argv[1:]
    # A shell starts what runs in the background with interrupts ignored; some tests send one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    MODES[mode]()
    loader = unittest.defaultTestLoader
    suite = loader.loadTestsFromNames(names) if names else loader.loadTestsFromName(module)
    outcomes: Any = Outcomes()
    gc.freeze()  # most tests collect several times, and nothing that was imported is garbage
    _without_inherent(suite).run(outcomes)
    print("\n" + json.dumps(outcomes.ended), flush=True)


if __name__ == "__main__":
    main()
