"""What an interrupt of the kernel does while a cell waits.

Stock ipykernel raises KeyboardInterrupt wherever the main thread is. While a cell's stack is
parked, that is a frame of the loop itself, and the kernel would stop. And its handler for `await`
cells does not wake the selector, so that the interrupt comes when the await ends (ipykernel #881).
"""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import contextmanager
from contextvars import Context
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from loopnb.internals.asyncio_state import running_loop
from loopnb.loop.ending import cancel_sparing, end_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


class Interrupts:
    """Handles SIGINT while a cell waits: in a nested run, in an `await`, in `%%aloop`.

    Nothing process-wide is saved and restored around one wait, since waits do not end in the order
    they begin in: one counted handler stands while any cell is parked.

    Args:
        loop: The persistent loop.
        interrupt_wait: Interrupts the newest nested run of a cell; False if there is none.
        is_cells: Says of a task whether a cell executes in it.
        is_foreign: Says of a task whether it is not the executing cell's, and must live on.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interrupt_wait: Callable[[], bool],
        is_cells: Callable[[asyncio.Task[Any]], bool],
        is_foreign: Callable[[asyncio.Task[Any]], bool],
    ) -> None:
        self._loop = loop
        self._is_cells = is_cells
        self._is_foreign = is_foreign
        self._interrupt_wait = interrupt_wait
        self._on_parked = self._handler(self._is_blocked, interrupt_wait)
        self._parked = 0
        self._saved: Any = None
        self._interrupted: WeakSet[asyncio.Future[Any]] = WeakSet()
        self._is_unanswered = False

    def foreground_changed(self, change: int) -> None:
        """Count the parked stacks of cells; the handler stands while there is one."""
        if threading.current_thread() is not threading.main_thread():
            return
        if self._parked == 0:
            self._is_unanswered = False
            self._saved = signal.signal(signal.SIGINT, self._on_parked)
        # Only while that handler stands: the kernel's own may raise between any two lines.
        self._parked += change
        if self._parked == 0 and signal.getsignal(signal.SIGINT) is self._on_parked:
            signal.signal(signal.SIGINT, self._saved)

    @contextmanager
    def cancel_on_sigint(self, future: asyncio.Future[Any]) -> Iterator[None]:
        """Cancel the task of an `await` cell on SIGINT, at once. Stands in for the kernel's own."""
        self._is_unanswered = False
        saved = signal.signal(signal.SIGINT, self._handler(self._is_in_cell, self._cancel, future))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, saved)

    def was_interrupted(self, task: asyncio.Future[Any] | None) -> bool:
        """Say whether *task* was cancelled by an interrupt."""
        return task in self._interrupted

    def _handler(
        self, must_raise: Callable[[], bool], fn: Callable[..., object], *args: Any
    ) -> Callable[[int, FrameType | None], None]:
        """Return a SIGINT handler that has the loop call *fn*, or raises where nothing else helps."""

        def on_sigint(_signum: int, _frame: FrameType | None) -> None:
            if not must_raise():
                self._answer_soon(fn, *args)
                return
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt as error:
                error.__traceback__ = None  # and a bare `raise` adds no frame: the user's are shown
                raise

        return on_sigint

    def _is_in_cell(self) -> bool:
        """Say whether to raise KeyboardInterrupt, while an `await` cell executes."""
        task = asyncio.current_task(self._loop) if running_loop() is self._loop else None
        return self._is_blocked() or (task is not None and self._is_cells(task))

    def _is_blocked(self) -> bool:
        """Say whether to raise KeyboardInterrupt, while a cell's stack is parked.

        So it is while another loop runs in the cell, and when the loop has not turned since the
        last interrupt, because some step blocks it. Only there: raised in the loop's own frames,
        or in the engine's while the cell's stack is about to be parked, it would end the kernel.
        """
        if running_loop() is not self._loop:
            return True
        task = asyncio.current_task(self._loop)
        return self._is_unanswered and task is not None and not self._is_cells(task)

    def _answer_soon(self, fn: Callable[..., object], *args: Any) -> None:
        self._is_unanswered = True
        self._loop.call_soon_threadsafe(self._answer, fn, *args, context=Context())

    def _answer(self, fn: Callable[..., object], *args: Any) -> None:
        self._is_unanswered = False
        fn(*args)

    def _cancel(self, future: asyncio.Future[Any]) -> None:
        # The cell may have begun a nested run since the signal came.
        if future.done() or self._interrupt_wait():
            return
        if future in self._interrupted and isinstance(future, asyncio.Task):
            # It has swallowed a cancellation, or cleans up for too long.
            end_with(future, KeyboardInterrupt())
            return
        self._interrupted.add(future)
        self.cancel_what_is_the_cells(future)

    def cancel_what_is_the_cells(self, future: asyncio.Future[Any]) -> None:
        """Cancel what a cell waits for, but no task of others that this awaits in turn."""
        cancel_sparing(future, self._is_foreign)
