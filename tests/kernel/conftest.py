"""Kernels for the tests: one that a module shares, and fresh ones."""

from __future__ import annotations

import inspect
import re
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from ipykernel._version import version_info
from ipykernel.iostream import OutStream
from IPython.core.compilerop import CachingCompiler
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magics.execution import ExecutionMagics

from tests.gates import gate as gate
from tests.kernel.driver import KernelDriver
from tests.kernel.zygote import Zygote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kernel.driver import CellResult, Comm

# What a kernel says at its end when something was left behind.
COMPLAINTS = ("was destroyed but it is pending", "Traceback (most recent call last)", "ResourceWarning")

# IPython before 8.7 names the file of a cell in a traceback, not its number.
names_cells = hasattr(CachingCompiler, "format_code_name")

# IPython before 8.15 shows an exception group alone, without the errors inside it.
shows_groups = "exceptiongroup" in inspect.getsource(InteractiveShell).lower()

# IPython 7 and 8 show errors below `%time` themselves, before 8.31 SystemExit and KeyboardInterrupt too, and
# the cell ends well.
_time_shows = re.search(
    r"except( Exception|):\s+self\.shell\.showtraceback", inspect.getsource(ExecutionMagics.time)
)

# ipykernel before 6.29 sends what a task prints to the newest cell.
needs_routed_output = pytest.mark.skipif(
    not hasattr(OutStream, "parent_header"), reason="this ipykernel alone sends output to the newest cell"
)
needs_subshells = pytest.mark.skipif(version_info < (7,), reason="ipykernel 6 has no subshells")


def assert_quiet(log: str) -> None:
    """Fail if a kernel's log, as `shutdown()` returns it, holds a complaint."""
    assert not [line for line in log.splitlines() if any(c in line for c in COMPLAINTS)], log


def assert_ended_in(result: CellResult, *enames: str) -> None:
    """Fail unless the cell has ended in an error of such a name, or `%time` has shown it and ended."""
    is_timed = _time_shows is not None and re.match(r"%%?time\s", result.cell.code)
    shown = set(enames) - ({"SystemExit", "KeyboardInterrupt"} if _time_shows and _time_shows[1] else set())
    is_shown = is_timed and any(ename in result.cell.text for ename in shown)
    assert result.ename in enames or is_shown, result


def task_names(kernel: KernelDriver) -> list[str]:
    """Return the names of the live tasks. The user's `loopnb` has been imported."""
    names: list[str] = kernel.value("[t.name for t in loopnb.tasks()]")
    return names


class KernelsAhead:
    """Starts each kernel while the test before runs: a kernel imports for long, and a test mostly waits.

    Args:
        tmp_path_factory: Makes their folders.
        zygote: Forks them, if there can be one here.
    """

    def __init__(self, tmp_path_factory: pytest.TempPathFactory, zygote: Zygote | None) -> None:
        self._tmp_path_factory = tmp_path_factory
        self._zygote = zygote
        self._next: KernelDriver | None = None

    @contextmanager
    def take(self) -> Iterator[KernelDriver]:
        """Lend a kernel of the default kind, without the extension, and end it afterwards."""
        kernel, self._next = self._next or self._begin(), None
        kernel.wait_ready()
        try:
            self._next = self._begin()
            yield kernel
        finally:
            kernel.kill(keep_reading=False)

    def close(self) -> None:
        """End the kernel that nobody has taken."""
        if self._next is not None:
            self._next.kill(keep_reading=False)

    def _begin(self) -> KernelDriver:
        kernel = KernelDriver(self._tmp_path_factory.mktemp("kernel"), zygote=self._zygote)
        kernel.begin()
        return kernel


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote | None]:
    """Fork kernels, or None where that is not possible: a kernel is started alone then."""
    with closing(Zygote()) as zygote:
        yield zygote if Zygote.is_possible else None


@pytest.fixture(scope="session")
def kernels_ahead(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote | None) -> Iterator[KernelsAhead]:
    """Start kernels before they are needed."""
    with closing(KernelsAhead(tmp_path_factory, zygote)) as kernels:
        yield kernels


@pytest.fixture
def stock_kernel(kernels_ahead: KernelsAhead) -> Iterator[KernelDriver]:
    """Start a kernel of its own for one test, without the extension."""
    with kernels_ahead.take() as kernel:
        yield kernel


@pytest.fixture
def fresh_kernel(stock_kernel: KernelDriver) -> KernelDriver:
    """Start a kernel of its own for one test, with the extension loaded."""
    stock_kernel.run("%load_ext loopnb")
    return stock_kernel


@pytest.fixture(scope="module")
def module_kernel(kernels_ahead: KernelsAhead) -> Iterator[Callable[[], KernelDriver]]:
    """Keep a kernel for the tests of a module; it is started again when a test has ended it."""
    running: list[KernelDriver] = []
    with ExitStack() as stack:

        def get() -> KernelDriver:
            if not (running and running[-1].is_alive()):
                kernel = stack.enter_context(kernels_ahead.take())
                kernel.run("%load_ext loopnb")
                running.append(kernel)
            return running[-1]

        yield get


@pytest.fixture
def kernel(module_kernel: Callable[[], KernelDriver]) -> Iterator[KernelDriver]:
    """Lend the module's kernel, with the extension loaded, to one test and tidy up after it."""
    lent = module_kernel()
    yield lent
    try:
        assert lent.is_alive(), lent.log()
        tidy(lent)
    except BaseException:
        lent.kill()
        raise


@pytest.fixture
def unloaded_kernel(kernel: KernelDriver) -> Iterator[KernelDriver]:
    """Lend the module's kernel with the extension unloaded."""
    kernel.run("%unload_ext loopnb")
    yield kernel
    kernel.run("%load_ext loopnb")


@pytest.fixture
def clicks(kernel: KernelDriver) -> Comm:
    """Open a comm whose messages set `clicked`, an event of the kernel's loop, from any thread."""
    kernel.run(
        """
        import asyncio
        clicked = asyncio.Event()
        loop = asyncio.get_running_loop()
        def opened(comm, message):
            comm.on_msg(lambda message: loop.call_soon_threadsafe(clicked.set))
        get_ipython().kernel.comm_manager.register_target('clicks', opened)
        """
    )
    return kernel.open_comm("clicks")


def tidy(kernel: KernelDriver) -> None:
    """Bring a shared kernel back to where the next test expects it, and check that it got there."""
    assert kernel.value("1 + 1") == 2
