"""Set signal handlers in cells, in each way, and look what they do to the kernel and to later cells."""

from __future__ import annotations

import ast
import os
import signal
import time
from textwrap import dedent, indent
from typing import TYPE_CHECKING

from tests.kernel.wire import KernelDiedError
from tests.processes import WaitTimedOutError
from tests.stress import choice, kernels
from tests.stress.cells import FIVE, PREPARATION
from tests.stress.report import Fault, Figures

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver
    from tests.stress.choice import Handler
    from tests.stress.kernels import Options

_REACTIONS = dedent(
    """
    called = []
    loop = asyncio.get_running_loop()

    def returns(*_args):
        called.append(1)

    def raises(error):
        def react(*_args):
            called.append(1)
            raise error("from the handler")
        return react

    reactions = {
        "returns": returns,
        "ValueError": raises(ValueError),
        "KeyboardInterrupt": raises(KeyboardInterrupt),
        "SystemExit": raises(SystemExit),
    }

    async def witness():
        # Writes a file when the kernel ends in order: then the `finally` blocks of its tasks run.
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)
            open("in-order", "w").close()

    witnessing = asyncio.create_task(witness(), name="witness")

    def stands(signum):
        handler = signal.getsignal(signum)
        return handler in reactions.values() or getattr(handler, "__name__", "") == "_sighandler_noop"
    """
)
_SETS = {
    "signal.signal": "signal.signal({signum}, reactions['{reaction}'])",
    "add_signal_handler": "asyncio.get_running_loop().add_signal_handler({signum}, reactions['{reaction}'])",
}
_WAITS = dedent(
    """
    print("set", flush=True)
    end = time.monotonic() + 0.5
    while not called and time.monotonic() < end:
        {sleep}(0.01)
    """
)
_AWAITS = _WAITS.format(sleep="await asyncio.sleep")


#: The flag with which IPython compiles cells.
TOP_LEVEL_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def code(handler: Handler) -> str:
    """Return the text of the cell that sets *handler* and waits half a second for it to be called."""
    sets = _SETS[handler.api].format(signum=f"signal.{handler.signal}", reaction=handler.reaction)
    awaits = sets + _AWAITS
    main = f"async def main():\n{indent(awaits, '    ')}\n"
    return {
        "plain": sets + _WAITS.format(sleep="time.sleep"),
        "await": awaits,
        "asyncio.run": f"{main}asyncio.run(main())",
        "Runner": f"{main}with asyncio.Runner() as runner:\n    runner.run(main())",
        "%%aloop": f"%%aloop\n{awaits}",
        "-b": f"%%aloop -b -n setter\n{awaits}",
    }[handler.place]


def run(options: Options) -> Figures:
    """Try the combinations, each followed by five cells that are interrupted."""
    observer = kernels.Observer(Figures("handlers"))
    with prepared_kernels() as supply:
        for handler in choice.handlers(options.seed, options.size(144, 10)):
            if options.wanted(handler):
                try_one(supply.get(), handler, observer)
    return observer.figures


def prepared_kernels() -> kernels.Supply:
    """Return a supply of the kernels that `try_one` needs."""
    return kernels.Supply(preparation=PREPARATION + _REACTIONS)


_IDLE = "while the kernel idles"
_LATER = "in a later cell"


def try_one(kernel: KernelDriver, handler: Handler, observer: kernels.Observer) -> None:
    """Have a cell of *kernel* set *handler*, send it its signal, and interrupt five later cells."""
    observer.begin()
    step = _IDLE if handler.place == "-b" else "in its cell"
    try:
        _set_and_signal(kernel, handler)
        if handler.signal != "SIGINT" and kernel.value(f"stands(signal.{handler.signal})"):
            step = _IDLE
            _signal_idle(kernel, handler)
        step = _LATER
        _interrupt_five(kernel, handler, observer)
        if kernel.is_alive():
            _look_for_handlers(kernel, handler, observer)
    except KernelDiedError:
        ended_in_order = (kernel.folder / "in-order").exists()
        # The loop calls its handlers when a plain cell has ended, so the kernel need not idle for long.
        if step == _LATER or not (handler.may_end and ended_in_order):
            observer.fail(Fault.KILLED, handler, f"{step}: {kernels.last_line(kernel)}")
    except (AssertionError, WaitTimedOutError) as error:
        observer.fail(Fault.LOST, handler, f"{step}: {str(error).splitlines()[0]}")
        kernel.kill()


def _set_and_signal(kernel: KernelDriver, handler: Handler) -> None:
    kernel.value("called.clear()")
    cell = kernel.start(code(handler), stop_on_error=False)
    cell.wait_output("set", 5.0)
    if handler.place == "-b":
        cell.wait(5.0)  # the signal is for its task, not for the cell
    os.kill(kernel.process.pid, getattr(signal, handler.signal))
    cell.wait(5.0)
    time.sleep(0.6 if handler.place == "-b" else 0.05)  # its task waits half a second to be signalled


def _signal_idle(kernel: KernelDriver, handler: Handler) -> None:
    time.sleep(0.05)  # the kernel is to be idle
    os.kill(kernel.process.pid, getattr(signal, handler.signal))
    time.sleep(0.5 if handler.may_end else 0.1)
    assert kernel.value("1 + 1", timeout=5) == 2


def _interrupt_five(kernel: KernelDriver, handler: Handler, observer: kernels.Observer) -> None:
    for kind in FIVE:
        cell = kernels.start(kernel, kind)
        cell.wait_output("waits", 10.0)
        kernel.interrupt()
        fault = kernels.fault_after_interrupt(kernel, cell, kind)
        if fault is not None:
            observer.fail(fault, handler, f"{_LATER}, {kind.name}")
        if not kernel.is_alive():
            return


def _look_for_handlers(kernel: KernelDriver, handler: Handler, observer: kernels.Observer) -> None:
    signum = f"signal.{handler.signal}"
    stands = kernel.value(f"stands({signum})")
    if handler.stays is False and stands:
        observer.fail(Fault.LEFT, handler, kernel.value(f"repr(signal.getsignal({signum}))"))
    if handler.stays is True and not stands:
        observer.fail(Fault.LEFT, handler, "a handler that a cell's own code has set is gone")
    kernel.value(f"loop.remove_signal_handler({signum})")
    if handler.signal != "SIGINT":
        kernel.value(f"repr(signal.signal({signum}, signal.SIG_DFL))")
