"""Send real interrupts at random moments, into every kind of cell, beside all kinds of load."""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING

from tests.kernel.wire import KernelDiedError
from tests.processes import WaitTimedOutError
from tests.stress import choice, kernels
from tests.stress.choice import Since
from tests.stress.load import beside
from tests.stress.report import Fault, Figures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.kernel.driver import KernelDriver
    from tests.kernel.requests import Cell
    from tests.stress.choice import Interrupt
    from tests.stress.kernels import Options


def run(options: Options) -> Figures:
    """Interrupt cells, and look what each interrupt has led to."""
    observer = kernels.Observer(Figures("interrupts"))
    chosen = [
        interrupt
        for interrupt in choice.interrupts(options.seed, options.size(1000, 40))
        if options.wanted(interrupt)
    ]
    if options.stock:
        chosen = [interrupt for interrupt in chosen if interrupt.kind.is_stock]
    with kernels.Supply(stock=options.stock) as supply:
        for load, batch in groupby(chosen, key=lambda interrupt: interrupt.load):
            waiting = list(batch)
            while waiting:
                kernel = supply.get()
                with beside(kernel, load):
                    done = _run_batch(kernel, waiting, observer)
                del waiting[:done]
    return observer.figures


def _run_batch(kernel: KernelDriver, batch: Sequence[Interrupt], observer: kernels.Observer) -> int:
    """Run *batch* until its end or the kernel's. Return how many of it were run."""
    for done, scenario in enumerate(batch, start=1):
        observer.begin()
        _try(kernel, scenario, observer)
        if not kernel.is_alive():
            return done
    return len(batch)


def _try(kernel: KernelDriver, scenario: Interrupt, observer: kernels.Observer) -> None:
    cell = kernels.start(kernel, scenario.kind)
    try:
        is_early = not _interrupt_in_time(kernel, cell, scenario)
    except KernelDiedError:
        observer.fail(Fault.KILLED, scenario, "before the interrupt")
        return
    except WaitTimedOutError:
        observer.fail(Fault.LOST, scenario, "the cell has not begun")
        kernel.kill()
        return
    fault = kernels.fault_after_interrupt(kernel, cell, scenario.kind, counts=not is_early)
    if fault is not None:
        observer.fail(fault, scenario, _ended_in(kernel, cell))
    if "Error in callback" in cell.text:
        observer.fail(Fault.LEFT, scenario, f"{cell.text.strip()[:200]!r}")
    if kernel.is_alive():
        observer.look_for_tasks(kernel, scenario)


def _interrupt_in_time(kernel: KernelDriver, cell: Cell, scenario: Interrupt) -> bool:
    """Interrupt *cell* at the moment that was chosen; return False if it may not have begun by then."""
    if scenario.since is not Since.SENT:
        kernels.wait_begun(cell)
    if scenario.since is Since.WAITS:
        cell.wait_output("waits", 10.0)
    kernels.wait_until(time.monotonic() + scenario.delay_ms / 1000)
    has_begun = bool(cell.messages)
    kernel.interrupt()
    return has_begun


def _ended_in(kernel: KernelDriver, cell: Cell) -> str:
    reply = cell.reply.content if cell.reply is not None else {}
    alive = "" if kernel.is_alive() else f"; {kernels.last_line(kernel)}"
    return f"{reply.get('ename', reply.get('status', 'no reply'))}, {cell.text.strip()[-50:]!r}{alive}"
