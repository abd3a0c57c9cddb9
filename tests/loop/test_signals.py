"""Whose a signal is, when a handler goes, and where what it raises goes. Without a kernel."""

from __future__ import annotations

import asyncio
import signal
import sys
from signal import getsignal as stock_getsignal  # bound before we patch it
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.frames import outwards
from loopnb.loop.signals import Signals
from tests.loop.notebook import Notebook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="loops there have no add_signal_handler()")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Make a loop that the test turns itself."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def notebook() -> Notebook:
    """Return the notebook that the loop belongs to."""
    return Notebook()


@pytest.fixture
def signals(loop: asyncio.AbstractEventLoop, notebook: Notebook) -> Iterator[Signals]:
    """Follow the signal handlers that the test sets; put back those from before."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1)
    before = {sig: signal.getsignal(sig) for sig in numbers}
    signals = Signals(loop, notebook)
    signals.install()
    yield signals
    signals.restore()
    for sig, handler in before.items():
        signal.signal(sig, handler)


class Called:
    """A handler that counts its calls and raises *error* if it is given one."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.count = 0
        self._error = error

    def __call__(self, *_args: object) -> None:
        self.count += 1
        if self._error is not None:
            raise self._error


def turn(loop: asyncio.AbstractEventLoop, sig: signal.Signals | None = None) -> None:
    """Let *sig* come while the loop runs, and turn it on for some passes."""

    async def passes() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    if sig is not None:
        loop.call_soon(signal.raise_signal, sig)
    loop.run_until_complete(passes())


def ends(loop: asyncio.AbstractEventLoop) -> tuple[asyncio.Task[None], Callable[[], None]]:
    """Begin a run; return its main task, and a function that ends it."""
    event = asyncio.Event()

    async def main() -> None:
        await event.wait()

    task = loop.create_task(main())

    def end() -> None:
        event.set()
        turn(loop)

    return task, end


def test_sigint_calls_no_handler_of_the_loop_while_another_stands(
    loop: asyncio.AbstractEventLoop, signals: Signals
) -> None:
    loops, own = Called(), Called()
    loop.add_signal_handler(signal.SIGINT, loops)
    signal.signal(signal.SIGINT, own)

    turn(loop, signal.SIGINT)

    assert (loops.count, own.count) == (0, 1)


def test_a_sigint_handler_goes_with_its_cell(loop: asyncio.AbstractEventLoop, signals: Signals) -> None:
    before, handler = signal.getsignal(signal.SIGINT), Called()
    loop.add_signal_handler(signal.SIGINT, handler)
    turn(loop, signal.SIGINT)

    signals.end_of_cell()

    assert handler.count == 1
    assert signal.getsignal(signal.SIGINT) is before
    assert loop.remove_signal_handler(signal.SIGINT) is False


def test_a_sigint_handler_of_a_run_that_lives_on_goes_with_its_cell(
    loop: asyncio.AbstractEventLoop, notebook: Notebook, signals: Signals
) -> None:
    before = signal.getsignal(signal.SIGINT)
    notebook.run, end = ends(loop)
    signal.signal(signal.SIGINT, Called())

    signals.end_of_cell()

    assert signal.getsignal(signal.SIGINT) is before
    end()
    assert signal.getsignal(signal.SIGINT) is before


def test_handlers_of_other_signals_that_a_cell_sets_stay(
    loop: asyncio.AbstractEventLoop, signals: Signals
) -> None:
    loops, own = Called(), Called()
    loop.add_signal_handler(signal.SIGTERM, loops)
    signal.signal(signal.SIGALRM, own)

    signals.end_of_cell()
    turn(loop, signal.SIGTERM)
    turn(loop, signal.SIGALRM)

    assert (loops.count, own.count) == (1, 1)


def test_a_sigint_handler_of_the_background_is_never_in_place(
    loop: asyncio.AbstractEventLoop, notebook: Notebook, signals: Signals
) -> None:
    before, handler = signal.getsignal(signal.SIGINT), Called()
    notebook.is_executing = False
    notebook.run, end = ends(loop)

    loop.add_signal_handler(signal.SIGINT, handler)
    returned = signal.signal(signal.SIGINT, handler)

    assert signal.getsignal(signal.SIGINT) is returned is before
    assert loop.remove_signal_handler(signal.SIGINT) is True
    assert loop.remove_signal_handler(signal.SIGINT) is False
    end()


@pytest.fixture
def ours(signals: Signals) -> Callable[[int, object], None]:
    """Put in a handler of SIGINT as loopnb does while a cell waits: nobody notes it as a user's."""

    def ours(_signum: int, _frame: object) -> None: ...

    ours.__module__ = "loopnb.shell.interrupts"
    signals.restore()
    signal.signal(signal.SIGINT, ours)
    signals.install()
    return ours


def handler_in_place(signals: Signals) -> object:
    """Return Python's handler of SIGINT, as it is without our patches."""
    signals.restore()
    in_place: object = signal.getsignal(signal.SIGINT)
    signals.install()
    return in_place


def test_removing_a_runs_sigint_handler_leaves_the_cell_its_own(
    loop: asyncio.AbstractEventLoop, notebook: Notebook, signals: Signals, ours: object
) -> None:
    notebook.run, end = ends(loop)
    loop.add_signal_handler(signal.SIGINT, Called())

    loop.remove_signal_handler(signal.SIGINT)

    assert handler_in_place(signals) is ours
    end()


def test_our_sigint_handler_looks_like_pythons_own_and_comes_back_for_it(
    signals: Signals, ours: object
) -> None:
    default, handler = signal.default_int_handler, Called()

    assert signal.getsignal(signal.SIGINT) is default
    assert signal.signal(signal.SIGINT, default) is default
    assert handler_in_place(signals) is ours

    assert signal.signal(signal.SIGINT, handler) is default
    assert signal.getsignal(signal.SIGINT) is handler
    assert signal.signal(signal.SIGINT, default) is handler
    assert handler_in_place(signals) is ours


def test_a_runner_of_another_loop_sets_its_handler_over_ours(signals: Signals, ours: object) -> None:
    async def raises() -> object:
        before = signal.getsignal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return before
        return None

    with asyncio.Runner() as runner:
        during = runner.run(raises())

    assert "Runner._on_sigint" in repr(during)
    assert handler_in_place(signals) is ours


def test_a_sigint_handler_of_the_background_is_in_place_over_ours_for_the_present_step(
    loop: asyncio.AbstractEventLoop, notebook: Notebook, signals: Signals, ours: object
) -> None:
    notebook.is_executing, handler = False, Called()
    notebook.run, end = ends(loop)

    signal.signal(signal.SIGINT, handler)
    signal.raise_signal(signal.SIGINT)

    assert handler.count == 1
    end()
    assert handler_in_place(signals) is ours


def test_the_user_sees_their_own_handler(signals: Signals) -> None:
    first, second = Called(), Called()
    signal.signal(signal.SIGALRM, first)

    assert signal.getsignal(signal.SIGALRM) is first
    assert signal.signal(signal.SIGALRM, second) is first


def test_restoring_puts_the_users_handlers_in_place(
    loop: asyncio.AbstractEventLoop, signals: Signals
) -> None:
    handler = Called()
    signal.signal(signal.SIGALRM, handler)
    loop.add_signal_handler(signal.SIGUSR1, handler, "an argument")

    signals.restore()

    in_place: object = signal.getsignal(signal.SIGALRM)
    assert in_place is handler
    assert "Called" in repr(vars(loop)["_signal_handlers"][signal.SIGUSR1])
    turn(loop, signal.SIGALRM)
    turn(loop, signal.SIGUSR1)
    assert handler.count == 2
    loop.remove_signal_handler(signal.SIGUSR1)


def test_restoring_leaves_no_trace(loop: asyncio.AbstractEventLoop) -> None:
    owners = (signal, *type(loop).__mro__)
    before = [dict(vars(owner)) for owner in owners]
    signals = Signals(loop, Notebook())

    signals.install()
    signals.restore()

    assert [dict(vars(owner)) for owner in owners] == before


# -- what handlers raise -------------------------------------------------------------------------

FATAL = [KeyboardInterrupt("x"), SystemExit("x")]


@pytest.mark.parametrize("error", FATAL, ids=repr)
@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGALRM])
def test_what_a_handler_of_the_loop_raises_goes_to_the_cell_that_waits(
    loop: asyncio.AbstractEventLoop,
    notebook: Notebook,
    signals: Signals,
    sig: signal.Signals,
    error: BaseException,
) -> None:
    notebook.is_waiting = True
    loop.add_signal_handler(sig, Called(error))

    turn(loop, sig)

    assert notebook.heard == [f"cell: {error!r}"]


@pytest.mark.parametrize("error", FATAL, ids=repr)
@pytest.mark.parametrize(
    ("sig", "becomes"), [(signal.SIGTERM, "end"), (signal.SIGALRM, "SIGALRM: {error!r}")]
)
def test_without_a_cell_it_is_reported_and_on_sigterm_ends_the_notebook(
    loop: asyncio.AbstractEventLoop,
    notebook: Notebook,
    signals: Signals,
    sig: signal.Signals,
    error: BaseException,
    becomes: str,
) -> None:
    loop.add_signal_handler(sig, Called(error))
    notebook.is_executing = False

    turn(loop, sig)

    assert notebook.heard == [becomes.format(error=error)]


@pytest.mark.parametrize("error", [*FATAL, ValueError("x")], ids=repr)
@pytest.mark.parametrize("is_waiting", [True, False])
def test_what_pythons_own_handler_raises_in_select_does_not_end_the_loop(
    loop: asyncio.AbstractEventLoop,
    notebook: Notebook,
    signals: Signals,
    error: BaseException,
    is_waiting: bool,
) -> None:
    notebook.is_waiting = is_waiting
    came = asyncio.Event()
    notebook.on_heard = came.set
    signal.signal(signal.SIGALRM, Called(error))
    # So the loop has Python write a byte to its socket for each signal. Otherwise a signal that comes just
    # before the system call in select does not end it.
    loop.add_signal_handler(signal.SIGUSR1, Called())

    async def waits() -> None:
        # From the loop itself, in a pass in which nothing else runs: in a step, its code would get the error.
        # Before Python 3.12, `wait_for` makes a task, which steps in the next pass.
        loop.call_soon(lambda: loop.call_soon(signal.setitimer, signal.ITIMER_REAL, 0.01))
        await asyncio.wait_for(came.wait(), 10)

    loop.run_until_complete(waits())

    assert notebook.heard == [f"cell: {error!r}" if is_waiting else f"SIGALRM: {error!r}"]


def test_what_pythons_own_handler_raises_between_two_passes_does_not_end_the_loop(
    loop: asyncio.AbstractEventLoop, notebook: Notebook, signals: Signals
) -> None:
    signal.signal(signal.SIGALRM, Called(SystemExit("x")))
    in_place: Any = stock_getsignal(signal.SIGALRM)

    async def is_called_as_if_between() -> None:
        outside = next(frame for frame in outwards(sys._getframe()) if frame.f_code.co_name == "run_forever")
        in_place(signal.SIGALRM, outside)
        await asyncio.sleep(0)

    loop.run_until_complete(is_called_as_if_between())

    assert notebook.heard == ["SIGALRM: SystemExit('x')"]


def test_the_code_that_a_signal_interrupts_gets_what_the_handler_raises(
    loop: asyncio.AbstractEventLoop, signals: Signals
) -> None:
    signal.signal(signal.SIGALRM, Called(TimeoutError("too long")))

    async def blocks() -> str:
        try:
            signal.raise_signal(signal.SIGALRM)
        except TimeoutError as error:
            return str(error)
        return "nothing"

    assert loop.run_until_complete(blocks()) == "too long"


def test_outside_the_loop_a_handler_raises_as_ever(signals: Signals) -> None:
    signal.signal(signal.SIGALRM, Called(SystemExit("x")))

    with pytest.raises(SystemExit):
        signal.raise_signal(signal.SIGALRM)


def test_a_handler_that_is_none_is_refused_as_ever(
    loop: asyncio.AbstractEventLoop, notebook: Notebook, signals: Signals
) -> None:
    async def coroutine() -> None: ...

    with pytest.raises(TypeError):
        signal.signal(signal.SIGALRM, "nothing to call")  # type: ignore[arg-type]  # the subject
    with pytest.raises(TypeError):
        loop.add_signal_handler(signal.SIGALRM, coroutine)
