"""Send bursts of interrupts into cells of many kinds, as if somebody hammers on the stop button."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tests.kernel.wire import KernelDiedError
from tests.processes import WaitTimedOutError
from tests.stress import choice, kernels
from tests.stress.report import Fault, Figures

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver
    from tests.stress.choice import Burst
    from tests.stress.kernels import Options

#: Up to CPython 3.12, an error raised inside `Thread.is_alive` may make Python believe for good that a living
#: thread has ended. ipykernel asks so about the thread that sends output. Then it also sends from the main
#: thread, and messages mix. That happens without loopnb, too, so it is counted, but is no fault.
_MAY_MISJUDGE_THREADS = sys.version_info < (3, 13)
_MISJUDGED = "not get_ipython().kernel.iopub_thread.thread.is_alive()"

#: Interrupts in a burst, and seconds between two of them.
_COUNT, _EVERY_S = 8, 0.0005


def run(options: Options) -> Figures:
    """Interrupt cells, and look what each burst has led to."""
    observer = kernels.Observer(Figures("bursts"))
    misjudged = 0
    with kernels.Supply(stock=options.stock) as supply:
        for scenario in choice.bursts(options.seed, options.size(600, 30)):
            if options.wanted(scenario) and (scenario.kind.is_stock or not options.stock):
                observer.begin()
                misjudged += _try(supply.get(), scenario, observer)
    if misjudged:
        observer.figures.notes.append(
            f"{misjudged} bursts made Python take the thread that sends output for ended (README, 'Rarely')"
        )
    return observer.figures


def _try(kernel: KernelDriver, scenario: Burst, observer: kernels.Observer) -> bool:
    """Interrupt a cell; return True if Python has misjudged a thread. Then the kernel is no longer used."""
    fault = None
    try:
        cell = kernels.start(kernel, scenario.kind)
        kernels.wait_begun(cell)
        _interrupt(kernel, scenario)
        fault = kernels.fault_after_interrupt(kernel, cell, scenario.kind)
        if fault is None:
            if "Error in callback" in cell.text:
                observer.fail(Fault.LEFT, scenario, f"{cell.text.strip()[:200]!r}")
            names = kernels.tasks_left(kernel)
            if names:
                observer.fail(Fault.LEFT, scenario, f"tasks {names}")
                kernel.kill()
            elif _MAY_MISJUDGE_THREADS and kernel.value(_MISJUDGED, timeout=5):
                kernel.kill()
                return True
    except (KernelDiedError, ProcessLookupError):
        fault = Fault.NO_REPLY if kernel.is_alive() else Fault.KILLED
    except WaitTimedOutError:
        fault = Fault.NO_REPLY
    is_broken = _MAY_MISJUDGE_THREADS and "Invalid Signature" in (kernel.wire.ended or "")
    if fault is not None and not is_broken:
        observer.fail(fault, scenario, kernels.last_line(kernel))
    if fault is not None:
        kernel.kill()
    return is_broken


def _interrupt(kernel: KernelDriver, scenario: Burst) -> None:
    first = time.monotonic() + scenario.delay_ms / 1000
    for number in range(_COUNT):
        kernels.wait_until(first + number * _EVERY_S)
        kernel.interrupt()
