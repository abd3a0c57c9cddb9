"""A widget on a loop whose time passes at once; only the page at the other end of the comm is a stand-in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.records import CellRef, Lag, LoopState, Pace
from loopnb.tracking.cells import current_cell
from loopnb.tracking.tracker import Tracker
from tests.loops import FastLoop

from .front_end import FrontEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from types import CodeType

    from loopnb.records import Block, Finding, Standstill


class Notebook:
    """What a widget shows: its `Source`, and its `Watched`. A test changes what it says."""

    epoch = "epoch"
    is_on = True

    def __init__(self, loop: FastLoop) -> None:
        self.loop = loop
        self.tracker = Tracker(loop, describe=place, is_kernels=is_kernels, clock=loop.time)
        self.watch = self
        self.cell: CellRef | None = None
        self.condition: Any = "idle"
        self.found: list[Finding] = []
        self.error: Exception | None = None
        self.looks: list[float] = []
        self.cost_s = 0.0
        self.busy: dict[int, float] = {}
        self.late_s = [0.0]
        self.all_blocks: list[Block] = []
        self.onlookers: list[Callable[[Block | Standstill | None], object]] = []
        self.tasks: list[asyncio.Task[Any]] = []

    def loop_state(self) -> LoopState:
        if self.error:
            raise self.error
        self.looks.append(self.loop.time())
        self.loop.now += self.cost_s
        condition: Any = "running" if self.cell else self.condition
        return LoopState("Loop", condition, "", 1, "handoff", 0, self.cell)

    def cell_since(self) -> float | None:
        return 990.0 if self.cell else None

    cells_ended = 1

    def findings(self) -> list[Finding]:
        return self.found

    def pace(self) -> Pace:
        worst = max(self.late_s)
        lag = Lag(worst, worst, worst, len(self.late_s))
        return Pace(lag, lag, None, None)

    def worst_lags(self) -> list[float]:
        return self.late_s

    def busy_shares(self) -> dict[int, float]:
        return self.busy

    def blocks(self) -> list[Block]:
        return self.all_blocks

    def watch_blocks(self, fn: Callable[[Block | Standstill | None], object]) -> None:
        self.onlookers.append(fn)

    def unwatch_blocks(self, fn: Callable[[Block | Standstill | None], object]) -> None:
        if fn in self.onlookers:
            self.onlookers.remove(fn)

    # -- what a test does ---------------------------------------------------------------------------

    def spawn(
        self, coro: Coroutine[Any, Any, Any], name: str | None = None, cell: int | None = None
    ) -> asyncio.Task[Any]:
        """Spawn a task from In[cell], and let it begin."""
        return self.spawn_all([coro], [name], cell)[0]

    def spawn_all(
        self, coros: list[Coroutine[Any, Any, Any]], names: list[str | None], cell: int | None = None
    ) -> list[asyncio.Task[Any]]:
        """Spawn some tasks from In[cell], and let them begin."""

        async def spawn() -> list[asyncio.Task[Any]]:
            current_cell.set(None if cell is None else CellRef(f"id{cell}", cell))
            made = [asyncio.create_task(coro, name=name) for coro, name in zip(coros, names, strict=True)]
            await asyncio.sleep(0)
            return made

        made = self.loop.run_until_complete(self.loop.create_task(spawn()))
        self.tasks += made
        return made

    def end(self) -> None:
        """End all tasks that were spawned."""
        for _ in range(5):
            for task in self.tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))


class Stream:
    """Stands in for a stream of the kernel: its `write` and its `echo` alone."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.echo: Any = None

    def write(self, text: str) -> int:
        """Write as ipykernel's streams do."""
        if not isinstance(text, str):
            raise TypeError("write() argument must be str")
        if self.echo is not None:
            self.echo.write(text)
        self.sent.append(str.__str__(text))
        return 1


def is_kernels(code: CodeType) -> bool:
    """Return True for the tasks that only turn the loop."""
    return code is asyncio.sleep.__code__ or code.co_qualname.startswith("Notebook.")


def place(filename: str, line: int, cell: CellRef | None = None) -> str:
    return f"{cell or filename.rpartition('/')[2]}:{line}"


@pytest.fixture
def loop() -> Iterator[FastLoop]:
    """A loop that waits for nothing, not running yet."""
    loop = FastLoop()
    yield loop
    loop.close()


@pytest.fixture
def kernel(loop: FastLoop) -> Iterator[Notebook]:
    """A session's part."""
    notebook = Notebook(loop)
    notebook.tracker.install()
    yield notebook
    notebook.end()
    notebook.tracker.remove()


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[FrontEnd]:
    """The front end of every comm that is opened. Every message must fit what it has."""
    page = FrontEnd()
    monkeypatch.setattr("comm.create_comm", page.create_comm)
    yield page
    assert page.gaps == []
