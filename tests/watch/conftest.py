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

    def is_seen(self) -> bool:
        """Return True if a block is seen now. Any thread."""
        assert self.watch.fault is None
        return self.watch.current() is not None

    def block_until_seen(self) -> None:
        """Block the calling thread until the watchdog sees it."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.is_seen():
            assert self.watch.fault is None
            assert time.monotonic() < deadline
            time.sleep(0.01)

    async def last_block(self) -> Block:
        """Return the last block, when it is over."""
        await until(self._is_over)
        return self.watch.blocks()[-1]

    def _is_over(self) -> bool:
        assert self.watch.fault is None
        blocks = self.watch.blocks()
        return bool(blocks) and blocks[-1].is_over


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
