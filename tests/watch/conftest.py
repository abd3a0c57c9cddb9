"""A watched loop. Nothing here needs IPython: these tests run on every Python, without it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.tracking.tracker import Tracker
from loopnb.watch.watch import Watch
from tests.watch.wards import Ward

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from loopnb.records import Block, CellRef

#: Seconds after which a test gives up waiting.
PATIENCE_S = 20.0
#: What counts as a block here.
BLOCKED_AFTER = 0.1


class FakeCells:
    """Knows the cells that a test tells it of."""

    def __init__(self) -> None:
        self.executing: CellRef | None = None
        self.task: asyncio.Task[Any] | None = None

    def cell_in(self, task: asyncio.Task[Any]) -> CellRef | None:
        """Return the executing cell if *task* is its task."""
        return self.executing if task is self.task else None


class Watched:
    """A loop that is watched, and what a test needs of it.

    Args:
        make_loop: Makes the loop.
    """

    def __init__(self, make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        self.runner = asyncio.Runner(loop_factory=make_loop)
        self.loop = self.runner.get_loop()
        self.cells = FakeCells()
        self.tracker = Tracker(self.loop, describe=_describe, is_kernels=lambda _code: False)
        self.watch = Watch(self.loop, self.tracker, self.cells)

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Run *main* on the loop while it is watched."""
        self.tracker.install()
        self.watch.set_blocked_after(BLOCKED_AFTER)
        try:
            return self.runner.run(main)
        finally:
            fault = self.watch.fault
            self.watch.stop()
            self.tracker.remove()
            assert fault is None

    def sees(self, function: str = "") -> str | None:
        """Return how a function with a name that ends so is seen to block now; None if none is. Any thread.

        On a busy machine other steps may last long enough to count as blocks, too. And a block is taken for
        one that holds the GIL if its first look has had to wait for 0.1 s, until more looks have found it.
        """
        assert self.watch.fault is None
        seen = self.watch.current()
        return seen.how if seen is not None and seen.function.endswith(function) else None

    def block_until_seen(self, *, keeps: bool = False) -> None:
        """Block the calling thread until the watchdog sees that it sleeps here.

        Args:
            keeps: Others are kept waiting: block until the watchdog has counted them, too.
        """
        deadline = time.monotonic() + PATIENCE_S
        while self.sees("block_until_seen") != "sleep" or (keeps and not self._keeps()):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _keeps(self) -> bool:
        seen = self.watch.current()
        return seen is not None and seen.kept.ready > 0

    def wait_seen(self, how: str) -> None:
        """Wait in another thread until the loop is seen to block in that way, but not for ever."""
        deadline = time.monotonic() + PATIENCE_S
        while self.sees() != how and time.monotonic() < deadline:
            time.sleep(0.01)

    def blocks_in(self, function: str) -> list[Block]:
        """Return the blocks in functions with a name that ends so; the last may not be over."""
        assert self.watch.fault is None
        return [block for block in self.watch.blocks() if block.function.endswith(function)]

    async def last_block(self, function: str = "block_until_seen") -> Block:
        """Return the last block in a function with a name that ends so, when it is over."""

        def is_over() -> bool:
            blocks = self.blocks_in(function)
            return bool(blocks) and blocks[-1].is_over

        await until(is_over)
        return self.blocks_in(function)[-1]


def _describe(filename: str, line: int, cell: CellRef | None = None) -> str:
    return f"{filename.rpartition('/')[2]}:{line}"


async def until(is_true: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Wait on the loop until *is_true* returns True."""
    async with asyncio.timeout(patience_s):
        while not is_true():  # noqa: ASYNC110  the watchdog sets no event
            await asyncio.sleep(0.01)


def line_of(fn: Any, text: str) -> str:
    """Return the place of the line of *fn* that holds *text*."""
    import inspect

    lines, first = inspect.getsourcelines(fn)
    number = next(index for index, line in enumerate(lines) if text in line)
    return f"{fn.__code__.co_filename.rpartition('/')[2]}:{first + number}"


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Make a watched loop."""
    found = Watched()
    with found.runner:
        yield found


@pytest.fixture
def ward() -> Iterator[Ward]:
    """Lend a ward."""
    with asyncio.Runner() as runner:
        ward = Ward(runner.get_loop())
        yield ward
        ward.close()
