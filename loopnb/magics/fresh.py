"""Run a cell on a loop of its own, while the persistent loop stands still: `%%aloop --fresh`."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from loopnb.frames import without_loops_frames
from loopnb.loop.fresh import FreshLoop
from loopnb.nesting._cpython import running_loop
from loopnb.nesting.fatal import CapturedFatal
from loopnb.nesting.loop_task import make_task
from loopnb.nesting.other_loops import aside
from loopnb.nesting.stack_switching import is_web_loop, only_loop
from loopnb.shell.interrupts import Interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractContextManager

    from loopnb.magics.options import Request
    from loopnb.session import Session
    from loopnb.shell.cells import Cells

    MakeCoro = Callable[[Request], Coroutine[Any, Any, Any]]


class FreshRuns:
    """Runs cells on loops of their own, for one shell.

    Args:
        session: The session of the shell.
        cells: Knows which cell executes.
        interrupts: Sends interrupts again.
        make_coro: Given what a cell asks for, returns the coroutine that runs it.
    """

    def __init__(self, session: Session, cells: Cells, interrupts: Interrupts, make_coro: MakeCoro) -> None:
        self._session = session
        self._cells = cells
        self._interrupts = interrupts
        self._make_coro = make_coro

    def run(self, request: Request) -> Any:
        """Run a cell on a new loop and return its value. Blocks the thread and the loop that runs in it.

        Args:
            request: What the cell asks for.

        Raises:
            KeyboardInterrupt: An interrupt has ended the cell, or its cleanup.
            NestingError: The loop is Pyodide's.
            TimeoutError: The timeout of the options has passed.
        """
        running = running_loop()
        if running is None:
            return self._run(request)
        if is_web_loop(running):
            raise only_loop("run on a fresh loop", "Leave out --fresh.")
        with aside(running, None, (request.source.filename, 1)):
            return self._run(request)

    def _run(self, request: Request) -> Any:
        options = request.options
        loop = asyncio.new_event_loop()
        main = make_task(loop, self._make_coro(request), name=options.name)
        interrupts = Interrupts(loop, FreshTasks(main, self._cells, self._interrupts))
        fresh = FreshLoop(loop, partial(_interruptible, interrupts))
        try:
            with self._cells.attribute_to_cell(main):
                fresh.run(main)
                value = CapturedFatal.unwrap(main.result())
        except BaseException as error:
            # The cell's threads cannot be cancelled, and a user who interrupts does not want to wait for
            # them.
            was_interrupted = isinstance(error, KeyboardInterrupt) or interrupts.was_interrupted(main)
            fresh.close(0 if was_interrupted else self._session.settings.shutdown_grace)
            if was_interrupted and isinstance(error, asyncio.CancelledError):
                raise KeyboardInterrupt().with_traceback(error.__traceback__) from None
            error.__traceback__ = without_loops_frames(error.__traceback__)
            raise
        fatal = fresh.close(self._session.settings.shutdown_grace)
        if fatal is not None:
            raise fatal.with_traceback(None)
        return value


class FreshTasks:
    """The `CellTasks` of a fresh loop: one task is the cell, and only its own tasks run there.

    Args:
        main: The task of the cell.
        cells: Knows the files of cells.
        outer: The interrupts of the persistent loop. They can send an interrupt again.
    """

    def __init__(self, main: asyncio.Task[Any], cells: Cells, outer: Interrupts) -> None:
        self._main = main
        self._cells = cells
        self._outer = outer

    def is_cells(self, task: asyncio.Task[Any]) -> bool:
        """Return True if the cell executes in *task*."""
        return task is self._main

    is_main_cells = is_cells

    def is_foreign(self, _task: asyncio.Task[Any]) -> bool:
        """Return False: all tasks end with the loop."""
        return False

    def is_kernels(self, _task: asyncio.Task[Any]) -> bool:
        """Return False: the kernel has no tasks here."""
        return False

    def is_cell_file(self, filename: str) -> bool:
        """Return True if *filename* stands for the source of a cell."""
        return self._cells.places.is_cell_file(filename)

    def remember(self, _future: asyncio.Future[Any]) -> bool:
        """Return False: by the time there is a fresh loop, the cell's code has begun."""
        return False

    def send_again(self, is_wanted: Callable[[], bool | None]) -> None:
        """Send an interrupt again in some milliseconds, if *is_wanted* returns True then. Any thread."""
        self._outer.send_again(is_wanted)

    def interrupt_nested(self) -> bool:
        """Return False: nested runs of this loop are interrupted by cancelling the cell's task."""
        return False


def _interruptible(interrupts: Interrupts, future: asyncio.Future[Any]) -> AbstractContextManager[None]:
    # Only the main thread gets signals, and only there may a handler be set.
    if threading.current_thread() is not threading.main_thread():
        return contextlib.nullcontext()
    return interrupts.cancel_on_sigint(future)
