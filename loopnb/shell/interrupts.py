"""Handle an interrupt of the kernel while a cell waits.

Stock ipykernel raises KeyboardInterrupt wherever the main thread is. While a cell's stack is parked, the main
thread is in a frame of the loop itself, and the error would end the kernel. The stock handler for `await`
cells does not wake the selector, so an interrupt takes effect only when the await ends (ipykernel #881).

Our handler asks the loop to cancel what the cell waits for. If the loop cannot answer, because another loop
or a blocking step occupies the thread, the handler raises KeyboardInterrupt itself.
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
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

from IPython.core import compilerop
from IPython.core.interactiveshell import InteractiveShell

from loopnb.frames import is_loops, is_our_callable, outwards, without_loops_frames
from loopnb.nesting._cpython import HANDLE_RUN_CODE, ready_queue, running_loop, waited_future
from loopnb.nesting.scope import engine_of
from loopnb.shell._ipykernel import is_asking, is_flushing
from loopnb.shell.cancelling import cancel_below, cancel_sparing
from loopnb.tracking.background import is_background
from loopnb.tracking.leaving import end_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

    from loopnb.shell.cells import Cells
    from loopnb.shell.wakeups import Wakeups
    from loopnb.tracking.tracker import Tracker

#: Seconds that the loop has to answer an interrupt. After that it counts as blocked by some step.
_BLOCKED_AFTER = 0.1

#: Seconds in which a step of the cell begins that was due when an interrupt came. Usually microseconds are
#: enough, but beside busy threads each takes Python's switch interval of 5 ms, some times over.
_STEPS_WITHIN = 2.0

_RUNNERS = (InteractiveShell.run_ast_nodes.__code__, InteractiveShell.run_code.__code__)
_GROUPS = asyncio.taskgroups.__file__
_GATHER = asyncio.gather.__code__
_COMPILERS = (codeop.__file__, compilerop.__file__, contextlib.__file__)


class CellTasks(Protocol):
    """Knows which tasks an interrupt of a cell may end. The loop's thread."""

    def is_cells(self, task: asyncio.Task[Any]) -> bool:
        """Return True if a cell executes in *task*."""

    def is_main_cells(self, task: asyncio.Task[Any]) -> bool:
        """Return True if a cell of the main thread executes in *task*. Any thread."""

    def is_foreign(self, task: asyncio.Task[Any]) -> bool:
        """Return True if *task* does not belong to the executing cell, and must live on."""

    def is_kernels(self, task: asyncio.Task[Any]) -> bool:
        """Return True if *task* is the kernel's own: an interrupt raised there loses the cell's reply."""

    def is_cell_file(self, filename: str) -> bool:
        """Return True if *filename* stands for the source of a cell."""

    def remember(self, future: asyncio.Future[Any]) -> bool:
        """Remember an interrupt of *future*, an `await` cell's task. Return False if its code has begun."""

    def send_again(self, is_wanted: Callable[[], bool | None]) -> None:
        """Send an interrupt again in some milliseconds, if *is_wanted* returns True then. See `Wakeups`."""

    def interrupt_nested(self) -> bool:
        """Interrupt the newest nested run of a cell. Return False if there is none."""


class Requests(Protocol):
    """Knows the requests that a kernel handles."""

    def is_handling(self, task: asyncio.Task[Any]) -> bool:
        """Return True if the kernel handles the latest request of its front end in *task*."""

    def remember(self, future: asyncio.Future[Any]) -> bool:
        """Remember an interrupt of *future*, an `await` cell's task. Return False if its code has begun."""


class ShellTasks:
    """The `CellTasks` of a shell.

    Args:
        loop: The persistent loop.
        cells: Knows which cell executes.
        tracker: Knows which cell has spawned a task.
        requests: The requests of the kernel; None in a terminal.
        wakeups: Sends interrupts again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        cells: Cells,
        tracker: Tracker,
        requests: Requests | None,
        wakeups: Wakeups,
    ) -> None:
        self._loop = loop
        self._cells = cells
        self._tracker = tracker
        self._requests = requests
        self._wakeups = wakeups

    def is_cells(self, task: asyncio.Task[Any]) -> bool:
        """Return True if a cell executes in *task*, or the kernel is about to execute one there."""
        return self._cells.is_foreground(task) or (
            self._requests is not None and self._requests.is_handling(task)
        )

    def is_main_cells(self, task: asyncio.Task[Any]) -> bool:
        """Return True if a cell of the main thread executes in *task*. Any thread."""
        return self._cells.cell_in(task) is not None

    def is_foreign(self, task: asyncio.Task[Any]) -> bool:
        """Return True if another cell has spawned *task*, or it runs in the background."""
        return is_background(task) or self._tracker.origin_of(task).cell != self._cells.current()

    def is_kernels(self, task: asyncio.Task[Any]) -> bool:
        """Return True if *task* is the kernel's own."""
        return self._tracker.is_kernels_own(task)

    def is_cell_file(self, filename: str) -> bool:
        """Return True if *filename* stands for the source of a cell."""
        return self._cells.places.is_cell_file(filename)

    def remember(self, future: asyncio.Future[Any]) -> bool:
        """Remember an interrupt of *future*, an `await` cell's task. Return False if its code has begun."""
        return self._requests is not None and self._requests.remember(future)

    def send_again(self, is_wanted: Callable[[], bool | None]) -> None:
        """Send an interrupt again in some milliseconds, if *is_wanted* returns True then. See `Wakeups`."""
        self._wakeups.send_again(is_wanted)

    def interrupt_nested(self) -> bool:
        """Interrupt the newest nested run of a cell. Return False if there is none."""
        engine = engine_of(self._loop)
        return engine is not None and engine.interrupt()


class Interrupts:
    """Handle SIGINT while a cell waits: in a nested run, in an `await`, in `%%aloop`.

    It is the engine's `Foreground`. Nested waits end in any order, so no wait can save the handler of SIGINT
    and restore it. Instead, the parked stacks are counted, and one handler is installed while there are any.

    Call in the loop's thread. Python calls signal handlers in the main thread only, so parked stacks of other
    threads are not counted.

    Args:
        loop: The persistent loop.
        tasks: Knows which tasks an interrupt may end.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tasks: CellTasks) -> None:
        self._loop = loop
        self._tasks = tasks
        # Made once: we recognize the installed handler by identity.
        self._on_parked = self._handler(self._is_blocked_while_parked, self._ask, tasks.interrupt_nested)
        self._parked = 0
        self._saved: Any = None  # the handler from before the first stack was parked
        self._interrupted: WeakSet[asyncio.Future[Any]] = WeakSet()
        self._finished: WeakSet[asyncio.Future[Any]] = WeakSet()  # KeyboardInterrupt was raised in them
        self._ending: set[asyncio.Task[Any]] = set()  # given a fatal error, and not stepped since
        self._awaiting: list[asyncio.Future[Any]] = []
        self._asked_at: float | None = None  # when the loop was asked, until it has answered
        self._collect: Callable[[BaseException], None] | None = None

    # -- nested runs: called by the engine ----------------------------------------------------

    def is_awaited(self, task: asyncio.Task[Any]) -> bool:
        """Return True if a cell executes in *task*, so that the user waits for it."""
        return self._tasks.is_cells(task)

    def stack_parked(self) -> None:
        """Count a parked stack of a cell. Install the handler for the first, unless the user has set one."""
        if threading.current_thread() is not threading.main_thread():
            return
        if self._parked == 0 and not _is_users(signal.getsignal(signal.SIGINT)):
            # Keep `_asked_at`: the loop may yet have to answer an interrupt from before the cell parked.
            self._saved = signal.signal(signal.SIGINT, self._on_parked)
        # Count only now, when our handler is installed: the kernel's own may raise between any two lines.
        self._parked += 1

    def stack_resumed(self) -> None:
        """Count a resumed stack of a cell. Remove the handler after the last one.

        Raises:
            KeyboardInterrupt: An interrupt came too late to end the wait of that stack.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        self._parked -= 1
        if self._parked == 0:
            was_asked, self._asked_at = self._asked_at is not None, None
            if signal.getsignal(signal.SIGINT) is self._on_parked:
                signal.signal(signal.SIGINT, self._saved)
            self._saved = None  # that of an `await` cell refers to its task
            if was_asked:
                raise KeyboardInterrupt

    def interrupt_nested(self) -> bool:
        """Interrupt the newest nested run of a cell. Return False if there is none."""
        return self._tasks.interrupt_nested()

    def cancel(self, future: asyncio.Future[Any]) -> None:
        """Cancel what a cell waits for, but none of the foreign tasks behind it."""
        cancel_sparing(future, self._tasks.is_foreign)

    def finish(self, future: asyncio.Future[Any]) -> bool:
        """End the await of *future* in KeyboardInterrupt. Return False if *future* is no waiting task."""
        self._finished.add(future)
        if not isinstance(future, asyncio.Task):
            return False
        waited = waited_future(future)
        if waited is not None:
            waited.add_done_callback(_retrieve)  # *future* leaves it, so nobody else retrieves its error
        return end_with(future, KeyboardInterrupt())

    def send_again(self, is_wanted: Callable[[], bool | None]) -> None:
        """Send an interrupt again in some milliseconds, if *is_wanted* returns True then. Any thread."""
        self._tasks.send_again(is_wanted)

    def loop_set_aside(self) -> None:
        """Raise KeyboardInterrupt if the loop still had to answer an interrupt, which it now cannot.

        Raises:
            KeyboardInterrupt: An interrupt of an `await` cell came before the loop was set aside.
        """
        if self._asked_at is not None and self._awaiting:
            self._asked_at = None
            raise KeyboardInterrupt

    # -- `await` cells ------------------------------------------------------------------------

    @contextmanager
    def cancel_on_sigint(self, future: asyncio.Future[Any]) -> Iterator[None]:
        """Cancel *future*, an `await` cell's task, on SIGINT while the block runs.

        It replaces ipykernel's method of the same purpose. Main thread only.
        """
        self._asked_at = None
        self._awaiting.append(future)
        saved = signal.signal(signal.SIGINT, self._handler(self._is_in_cell, self._ask_to_cancel, future))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, saved)
            self._awaiting.remove(future)

    @property
    def awaiting(self) -> list[asyncio.Task[Any]]:
        """The tasks of the `await` cells that execute."""
        return [task for task in self._awaiting if isinstance(task, asyncio.Task) and not task.done()]

    def was_interrupted(self, task: asyncio.Future[Any] | None) -> bool:
        """Return True if an interrupt has cancelled *task*."""
        return task in self._interrupted

    # -- errors that come out of a pass of the loop -------------------------------------------

    @contextmanager
    def collect_fatal(self, take: Callable[[BaseException], None]) -> Iterator[None]:
        """While the block runs, call *take* with fatal errors that leave the loop. They end no cell."""
        self._collect = take
        try:
            yield
        finally:
            self._collect = None

    def take_fatal(self, error: BaseException) -> bool:
        """End the newest `await` cell with *error*, which escaped from a pass of the loop.

        Inside `collect_fatal`, hand *error* to its *take* instead.

        Returns:
            False if no cell could get *error*, and it is for whoever runs the loop. True, too, for an
            interrupt that comes too late, when the cell has just ended.
        """
        if self._collect is not None:
            self._collect(error)
            return True
        awaiting = self.awaiting
        if not awaiting:
            # A cell has just ended, and its handler is still installed: the interrupt comes too late.
            return bool(self._awaiting) and isinstance(error, KeyboardInterrupt)
        error.__traceback__ = without_loops_frames(error.__traceback__)
        return self._end_cell(awaiting[-1], error)

    def _end_cell(self, task: asyncio.Task[Any], error: BaseException) -> bool:
        waited = waited_future(task)
        if waited is not None:
            waited.add_done_callback(_retrieve)  # once the cell has left it, nobody else retrieves its error
            if waited.done():
                return True  # the error is its own, and the cell is about to get it anyway
        is_ending = task in self._ending  # from an earlier error; not stepped since
        if not is_ending and end_with(task, error):
            self._ending.add(task)
            self._loop.call_soon(self._ending.discard, task, context=Context())
            if waited is not None and self._is_foreign_task(waited):
                # Step the cell next. If it is in the body of a TaskGroup, the group would otherwise cancel
                # it first, and with it the foreign task.
                ready_queue(self._loop).rotate(2)
            is_ending = True
        if isinstance(error, KeyboardInterrupt):
            self._asked_at = None  # this is the loop's answer
            if not is_ending:  # it awaits nothing: its next step is due
                self._interrupted.add(task)
                is_ending = task.cancel()
            cancel_below(task, self._tasks.is_foreign)  # a step that is still to come might block, too
        return is_ending

    # -- the handlers -------------------------------------------------------------------------

    def _handler(
        self, must_raise: Callable[[FrameType | None], bool], ask: Callable[..., object], *args: Any
    ) -> Callable[[int, FrameType | None], None]:
        """Return a handler that raises KeyboardInterrupt if *must_raise* says so, and else calls *ask*."""

        def on_sigint(_signum: int, frame: FrameType | None) -> None:
            # An error that is raised while the loop is being asked would keep it from being asked.
            if not must_raise(_outside(on_sigint.__code__, frame)):
                ask(*args)
                return
            self._note_raised()
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt as error:
                error.__traceback__ = None  # a bare `raise` adds no frame: only the user's are shown
                raise

        return on_sigint

    def _note_raised(self) -> None:
        """If an interrupt is raised in a step of the cell itself, the loop need not answer it, too.

        Its answer would cancel the cell once more, in its `finally`.
        """
        task = asyncio.current_task(self._loop) if running_loop() is self._loop else None
        if task is not None and self._tasks.is_cells(task):
            self._asked_at = None

    def _is_in_cell(self, frame: FrameType | None) -> bool:
        """Return True if the handler must raise KeyboardInterrupt while an `await` cell executes.

        It must raise in the cell's code and in whatever that calls, but not where IPython shows a traceback,
        which it does in the same task. It need not raise where the cell's output is flushed, or in a
        TaskGroup or `gather`: these take milliseconds, and the interrupt is sent again. An error raised there
        might turn into a RuntimeError, or leave children behind.
        """
        task = asyncio.current_task(self._loop) if running_loop() is self._loop else None
        return self._is_blocked(frame) or (
            task is not None
            and self._tasks.is_cells(task)
            and self._is_below_cell(frame)
            and not is_flushing(frame)
            and not _is_in_group(frame)
        )

    def _is_blocked(self, frame: FrameType | None) -> bool:
        """Return True if the handler must raise KeyboardInterrupt while a cell's stack is parked.

        It must raise while another loop runs in the cell, and while a nested run asks for input. It must
        raise, too, if a blocking step or a callback of the user's keeps the loop from answering the last
        interrupt, or keeps a cell from ending in an error. It must raise nowhere else: in a frame of the
        loop, or of the engine while it parks a stack, KeyboardInterrupt would end the kernel.
        """
        if running_loop() is not self._loop or is_asking(frame):
            return True
        has_answered = self._asked_at is None or monotonic() - self._asked_at < _BLOCKED_AFTER
        if has_answered and not self._ending:
            return False
        task = asyncio.current_task(self._loop)
        if task is None:
            return self._is_in_users_callback(frame)
        return not self._tasks.is_cells(task) and not self._tasks.is_kernels(task)

    def _is_in_users_callback(self, frame: FrameType | None) -> bool:
        for caller in outwards(frame):
            if caller.f_code is HANDLE_RUN_CODE:
                return False
            if self._tasks.is_cell_file(caller.f_code.co_filename):
                return True
        return False

    def _is_blocked_while_parked(self, frame: FrameType | None) -> bool:
        # A run that has set a handler over ours may put ours back after the last stack has been resumed.
        return self._is_blocked(frame) or (self._parked == 0 and self._is_below_cell(frame))

    def _is_below_cell(self, frame: FrameType | None) -> bool:
        if _is_between_statements(frame):
            return True
        while frame is not None:
            if self._tasks.is_cell_file(frame.f_code.co_filename):
                return True
            frame = frame.f_back
        return False

    def _ask_to_cancel(self, future: asyncio.Future[Any]) -> None:
        # A cell whose code has not begun must not be cancelled: the kernel would not reply.
        if self._tasks.remember(future):
            return
        self._ask(self._cancel, future)
        # A step of the cell may be in IPython's or the kernel's code, or begin before the loop answers.
        # If it then blocks, the loop cannot answer.
        asked_at = self._asked_at
        if asked_at is not None:
            self._tasks.send_again(lambda: self._is_wanted_again(asked_at))

    def _is_wanted_again(self, asked_at: float) -> bool | None:
        """Return True if a step of the cell keeps the loop from answering, None if it may yet. Any thread.

        Not for a step of another task: only a second interrupt of the user's ends that.
        """
        if self._asked_at != asked_at or monotonic() - asked_at > _STEPS_WITHIN:
            return False
        task = asyncio.current_task(self._loop)
        return True if task is not None and self._tasks.is_main_cells(task) else None

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
        if future.done() or self.interrupt_nested():
            return
        if future not in self._interrupted:
            self._interrupted.add(future)
            self.cancel(future)
            return
        # A second interrupt: the cell, or what it awaits, swallowed the first or takes long to clean up.
        below = waited_future(future) if isinstance(future, asyncio.Task) else None
        if below is None or below in self._finished or self._is_foreign_task(below) or not self.finish(below):
            self.finish(future)

    def _is_foreign_task(self, future: asyncio.Future[Any]) -> bool:
        return isinstance(future, asyncio.Task) and self._tasks.is_foreign(future)


def _outside(handler: CodeType, frame: FrameType | None) -> FrameType | None:
    """Return what the outermost call of *handler* has interrupted; *frame* if it is part of no such call."""
    for caller in outwards(frame):
        if caller.f_code is handler:
            frame = caller.f_back
    return frame


def _is_in_group(frame: FrameType | None) -> bool:
    """Return True if a TaskGroup or `gather` makes, counts or ends its children, and runs no other code."""
    for caller in outwards(frame):
        if caller.f_code.co_filename == _GROUPS or caller.f_code is _GATHER:
            return True
        if not is_loops(caller.f_code.co_filename):
            return False
    return False


def _is_between_statements(frame: FrameType | None) -> bool:
    """Return True if IPython is compiling or starting a statement of a cell.

    An error raised there counts as the cell's. Asking the loop would not help: it cannot answer if that
    statement blocks.
    """
    while frame is not None and frame.f_code.co_filename in _COMPILERS:
        frame = frame.f_back
    return frame is not None and frame.f_code in _RUNNERS


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


def _is_users(handler: Any) -> bool:
    """Return True if *handler* is a signal handler that neither Python nor loopnb has installed."""
    return callable(handler) and handler is not signal.default_int_handler and not is_our_callable(handler)
