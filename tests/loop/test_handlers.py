"""Handlers of exceptions and signals go with the run that has set them, in whatever order runs end."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.loop.handlers import ExceptionHandlers
from loopnb.loop.signals import Signals
from tests.loop.notebook import Notebook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

posix = pytest.mark.skipif(sys.platform == "win32", reason="loops there have no add_signal_handler()")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Make a loop that the test turns itself."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Handlers:
    """Sets handlers called by letters, and says which are in force. Runs are tasks that end when told."""

    def __init__(self, loop: asyncio.AbstractEventLoop, kind: str) -> None:
        self._loop = loop
        self._kind = kind
        self._exceptions = ExceptionHandlers(loop)
        self._notebook = Notebook()
        self._named: dict[str, Callable[..., None]] = {}
        self.signals = Signals(loop, self._notebook)
        self.called: list[str] = []

    def begin_run(self) -> tuple[asyncio.Task[None], asyncio.Event]:
        """Begin a run; it ends when the event is set."""
        event = asyncio.Event()

        async def main() -> None:
            await event.wait()

        task = self._loop.create_task(main())
        self._turn()
        return task, event

    def end_run(self, run: tuple[asyncio.Task[None], asyncio.Event]) -> None:
        """End a run, and have its done-callbacks called."""
        run[1].set()
        self._loop.run_until_complete(run[0])
        self._turn()

    def set(self, name: str, task: asyncio.Task[None] | None) -> None:
        """Set the handler of that name, in the run of *task* or in a cell."""

        def handler(*_args: Any) -> None:
            self.called.append(name)

        self._notebook.run = task
        if self._kind == "exceptions":
            self._exceptions.set(self._loop.set_exception_handler, handler, task)
        elif self._kind == "signal.signal" or (self._kind == "both" and name > "a"):
            signal.signal(signal.SIGUSR1, handler)
        else:
            self._loop.add_signal_handler(signal.SIGUSR1, handler)

    def in_force(self) -> str:
        """Return the name of the handler that is called now; "none" if it is none of ours."""
        self.called.clear()
        if self._kind == "exceptions":
            if self._loop.get_exception_handler() is None:
                return "none"
            self._loop.call_exception_handler({"message": "a test"})
        else:
            if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
                return "none"
            signal.raise_signal(signal.SIGUSR1)
            self._turn()
        return "".join(self.called)

    def _turn(self) -> None:
        for _ in range(3):
            self._loop.run_until_complete(asyncio.sleep(0))


SIGNALS = [pytest.param(kind, marks=posix) for kind in ("add_signal_handler", "signal.signal", "both")]


@pytest.fixture(params=["exceptions", *SIGNALS])
def handlers(loop: asyncio.AbstractEventLoop, request: pytest.FixtureRequest) -> Iterator[Handlers]:
    """Set handlers of each kind on *loop*."""
    handlers = Handlers(loop, request.param)
    if request.param == "exceptions":
        yield handlers
        return
    before = signal.getsignal(signal.SIGUSR1)
    handlers.signals.install()
    yield handlers
    handlers.signals.restore()
    signal.signal(signal.SIGUSR1, before)


def test_a_runs_handler_goes_with_it(handlers: Handlers) -> None:
    run = handlers.begin_run()
    handlers.set("a", run[0])
    assert handlers.in_force() == "a"

    handlers.end_run(run)

    assert handlers.in_force() == "none"


@pytest.mark.parametrize(("first", "between"), [("inner", "a"), ("outer", "b")])
def test_two_runs_end_in_either_order(handlers: Handlers, first: str, between: str) -> None:
    outer, inner = handlers.begin_run(), handlers.begin_run()
    handlers.set("a", outer[0])
    handlers.set("b", inner[0])
    order = [inner, outer] if first == "inner" else [outer, inner]

    handlers.end_run(order[0])
    assert handlers.in_force() == between

    handlers.end_run(order[1])
    assert handlers.in_force() == "none"


def test_of_what_a_run_sets_in_turn_nothing_comes_back(handlers: Handlers) -> None:
    run = handlers.begin_run()
    handlers.set("a", run[0])
    handlers.set("b", run[0])
    assert handlers.in_force() == "b"

    handlers.end_run(run)

    assert handlers.in_force() == "none"


def test_what_a_cell_sets_stays(handlers: Handlers) -> None:
    outer, inner = handlers.begin_run(), handlers.begin_run()
    handlers.set("a", outer[0])
    handlers.set("c", None)
    handlers.set("b", inner[0])

    handlers.end_run(outer)
    assert handlers.in_force() == "b"

    handlers.end_run(inner)
    assert handlers.in_force() == "c"


def test_two_runs_that_take_turns_leave_nothing(handlers: Handlers) -> None:
    first, other = handlers.begin_run(), handlers.begin_run()
    handlers.set("a", first[0])
    handlers.set("b", other[0])
    handlers.set("c", first[0])

    handlers.end_run(first)
    assert handlers.in_force() == "b"

    handlers.end_run(other)
    assert handlers.in_force() == "none"
