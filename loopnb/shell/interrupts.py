"""What an interrupt of the kernel does while a cell waits.

Stock ipykernel raises KeyboardInterrupt wherever the main thread is. While a cell's stack is
parked, that is a frame of the loop itself, and the kernel would stop. And its handler for `await`
cells does not wake the selector, so that the interrupt comes when the await ends (ipykernel #881).
"""

from __future__ import annotations

import asyncio
import codeop
import contextlib
import signal
import threading
from contextlib import contextmanager
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from IPython.core import compilerop
from IPython.core.interactiveshell import InteractiveShell

from loopnb.frames import is_our_callable, without_loops_frames
from loopnb.nesting._cpython import ready_queue, running_loop
from loopnb.nesting.engine import Foreground
from loopnb.shell._ipykernel import is_asking
from loopnb.tracking._cpython import waited_future
from loopnb.tracking.cancelling import cancel_below, cancel_sparing, end_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from loopnb.nesting.engine import Handoff

#: Seconds after an interrupt in which the loop must have turned; a step that lasts longer blocks it.
_BLOCKED_AFTER = 0.1

_RUNNERS = (InteractiveShell.run_ast_nodes.__code__, InteractiveShell.run_code.__code__)
_COMPILERS = (codeop.__file__, compilerop.__file__, contextlib.__file__)


class Interrupts:
    """Handles SIGINT while a cell waits: in a nested run, in an `await`, in `%%aloop`.

    Nothing process-wide is saved and restored around one wait, since waits do not end in the order
    they begin in: one counted handler stands while any cell is parked.

    Args:
        loop: The persistent loop.
        interrupt_wait: Interrupts the newest nested run of a cell; False if there is none.
        is_cells: Says of a task whether a cell executes in it.
        is_foreign: Says of a task whether it is not the executing cell's, and must live on.
        is_cell_file: Says of a file name whether it stands for the source of a cell.
        is_kernels: Says of a task whether it is the kernel's own: raised there, the interrupt
            would cost the reply to the cell.

    Attributes:
        interrupt_wait: The argument of that name.
        take_at_end: Takes what comes out of a pass while the shell ends in order; False at other times.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interrupt_wait: Callable[[], bool],
        *,
        is_cells: Callable[[asyncio.Task[Any]], bool],
        is_foreign: Callable[[asyncio.Task[Any]], bool],
        is_cell_file: Callable[[str], bool],
        is_kernels: Callable[[asyncio.Task[Any]], bool],
    ) -> None:
        self._loop = loop
        self._is_cells = is_cells
        self._is_foreign = is_foreign
        self._is_cell_file = is_cell_file
        self._is_kernels = is_kernels
        self.interrupt_wait = interrupt_wait
        self.take_at_end: Callable[[BaseException], bool] = lambda _error: False
        self._on_parked = self._handler(self._is_blocked, interrupt_wait)
        self._parked = 0
        self._saved: Any = None
        self._interrupted: WeakSet[asyncio.Future[Any]] = WeakSet()
        self._finished: WeakSet[asyncio.Future[Any]] = WeakSet()  # they have been raised KeyboardInterrupt in
        self._ending: set[asyncio.Task[Any]] = set()  # given a fatal error, and not stepped since
        self._awaiting: list[asyncio.Future[Any]] = []
        self._asked_at: float | None = None  # when the loop was asked, until it has answered

    def prepare(self, engine: Handoff) -> None:
        """Have *engine* tell of the cells that it parks, and ask how to end what they wait for."""
        engine.foreground = Foreground(
            is_meant=self._is_cells,
            changed=self.foreground_changed,
            cancel=self.cancel_what_is_the_cells,
            finish=self.finish,
            take_fatal=self.take_fatal,
        )

    def foreground_changed(self, change: int) -> None:
        """Count the parked stacks of cells; the handler stands while there is one.

        Raises:
            KeyboardInterrupt: The last one goes on, and an interrupt came too late to end its wait.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        if self._parked == 0 and not _is_users(signal.getsignal(signal.SIGINT)):
            # What an `await` cell was asked before it parked stands: the loop has yet to answer.
            self._saved = signal.signal(signal.SIGINT, self._on_parked)
        # Only while that handler stands: the kernel's own may raise between any two lines.
        self._parked += change
        if self._parked == 0:
            was_asked, self._asked_at = self._asked_at is not None, None
            if signal.getsignal(signal.SIGINT) is self._on_parked:
                signal.signal(signal.SIGINT, self._saved)
            if was_asked:
                raise KeyboardInterrupt

    @contextmanager
    def cancel_on_sigint(self, future: asyncio.Future[Any]) -> Iterator[None]:
        """Cancel the task of an `await` cell on SIGINT, at once. Stands in for the kernel's own."""
        self._asked_at = None
        self._awaiting.append(future)
        saved = signal.signal(signal.SIGINT, self._handler(self._is_in_cell, self._cancel, future))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, saved)
            self._awaiting.remove(future)

    @property
    def awaiting(self) -> list[asyncio.Task[Any]]:
        """The tasks of the `await` cells that execute."""
        return [one for one in self._awaiting if isinstance(one, asyncio.Task) and not one.done()]

    def was_interrupted(self, task: asyncio.Future[Any] | None) -> bool:
        """Say whether *task* was cancelled by an interrupt."""
        return task in self._interrupted

    def take_fatal(self, error: BaseException) -> bool:
        """Have the `await` cell that executes end in *error*, which came out of a pass of the loop.

        Returns:
            False if no such cell executes.
        """
        if self.take_at_end(error):
            return True
        for future in reversed(self._awaiting):
            if isinstance(future, asyncio.Task) and not future.done():
                error.__traceback__ = without_loops_frames(error.__traceback__)
                return self._end_cell(future, error)
        return False

    def _end_cell(self, task: asyncio.Task[Any], error: BaseException) -> bool:
        waited = waited_future(task)
        if waited is not None:
            waited.add_done_callback(_retrieve)  # nobody else will: the cell leaves it
            if waited.done():
                return True  # it is what has raised the error, and the cell is about to get it anyway
        is_ending = task in self._ending  # by an error just before
        if not is_ending and end_with(task, error):
            self._ending.add(task)
            self._loop.call_soon(self._ending.discard, task, context=Context())
            if waited is not None and self._is_foreign_task(waited):
                # Before the group that it may be in the body of cancels it, and so what it awaits.
                ready_queue(self._loop).rotate(2)
            is_ending = True
        if isinstance(error, KeyboardInterrupt):
            self._asked_at = None  # this was what the loop had been asked for
            if not is_ending:  # it is about to be stepped
                self._interrupted.add(task)
                is_ending = task.cancel()
            cancel_below(task, self._is_foreign)  # what has not begun yet might block as well
        return is_ending

    def raise_if_asked(self) -> None:
        """Raise KeyboardInterrupt if the loop was asked to interrupt and has been set aside since."""
        if self._asked_at is not None and self._awaiting:
            self._asked_at = None
            raise KeyboardInterrupt

    def _handler(
        self, must_raise: Callable[[FrameType | None], bool], fn: Callable[..., object], *args: Any
    ) -> Callable[[int, FrameType | None], None]:
        """Return a SIGINT handler that has the loop call *fn*, or raises where nothing else helps."""

        def on_sigint(_signum: int, frame: FrameType | None) -> None:
            if not must_raise(frame):
                self._ask(fn, *args)
                return
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt as error:
                error.__traceback__ = None  # and a bare `raise` adds no frame: the user's are shown
                raise

        return on_sigint

    def _is_in_cell(self, frame: FrameType | None) -> bool:
        """Say whether to raise KeyboardInterrupt, while an `await` cell executes.

        In the cell's own code, also where that has called others; but not where IPython, in the
        same task, shows a traceback.
        """
        task = asyncio.current_task(self._loop) if running_loop() is self._loop else None
        return self._is_blocked(frame) or (
            task is not None and self._is_cells(task) and self._is_below_cell(frame)
        )

    def _is_blocked(self, frame: FrameType | None) -> bool:
        """Say whether to raise KeyboardInterrupt, while a cell's stack is parked.

        So it is while another loop runs in the cell, while a nested run asks for input, and when
        the loop has not turned since the last interrupt, because some step blocks it. Only there:
        raised in the loop's own frames, or in the engine's while the cell's stack is about to be
        parked, it would end the kernel.
        """
        if running_loop() is not self._loop or is_asking(frame):
            return True
        has_answered = self._asked_at is None or monotonic() - self._asked_at < _BLOCKED_AFTER
        if has_answered and not self._ending:
            return False
        task = asyncio.current_task(self._loop)
        return task is not None and not self._is_cells(task) and not self._is_kernels(task)

    def _is_below_cell(self, frame: FrameType | None) -> bool:
        if _is_between_statements(frame):
            return True
        while frame is not None:
            if self._is_cell_file(frame.f_code.co_filename):
                return True
            frame = frame.f_back
        return False

    def _ask(self, fn: Callable[..., object], *args: Any) -> None:
        if self._asked_at is None:
            self._asked_at = monotonic()
            self._loop.call_soon_threadsafe(self._answer, self._asked_at, fn, *args, context=Context())

    def _answer(self, asked_at: float, fn: Callable[..., object], *args: Any) -> None:
        if self._asked_at == asked_at:
            self._asked_at = None
            fn(*args)

    def _cancel(self, future: asyncio.Future[Any]) -> None:
        # The cell may have begun a nested run since the signal came.
        if future.done() or self.interrupt_wait():
            return
        if future not in self._interrupted:
            self._interrupted.add(future)
            self.cancel_what_is_the_cells(future)
            return
        # It has swallowed a cancellation, or cleans up for too long: it, or what it awaits.
        below = waited_future(future) if isinstance(future, asyncio.Task) else None
        if below is None or below in self._finished or self._is_foreign_task(below) or not self.finish(below):
            self.finish(future)

    def finish(self, future: asyncio.Future[Any]) -> bool:
        """Raise KeyboardInterrupt in a task, at the await it is at; False if it is none, or at none."""
        self._finished.add(future)
        return isinstance(future, asyncio.Task) and end_with(future, KeyboardInterrupt())

    def _is_foreign_task(self, future: asyncio.Future[Any]) -> bool:
        return isinstance(future, asyncio.Task) and self._is_foreign(future)

    def cancel_what_is_the_cells(self, future: asyncio.Future[Any]) -> None:
        """Cancel what a cell waits for, but no task of others that this awaits in turn."""
        cancel_sparing(future, self._is_foreign)


def _is_between_statements(frame: FrameType | None) -> bool:
    """Say whether IPython compiles or begins a statement of a cell: what is raised there is the cell's error.

    Only asked to, the loop could do nothing once that statement blocks.
    """
    while frame is not None and frame.f_code.co_filename in _COMPILERS:
        frame = frame.f_back
    return frame is not None and frame.f_code in _RUNNERS


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


def _is_users(handler: Any) -> bool:
    """Return True if neither Python nor this package has installed that *handler* of a signal."""
    return callable(handler) and handler is not signal.default_int_handler and not is_our_callable(handler)
