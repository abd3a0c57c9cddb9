"""Supply kernels for the stress, a new one when the last has died, and handle their cells."""

from __future__ import annotations

import shlex
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kernel.driver import KernelDriver
from tests.kernel.wire import KernelDiedError
from tests.processes import WaitTimedOutError
from tests.stress.cells import ENDED, NOTES_ENDS, PREPARATION
from tests.stress.report import Failure, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from tests.kernel.requests import Cell
    from tests.stress.cells import Kind
    from tests.stress.report import Figures

#: An interrupt is lost if the cell's code still runs so many seconds later. By itself, the code runs a
#: minute.
LOST_AFTER_S = 3.0
#: Seconds that a cell has from the end of its code to its reply. In between IPython formats the traceback:
#: beside two busy threads, on a busy machine, that alone takes seconds.
REPLY_WITHIN_S = 30.0
#: Seconds from the idle status of a cell to its reply, which is sent earlier, but on another channel.
_BEHIND_IDLE_S = 3.0
#: Seconds after which a cell that needs another interrupt gets it. For Python, two at once are one.
NEXT_PRESS_S = 0.5

_TASKS = (
    "[task.name for task in loopnb.tasks()] if 'loopnb' in get_ipython().extension_manager.loaded else []"
)


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Attributes:
        seed: The seed of all random choices.
        quick: Run a sample of a minute.
        only: Run the scenarios whose name holds this text.
        times: How many times as many scenarios as usual.
        stock: Run without loopnb, to compare.
    """

    seed: int
    quick: bool = False
    only: str = ""
    times: float = 1.0
    stock: bool = False

    def __str__(self) -> str:
        """Return the options of the command line, without the seed."""
        words = [f"--{name}" for name in ("quick", "stock") if getattr(self, name)]
        words += [f"--only={shlex.quote(self.only)}"] if self.only else []
        words += [f"--times={self.times:g}"] if self.times != 1 else []
        return " ".join(words)

    def size(self, full: int, quick: int) -> int:
        """Return how many scenarios to run."""
        return max(1, round((quick if self.quick else full) * self.times))

    def wanted(self, scenario: object) -> bool:
        """Return True if *scenario* is one to run."""
        return self.only in str(scenario)


@dataclass
class Observer:
    """Counts scenarios and prints each failure when it is seen."""

    figures: Figures

    def begin(self) -> None:
        """Count one more scenario."""
        self.figures.tried += 1

    def fail(self, fault: Fault, scenario: object, detail: str = "") -> None:
        """Note a failure of *scenario*."""
        failure = Failure(fault, str(scenario), detail, self.figures.tried)
        self.figures.failures.append(failure)
        print(f"  {failure}", flush=True)

    def look_for_tasks(self, kernel: KernelDriver, scenario: object) -> None:
        """Note the tasks that *scenario* has left, and end the kernel if there are any."""
        try:
            names = tasks_left(kernel)
        except WaitTimedOutError:
            names = ["the kernel does not answer"]
        except KernelDiedError:
            self.fail(Fault.KILLED, scenario, "after its end")
            return
        if names:
            self.fail(Fault.LEFT, scenario, f"tasks {names}")
            kernel.kill()


@dataclass
class Supply:
    """One kernel at a time with loopnb loaded; a new one after the last has died.

    Attributes:
        env: Environment variables for the kernels.
        preparation: A cell that each runs when loopnb has been loaded.
        stock: Leave loopnb out.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    preparation: str = PREPARATION
    stock: bool = False

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="loopnb-stress-", ignore_cleanup_errors=True)
        self._count = 0
        self._kernel: KernelDriver | None = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.drop()
        self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """A folder that goes with this object."""
        return Path(self._folder.name)

    def get(self) -> KernelDriver:
        """Return a kernel that lives. It starts one if there is none, which takes seconds."""
        if self._kernel is None or not self._kernel.is_alive():
            self.drop()
            self._count += 1
            folder = self.folder / str(self._count)
            folder.mkdir()
            self._kernel = KernelDriver(folder, env=self.env)
            self._kernel.launch()
            self._kernel.run(NOTES_ENDS)
            if not self.stock:
                self._kernel.run("%load_ext loopnb")
            self._kernel.run(self.preparation)
        return self._kernel

    def drop(self) -> None:
        """End the kernel at once; the next is a fresh one."""
        if self._kernel is not None:
            self._kernel.kill()
            self._kernel = None


def start(kernel: KernelDriver, kind: Kind) -> Cell:
    """Send a cell of that *kind*. Its error does not abort the cells behind it."""
    (kernel.folder / ENDED).unlink(missing_ok=True)
    return kernel.start(kind.code, stop_on_error=False, allow_stdin=True)


def wait_begun(cell: Cell, timeout: float = 10.0) -> None:
    """Wait until the kernel has said that it is busy with *cell*."""
    cell.wait_for(lambda: any(message.msg_type == "status" for message in cell.messages), "busy", timeout)


def ended_at(kernel: KernelDriver, cell: Cell) -> float | None:
    """Return when the code of *cell* ended, on `time.monotonic()`; None if it runs.

    An error has left the code when IPython begins to show it. If there is no error, the cell's idle status
    counts.

    Raises:
        KernelDiedError: The kernel has.
    """
    path = kernel.folder / ENDED
    if path.exists() and (text := path.read_text()).endswith("\n"):
        return float(text.split()[0])
    if cell.idle is not None:
        return cell.idle.at_s
    if not kernel.is_alive():
        raise KernelDiedError(last_line(kernel))
    return None


def wait_ended(kernel: KernelDriver, cell: Cell, timeout: float) -> float | None:
    """Wait up to *timeout* seconds for the end of the code of *cell*; return when it came, None if it runs.

    Raises:
        KernelDiedError: The kernel has.
    """
    deadline = time.monotonic() + timeout
    while (moment := ended_at(kernel, cell)) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return moment


def fault_after_interrupt(
    kernel: KernelDriver, cell: Cell, kind: Kind, *, counts: bool = True
) -> Fault | None:
    """Wait for the end of a cell that was interrupted just now, and return what went wrong.

    Args:
        kernel: The kernel. It is dead afterwards if no interrupt could end the cell.
        cell: The cell.
        kind: Its kind.
        counts: The interrupt must end it. False if the interrupt may have come too early.
    """
    try:
        is_lost = not _ends_in_time(kernel, cell, kind)
        if is_lost and not counts:
            kernel.interrupt()
            is_lost = not _ends_in_time(kernel, cell, kind)
        if is_lost:
            end(kernel, cell)
            return Fault.LOST
        cell.wait_idle(REPLY_WITHIN_S)
        cell.wait_reply(_BEHIND_IDLE_S)
    except KernelDiedError:
        if not kernel.is_alive():
            return Fault.KILLED
        kernel.kill()  # it has sent a message that cannot be read, and nothing more will be
        return Fault.NO_REPLY
    except WaitTimedOutError:
        return Fault.NO_REPLY
    return None


def _ends_in_time(kernel: KernelDriver, cell: Cell, kind: Kind) -> bool:
    for _ in range(kind.presses - 1):
        if wait_ended(kernel, cell, NEXT_PRESS_S) is not None:
            return True
        kernel.interrupt()
    last_press = time.monotonic()
    moment = wait_ended(kernel, cell, LOST_AFTER_S)
    return moment is not None and moment - last_press < LOST_AFTER_S


def end(kernel: KernelDriver, cell: Cell) -> None:
    """End *cell* by interrupts, or the kernel if they do not help."""
    for _ in range(4):
        kernel.interrupt()
        if wait_ended(kernel, cell, 1.0) is not None:
            with suppress(WaitTimedOutError):
                cell.wait(REPLY_WITHIN_S)
                return
    kernel.kill()


def last_line(kernel: KernelDriver) -> str:
    """Say how a kernel has ended: its exit status, and the last line of its log."""
    lines = [line for line in kernel.log().splitlines() if line.strip() and "encryption" not in line]
    return f"exit status {kernel.process.poll()}, log ends in {lines[-1][:150] if lines else ''!r}"


def tasks_left(kernel: KernelDriver, patience_s: float = 1.0) -> list[str]:
    """Return the names of the user's tasks that still live when *patience_s* seconds have passed.

    Raises:
        WaitTimedOutError: The kernel does not answer.
        KernelDiedError: It has died.
    """
    end = time.monotonic() + patience_s
    while (names := kernel.value(_TASKS, timeout=5)) and time.monotonic() < end:
        time.sleep(0.05)
    return [str(name) for name in names]


def wait_until(moment: float) -> None:
    """Return at *moment* on `time.monotonic()`, exact to some microseconds."""
    while (left := moment - time.monotonic()) > 0:
        if left > 0.002:
            time.sleep(left - 0.001)
