"""Make rare races certain: hold the kernel at the very place, and interrupt it there."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

from tests.kernel.requests import Request
from tests.kernel.wire import KernelDiedError
from tests.processes import WaitTimedOutError
from tests.stress import kernels, shim
from tests.stress.cells import BY_NAME, PREPARATION, Kind
from tests.stress.report import Fault, Figures

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver
    from tests.stress.kernels import Options

_HOLDING = dedent(
    """
    import pathlib, weakref

    # Whoever watches the loop wakes it up four times a second. Without that, a lost interrupt stays lost.
    get_ipython().run_line_magic("config", "LoopNB.on_deadlock = 'keep'")
    get_ipython().run_line_magic("config", "LoopNB.blocked_after = 0")

    hold_folder = pathlib.Path({folder!r})
    loop = asyncio.get_running_loop()

    def hold_before(call):
        (hold_folder / call).touch()

    def hold_here():
        (hold_folder / "held").touch()
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            pass

    class HoldsAtItsEnd:
        def __del__(self):
            hold_here()

    class Thing:
        pass

    def watch_and_drop():
        thing = Thing()
        weak = weakref.ref(thing, lambda _weak: hold_here())
        del thing

    def hold_once(lines):
        # Anything but the cell's own text: it would hold the cell that has defined it.
        if any("hold this " + "cell" in line for line in lines):
            hold_here()
        return lines

    get_ipython().input_transformers_cleanup.append(hold_once)

    async def held_sleep(call="epoll_wait"):
        hold_before(call)
        await asyncio.sleep(60)

    async def sleep_beside(callback):
        loop.call_later(0.05, callback)
        await asyncio.sleep(60)

    async def sleep_after(callback):
        callback()
        await asyncio.sleep(60)

    async def exits():
        loop.call_later(0.05, sys.exit)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            print("finally", flush=True)
    """
)


@dataclass(frozen=True)
class Forced:
    """A cell that is interrupted when it is held.

    Attributes:
        place: Where it is held.
        cell: The kind of cell.
        code: Its text.
        change: It is held after so many changes of the handler of SIGINT; 0 if the cell itself asks to be
            held.
    """

    place: str
    cell: str
    code: str
    change: int = 0

    def __str__(self) -> str:
        return f"{self.place}, {self.cell}"


def _each_way(place: str, coro: str) -> list[Forced]:
    """Return the ways in which a cell can wait for *coro*, the text of a call."""
    return [
        Forced(place, "await", f"await {coro}"),
        Forced(place, "%%aloop", f"%%aloop\nawait {coro}"),
        Forced(place, "asyncio.run", f"asyncio.run({coro})"),
        Forced(place, "Runner", f"with asyncio.Runner() as runner:\n    runner.run({coro})"),
    ]


_BEGINNINGS = ("short sleeps", "await", "%%aloop", "asyncio.run")
#: As many changes as any cell makes before it waits; some make fewer.
_CHANGES = 4

BEFORE_WAITS = [
    *_each_way("before epoll_wait", "held_sleep()"),
    Forced("before epoll_wait", "another loop", "other_loop.run_until_complete(held_sleep())"),
    Forced("before clock_nanosleep", "time.sleep", "hold_before('clock_nanosleep')\ntime.sleep(60)"),
    Forced("before sem_wait", "lock.acquire", "hold_before('sem_wait')\nlock.acquire()"),
]
SWALLOWED = [
    *_each_way("in __del__", "sleep_after(HoldsAtItsEnd)"),
    *_each_way("in __del__ in a callback", "sleep_beside(HoldsAtItsEnd)"),
    *_each_way("in a weakref callback", "sleep_after(watch_and_drop)"),
    *_each_way("in a weakref callback in a callback", "sleep_beside(watch_and_drop)"),
]
BEGINNINGS = [
    Forced("in transform_cell", name, f"{BY_NAME[name].code}\n# hold this cell") for name in _BEGINNINGS
] + [
    Forced(f"after change {change} of SIGINT", name, BY_NAME[name].code, change)
    for name in _BEGINNINGS
    for change in range(1, _CHANGES + 1)
]
EXITS = {
    "SystemExit in a callback, %%aloop": "%%aloop\nawait exits()",
    "SystemExit in a callback, asyncio.run": dedent(
        """
        try:
            asyncio.run(exits())
        except SystemExit:
            print("after", flush=True)
        """
    ),
}


def held_kernels(folder: Path) -> kernels.Supply:
    """Return a supply of kernels that are held by files in *folder*.

    Raises:
        NoShimError: They cannot be held here.
    """
    return kernels.Supply(shim.build(folder), PREPARATION + _HOLDING.format(folder=str(folder)))


def run(options: Options) -> Figures:
    """Interrupt kernels that are held."""
    observer = kernels.Observer(Figures("forced"))
    chosen = [point for point in [*BEFORE_WAITS, *SWALLOWED, *BEGINNINGS] if options.wanted(point)]
    not_held: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="loopnb-hold-") as name:
        folder = Path(name)
        try:
            supply = held_kernels(folder)
        except shim.NoShimError as error:
            observer.figures.left_out = str(error)
            return observer.figures
        with supply:
            for scenario in chosen * options.size(5, 1):
                if not _try(supply.get(), folder, scenario, observer):
                    not_held[str(scenario)] += 1
            for scenario_name, code in EXITS.items():
                if options.wanted(scenario_name):
                    _try_exit(supply.get(), scenario_name, code, observer)
    if not_held:
        names = ", ".join(f"{scenario} ({count})" for scenario, count in not_held.items())
        observer.figures.notes.append(f"not held, and not counted: {names}")
    return observer.figures


def _try(kernel: KernelDriver, folder: Path, scenario: Forced, observer: kernels.Observer) -> bool:
    """Hold a cell and interrupt it; return False if it could not be held."""
    fault, was_held = interrupt_held(kernel, folder, scenario)
    if not was_held:
        return False
    observer.begin()
    if fault is not None:
        observer.fail(fault, scenario, "" if kernel.is_alive() else kernels.last_line(kernel))
    elif kernel.is_alive():
        observer.look_for_tasks(kernel, scenario)
    return True


def interrupt_held(kernel: KernelDriver, folder: Path, scenario: Forced) -> tuple[Fault | None, bool]:
    """Hold a cell and interrupt it; return what went wrong, and whether it could be held."""
    kind = Kind(str(scenario), scenario.code)
    shim.forget(folder)
    if scenario.change:
        # An earlier request that was answered changes it, too, before the kernel says that it is idle.
        Request(kernel.wire, kernel.wire.send("shell", "kernel_info_request", {})).wait_idle()
        shim.ask(folder, "sigaction", str(scenario.change))
    cell = kernels.start(kernel, kind)
    was_held = shim.is_held(folder, 1.0 if scenario.change else 10.0)
    if not was_held:
        with suppress(WaitTimedOutError, KernelDiedError):
            kernels.wait_begun(cell)  # on a busy machine it may not have: what comes before is ignored
        was_held = shim.is_held(folder, 1.0)
    kernel.interrupt()
    fault = kernels.fault_after_interrupt(kernel, cell, kind)
    if fault is None and "Error in callback" in cell.text:
        fault = Fault.LEFT
    return fault, was_held


def _try_exit(kernel: KernelDriver, name: str, code: str, observer: kernels.Observer) -> None:
    observer.begin()
    cell = kernels.start(kernel, Kind(name, code))
    try:
        if kernels.wait_ended(kernel, cell, kernels.LOST_AFTER_S) is None:
            observer.fail(Fault.LOST, name)
            kernel.kill()
            return
        cell.wait(kernels.REPLY_WITHIN_S)
        time.sleep(0.2)
    except KernelDiedError:
        observer.fail(Fault.KILLED, name)
        return
    except WaitTimedOutError:
        observer.fail(Fault.NO_REPLY, name)
        kernel.kill()
        return
    words = [word for word in cell.stdout.split() if word in ("finally", "after")]
    if words not in (["finally"], ["finally", "after"]):
        observer.fail(Fault.LEFT, name, f"printed {words}")
    observer.look_for_tasks(kernel, name)
