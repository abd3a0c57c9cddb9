"""What `%%aloop --fresh` does: run a cell on a loop of its own, while the persistent loop stands still."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

from loopnb.frames import without_loops_frames
from loopnb.loop.fresh import FreshLoop
from loopnb.nesting._cpython import running_loop
from loopnb.nesting.fatal import CapturedFatal
from loopnb.nesting.other_loops import aside
from loopnb.shell.interrupts import Interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractContextManager

    from loopnb.magics.options import AloopOptions, Request
    from loopnb.session import Session
    from loopnb.shell.cells import Cells


class FreshRuns:
    """Runs cells on loops of their own, for one shell.

    Args:
        shell: The shell.
        session: Its session.
        cells: Knows which cell executes.
    """

    def __init__(self, shell: Any, session: Session, cells: Cells) -> None:
        self._shell = shell
        self._session = session
        self._cells = cells

    def run(self, make_coro: Callable[[], Coroutine[Any, Any, Any]], request: Request) -> Any:
        """Run a cell on a new loop and return its value. Blocks the thread and the loop that runs in it.

        Args:
            make_coro: Returns the coroutine of the cell.
            request: What the cell asks for.

        Raises:
            KeyboardInterrupt: An interrupt has ended the cell, or its cleanup.
            TimeoutError: The timeout of the options has passed.
        """
        running = running_loop()
        if running is None:
            return self._run(make_coro, request.options)
        with aside(running, None, (request.source.filename, 1)):
            return self._run(make_coro, request.options)

    def _run(self, make_coro: Callable[[], Coroutine[Any, Any, Any]], options: AloopOptions) -> Any:
        loop = asyncio.new_event_loop()
        main: list[asyncio.Task[Any]] = []
        interrupts = self._make_interrupts(loop, main)
        fresh = FreshLoop(loop, lambda future: _interruptible(interrupts, future))
        main.append(fresh.create_task(make_coro(), options.name))
        try:
            with self._cells.attribute_to_cell(main[0]), self._session.deadline(main[0], options.timeout):
                fresh.run(main[0])
                value = CapturedFatal.unwrap(main[0].result())
        except BaseException as error:
            # A thread that it waits for cannot be cancelled, and who interrupts does not want to wait.
            was_interrupted = isinstance(error, KeyboardInterrupt) or interrupts.was_interrupted(main[0])
            fresh.close(0 if was_interrupted else self._session.settings.shutdown_grace)
            if was_interrupted and isinstance(error, asyncio.CancelledError):
                raise KeyboardInterrupt().with_traceback(error.__traceback__) from None
            error.__traceback__ = without_loops_frames(error.__traceback__)
            raise
        fatal = fresh.close(self._session.settings.shutdown_grace)
        if fatal is not None:
            raise fatal.with_traceback(None)
        return value

    def _make_interrupts(self, loop: asyncio.AbstractEventLoop, main: list[asyncio.Task[Any]]) -> Interrupts:
        return Interrupts(
            loop,
            lambda: False,
            is_cells=lambda task: task in main,
            is_foreign=lambda _task: False,
            is_cell_file=lambda filename: self._shell.compile.format_code_name(filename) is not None,
            is_kernels=lambda _task: False,
        )


def _interruptible(interrupts: Interrupts, future: asyncio.Future[Any]) -> AbstractContextManager[None]:
    # Only the main thread gets signals, and only there may a handler be set.
    if threading.current_thread() is not threading.main_thread():
        return contextlib.nullcontext()
    return interrupts.cancel_on_sigint(future)
