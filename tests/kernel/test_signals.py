"""Handlers of signals: called for their own cell or run only, gone with it, and never the kernel's end."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cells import below, dedented
from tests.stress.choice import Handler
from tests.stress.handlers import prepared_kernels, try_one
from tests.stress.kernels import Observer
from tests.stress.report import Figures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.driver import KernelDriver
    from tests.kernel.requests import CellResult
    from tests.stress.kernels import Supply

#: A sample of `tests/stress/handlers.py`: each has ended a kernel, or stayed.
SAMPLE = (
    ("add_signal_handler", "plain", "SIGINT", "SystemExit"),
    ("add_signal_handler", "await", "SIGINT", "KeyboardInterrupt"),
    ("add_signal_handler", "await", "SIGALRM", "SystemExit"),
    ("add_signal_handler", "-b", "SIGALRM", "KeyboardInterrupt"),
    ("signal.signal", "plain", "SIGALRM", "KeyboardInterrupt"),
    ("signal.signal", "await", "SIGALRM", "ValueError"),
    ("signal.signal", "asyncio.run", "SIGALRM", "ValueError"),
    ("signal.signal", "Runner", "SIGTERM", "returns"),
    ("signal.signal", "%%aloop", "SIGALRM", "SystemExit"),
    ("signal.signal", "-b", "SIGALRM", "ValueError"),
    ("add_signal_handler", "plain", "SIGTERM", "SystemExit"),
    ("signal.signal", "await", "SIGTERM", "KeyboardInterrupt"),
)


@pytest.fixture(scope="module")
def kernels() -> Iterator[Supply]:
    """Keep a kernel; there is another one when a combination has ended it."""
    with prepared_kernels() as kernels:
        yield kernels


@pytest.mark.parametrize("combination", SAMPLE, ids=" ".join)
def test_a_handler_ends_no_kernel_and_takes_no_interrupt(
    kernels: Supply, combination: tuple[str, str, str, str]
) -> None:
    observer = Observer(Figures("handlers"))

    try_one(kernels.get(), Handler(*combination), observer)

    assert observer.figures.failures == []


def interrupted(kernel: KernelDriver, code: str) -> CellResult:
    """Interrupt a cell once it has said that it waits, and return its end."""
    cell = kernel.start(dedented(code), stop_on_error=False)
    cell.wait_output("waits")
    kernel.interrupt()
    return cell.wait()


@pytest.fixture(autouse=True)
def bots(request: pytest.FixtureRequest) -> None:
    """Define what bots do: a handler that raises, and code that catches that."""
    if "kernel" in request.fixturenames:
        request.getfixturevalue("kernel").run(
            """
            import asyncio, loopnb, signal, time
            loop = asyncio.get_running_loop()

            def bye():
                raise SystemExit

            def polls():
                loop.add_signal_handler(signal.SIGINT, bye)
                print("waits", flush=True)
                try:
                    loop.run_forever()
                except SystemExit:
                    print("bot ended")

            async def main():
                polls()
                return "main ended"
            """
        )


@pytest.mark.parametrize(
    "runs", ["polls()", "asyncio.run(main())", "await main()", below("%%aloop", "await main()")]
)
def test_what_a_sigint_handler_raises_goes_to_the_innermost_run(kernel: KernelDriver, runs: str) -> None:
    ended = interrupted(kernel, runs)

    assert ended.status == "ok"
    assert "bot ended" in ended.stdout
    later = interrupted(kernel, "print('waits', flush=True); await asyncio.sleep(60)")
    assert later.ename in {"CancelledError", "KeyboardInterrupt"}
    assert "bot ended" not in later.stdout


@pytest.mark.parametrize("sets", ["loop.add_signal_handler", "signal.signal"])
@pytest.mark.parametrize(
    "waits",
    ["await asyncio.sleep(60)", "[time.sleep(0.1) for _ in range(600)]", "asyncio.run(asyncio.sleep(60))"],
)
def test_an_interrupt_of_a_cell_calls_no_handler_of_the_background(
    kernel: KernelDriver, sets: str, waits: str
) -> None:
    kernel.run(
        f"""
        %%aloop -b -n serves -o serving
        called = []
        {sets}(signal.SIGINT, lambda *_: called.append(1))
        await asyncio.sleep(60)
        """
    )

    ended = interrupted(kernel, f"print('waits'); {waits}")

    assert ended.ename in {"CancelledError", "KeyboardInterrupt"}
    assert kernel.value("called") == []
    assert kernel.value("[task.name for task in loopnb.tasks()]") == ["serves"]
    kernel.run("%loopnb cancel serves")


def test_a_thread_adds_no_handler_that_a_cells_interrupt_calls(kernel: KernelDriver) -> None:
    kernel.run(
        """
        called = []
        async def adds():
            loop.add_signal_handler(signal.SIGINT, called.append, 1)
            await asyncio.sleep(60)
        asyncio.run_coroutine_threadsafe(adds(), loop)
        """
    )
    kernel.run("await asyncio.sleep(0.05)")

    ended = interrupted(kernel, "print('waits', flush=True); await asyncio.sleep(60)")

    assert ended.ename in {"CancelledError", "KeyboardInterrupt"}
    assert kernel.value("called") == []
    kernel.run("%loopnb cancel --all")


def test_a_server_that_takes_signals_leaves_the_kernel_its_own(kernel: KernelDriver) -> None:
    kernel.run(
        """
        %%aloop -b -n web
        # as uvicorn does
        before = {sig: signal.signal(sig, lambda *_: None) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            await asyncio.sleep(60)
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)
        """
    )
    assert kernel.value("signal.getsignal(signal.SIGTERM) is signal.SIG_DFL") is False
    cell = kernel.start("print('waits', flush=True); await asyncio.sleep(60)")
    cell.wait_output("waits")

    kernel.interrupt()

    assert cell.wait().ename in {"CancelledError", "KeyboardInterrupt"}
    kernel.run("%loopnb cancel web")
    assert kernel.value("signal.getsignal(signal.SIGTERM) is signal.SIG_DFL") is True


@pytest.mark.parametrize("sets", ["loop.add_signal_handler", "signal.signal"])
@pytest.mark.parametrize("place", ["", "%%aloop -b -n setter"])
def test_what_a_handler_raises_while_the_kernel_idles_is_logged_with_its_cell(
    fresh_kernel: KernelDriver, sets: str, place: str
) -> None:
    fresh_kernel.run("import asyncio, signal; loop = asyncio.get_running_loop()")
    setting = fresh_kernel.run(
        below(
            place,
            f"""
            def fails(*_):
                print("called", flush=True)
                raise SystemExit('from the handler')
            {sets}(signal.SIGALRM, fails)
            await asyncio.sleep(60 if {place!r} else 0)
            """,
        )
    )
    os.kill(fresh_kernel.process.pid, signal.SIGALRM)
    setting.cell.wait_late("called")  # in the next cell it would be that cell's error
    said = f"a handler of SIGALRM, set by In[{setting.execution_count}], raised SystemExit: from the handler"
    fresh_kernel.wait_logged(said)
    fresh_kernel.run("await asyncio.sleep(0.1)")

    assert fresh_kernel.log().count(said) == 1


def test_a_handler_from_before_loading_gets_no_interrupt_of_a_cell(stock_kernel: KernelDriver) -> None:
    stock_kernel.run(
        """
        import asyncio, signal
        loop, called = asyncio.get_running_loop(), []
        loop.add_signal_handler(signal.SIGINT, called.append, 1)
        loop.add_signal_handler(signal.SIGUSR1, print)
        """
    )
    stock_kernel.run("%load_ext loopnb")

    ended = interrupted(stock_kernel, "print('waits', flush=True); await asyncio.sleep(60)")

    assert ended.ename in {"CancelledError", "KeyboardInterrupt"}
    assert stock_kernel.value("called") == []


def test_a_widgets_callback_is_part_of_no_run(kernel: KernelDriver) -> None:
    kernel.run(
        """
        opened = asyncio.Event()
        def opens(comm, message):
            signal.signal(signal.SIGALRM, lambda *_: None)
            opened.set()
        get_ipython().kernel.comm_manager.register_target("opens", opens)
        """
    )
    kernel.open_comm("opens")
    kernel.run("await asyncio.wait_for(opened.wait(), 20)")

    assert kernel.value("signal.signal(signal.SIGALRM, signal.SIG_DFL) is signal.SIG_DFL") is False
