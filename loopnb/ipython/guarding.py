"""Guarding a kernel's loop: what to warn of where, and the kernel's orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
import warnings
from typing import TYPE_CHECKING, Any

from loopnb.errors import LoopWarning
from loopnb.internals.asyncio_state import calling_frame
from loopnb.internals.loop_health import AllTasks
from loopnb.internals.patching import Patch
from loopnb.loop.guard import LoopGuard
from loopnb.loop.healing import ClosedLoops, Healer
from loopnb.loop.shutdown import wind_down
from loopnb.tracking.chains import is_users
from loopnb.tracking.tracker import error_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from loopnb.ipython.cells import Cells
    from loopnb.nesting.waits import Wait
    from loopnb.session import Session


class Warnings:
    """Shows a warning at the user's line, once for each line."""

    def __init__(self, describe: Callable[[str, int], str]) -> None:
        self._describe = describe
        self._shown: set[tuple[str, int, str]] = set()

    def warn(self, text: str) -> None:
        """Warn of what the user's innermost line does now."""
        filename, line = users_place()
        key = (filename, line, text)
        if key not in self._shown:
            self._shown.add(key)
            text = f"{self._describe(filename, line)}: {text}"
            warnings.warn_explicit(text, LoopWarning, filename, line)

    def warn_once(self, text: str) -> None:
        """Warn of something that no single line did."""
        if ("", 0, text) not in self._shown:
            self._shown.add(("", 0, text))
            warnings.warn_explicit(text, LoopWarning, "loopnb", 0)

    def place(self) -> str:
        """Return how a person would call the user's innermost line."""
        return self._describe(*users_place())


def users_place() -> tuple[str, int]:
    """Return file and line of the innermost frame that a user wrote or installed."""
    frame = calling_frame(1)
    while frame is not None and not is_users(frame.f_code):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("?", 0)


def guard_kernel(shell: Any, session: Session, cells: Cells, parts: ExitStack) -> Healer:
    """Guard the loop of *shell*'s kernel until *parts* is closed, and return who mends it."""
    warned = Warnings(session.describe)
    healer = Healer(session.loop, warned.warn_once)
    closed = ClosedLoops(warned.place)
    guard = LoopGuard(
        session.loop,
        is_ending=lambda: bool(shell.exit_now),
        wind_down=lambda: wind_down_session(session, shell.kernel.log.warning),
        innermost=lambda: innermost(session, cells),
        wait=lambda future: wait_forever(session, future),
        warn=warned.warn,
        end_kernel=lambda: _end_kernel(shell),
        is_top_level=cells.is_top_level,
    )
    shown = explaining(shell, closed)
    shutdown = Patch(shell.kernel, "do_shutdown", _make_do_shutdown(shell.kernel, session, guard))
    hidden = AllTasks(session.tracker.is_kernels_own)
    for begin, end in (
        (guard.patches.install, guard.patches.restore),
        (closed.start, closed.stop),
        (shown.install, shown.restore),
        (shutdown.install, shutdown.restore),
        (hidden.install, hidden.restore),
    ):
        begin()
        parts.callback(end)
    return healer


def explaining(shell: Any, closed: ClosedLoops) -> Patch:
    """Return a patch by which *closed* explains the errors that *shell* is about to show."""
    stock = shell.showtraceback

    def showtraceback(exc_tuple: Any = None, *args: Any, **options: Any) -> Any:
        closed.explain((exc_tuple or sys.exc_info())[1])
        return stock(exc_tuple, *args, **options)

    return Patch(shell, "showtraceback", showtraceback)


def _make_do_shutdown(kernel: Any, session: Session, guard: LoopGuard) -> Callable[[bool], Any]:
    """Return a `Kernel.do_shutdown` that first ends the tasks, while all channels still work.

    It is called in the control thread. A loop that is blocked cannot end anything, and the kernel
    goes all the same when the time is up.
    """
    stock = kernel.do_shutdown

    async def do_shutdown(restart: bool) -> Any:
        ending = asyncio.run_coroutine_threadsafe(guard.wind_down(), session.loop)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(ending), 3 * session.settings.shutdown_grace)
        answer = stock(restart)
        return await answer if inspect.isawaitable(answer) else answer

    return do_shutdown


async def wind_down_session(session: Session, log: Callable[[str], None]) -> None:
    """End the tasks of *session* in order, and name in the log what could not end."""

    def describe(task: asyncio.Task[Any]) -> str:
        record = session.tracker.record(task)
        return f"task {record.name!r}, spawned by {record.cell or 'other code'}"

    await wind_down(session.tracker.live(), grace=session.settings.shutdown_grace, describe=describe, log=log)
    for failure in session.failures.unseen():
        cell = failure.origin[2]
        log(
            f"task {failure.name!r}, spawned by {cell or 'other code'}, failed and nobody awaited it: "
            f"{error_text(failure.error)}"
        )


def innermost(session: Session, cells: Cells) -> Wait | None:
    """Return the wait that `loop.stop()` ends: the cell's, or when no cell calls it, the newest."""
    engine = session.engine
    waits = list(reversed(engine.waits)) if engine is not None else []
    foreground = [wait for wait in waits if wait.is_foreground]
    if foreground or cells.is_inside_cell():
        return foreground[0] if foreground else None
    return waits[0] if waits else None


def wait_forever(session: Session, future: asyncio.Future[Any]) -> None:
    """Park the calling stack until *future* is done: a nested `run_forever()`."""
    engine = session.engine
    if engine is None:
        raise RuntimeError("This event loop is already running")
    engine.wait(future, owned=True)


def _end_kernel(shell: Any) -> None:
    """Shut the kernel down as `exit()` does; the guard ends the tasks before the loop stops."""
    shell.exit_now = True
