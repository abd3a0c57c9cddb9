"""Start and end the tasks of `%%aloop -b`: what a new run replaces, what ends with it, how it is shown.

A background run is to the notebook what a program is to a terminal. So the tasks that it has spawned and the
servers that it has started end when it has ended, as they would with `asyncio.run()`. A task outlives the run
if it was spawned with `loopnb.spawn()`, is held with `loopnb.hold()`, or is itself a background run. With
`--keep`, nothing ends with a run that returns.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from IPython.core.error import UsageError

from loopnb import views
from loopnb._cpython import is_done, name_of
from loopnb.frames import users_frames
from loopnb.magics.servers import Servers
from loopnb.nesting._cpython import error_of
from loopnb.nesting.loop_task import LoopTask
from loopnb.texts import error_text, repr_text, say
from loopnb.tracking.background import BackgroundRun, is_background, live_runs, number_run
from loopnb.tracking.holding import is_held

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from loopnb.magics.options import Request
    from loopnb.records import CellRef
    from loopnb.session import Session


#: Seconds that a cell waits for an earlier run before it says so.
_SILENT = 1.0

#: Passes of the loop until a task has seen that its connection was closed: one tells its protocol, one wakes
#: the task, and one runs it. Most tasks then end by themselves, and need not be cancelled. On CPython 3.11,
#: asyncio logs an error for each handler of `asyncio.start_server()` that is cancelled.
_PASSES = 3


class Background:
    """Starts and ends background tasks. The loop's thread.

    Args:
        shell: The shell, which shows tracebacks.
        session: Its session.
    """

    def __init__(self, shell: Any, session: Session) -> None:
        self._shell = shell
        self._session = session
        # Tasks that we have cancelled. A second cancel would end their cleanup.
        self._cancelled: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._servers = Servers(session.loop)

    def start(self) -> None:
        """Note the servers of background runs from now on."""
        self._servers.start()

    def stop(self) -> None:
        """Note no more servers. Those that are noted are still closed with their run."""
        self._servers.stop()

    async def end_replaced_runs(self, request: Request) -> None:
        """Cancel what the new run replaces, such as its cell's earlier run, and wait for the cleanup.

        Raises:
            UsageError: The name is in use by another cell, and `--replace` was not given.
            CancelledError, KeyboardInterrupt: Interrupted while it waits. The earlier run goes on cleaning
                up.
        """
        # A cleanup may spawn a task of the same name.
        while ending := self.replaced_by(request):
            for task in ending.difference(self._cancelled):
                task.cancel()
            self._cancelled.update(ending)
            try:
                await self._wait_for(ending)
            except (asyncio.CancelledError, KeyboardInterrupt) as error:  # the latter in a terminal
                raise type(error)(
                    f"the earlier run {_sorted_names(ending)} has been cancelled and has not ended yet, so "
                    "the new one was not started. Run the cell again to go on waiting."
                ) from None

    def replaced_by(self, request: Request) -> set[asyncio.Task[Any]]:
        """Return the live tasks that have to end before the new run begins.

        Raises:
            UsageError: As `end_replaced_runs`.
        """
        here, name = _run_of(request), request.options.name
        own = {task for task, other in live_runs.items() if other.is_earlier_run_of(here)}
        named = [task for task in self._session.tracker.live() if name_of(task) == name]
        others = [task for task in named if task not in own and not self._is_spawned_by(task, request.cell)]
        if others and not request.options.replaces:
            raise self._in_use(others[-1])
        ending = set() if request.options.keeps else own.union(others)
        return {task for task in ending if not is_done(task)} - self._session.waiting_for_caller()

    def _is_spawned_by(self, task: asyncio.Task[Any], cell: CellRef | None) -> bool:
        """Return True if an earlier execution of *cell* spawned *task*: a cell may reuse its own names."""
        other = self._session.tracker.origin_of(task).cell
        if cell is None or other is None or cell == other:
            return False
        return cell.cell_id == other.cell_id is not None

    async def _wait_for(self, tasks: set[asyncio.Task[Any]]) -> None:
        _ended, left = await asyncio.wait(tasks, timeout=_SILENT)
        if left:
            say(
                "waiting for the earlier run, which has been cancelled and is cleaning up: "
                f"{', '.join(map(self.tell, left))}. Interrupt the cell to stop waiting."
            )
            await asyncio.wait(left)

    def spawn(self, coro: Coroutine[Any, Any, Any], request: Request) -> asyncio.Task[Any]:
        """Spawn the task of a background run. At its end, show a failure in its cell and end what is left."""
        context = copy_context()
        number = number_run(context)
        task = self._session.spawn(coro, name=request.options.name, context=context)
        run = _run_of(request)
        live_runs[task] = replace(run, number=number)
        if isinstance(task, LoopTask):
            task.show_as(self.tell)
        # A done-callback runs in the Context of this call, which is the cell's. So its output goes to the
        # cell.
        task.add_done_callback(self._report)
        if number is not None:
            task.add_done_callback(partial(self._end_rest, number, run, request.options.keeps))
        return task

    def tell(self, task: asyncio.Task[Any]) -> str:
        """Return the repr of a handle: what the task is doing now."""
        record = self._session.tracker.record(task)
        if record.state == "returned":
            return f"<Task {record.name!r} returned {repr_text(task.result(), 60)}>"
        if record.is_finished:
            return f"<Task {record.name!r} {record.state}{': ' if record.error else ''}{record.error}>"
        return f"<Task {record.name!r} {record.doing}, {views.age_text(record.age_s)} old>"

    def _in_use(self, task: asyncio.Task[Any]) -> UsageError:
        cell, name = self._session.tracker.record(task).cell, task.get_name()
        return UsageError(
            f"%%aloop: the name {name!r} is in use by a task of {cell or 'other code'}. Choose another "
            f"name, end that task with '%loopnb cancel {name}', or add --replace to take the name over."
        )

    def _report(self, task: asyncio.Task[Any]) -> None:
        """Show the failure of a background task in its cell, as IPython would."""
        live_runs.pop(task, None)
        if task.cancelled():
            return
        # Not `task.exception()`, which marks the error as seen: somebody may still await the handle.
        error = error_of(task)
        if error is not None:
            self._session.failures.remember(task, in_full=True)
            self._show(error)

    def _end_rest(self, number: int, run: BackgroundRun, keeps: bool, task: asyncio.Task[Any]) -> None:
        """End what the run with that number has left behind.

        Does nothing if the run has returned and *keeps* is true. If it has returned without that, this tells
        the user what ends with it.
        """
        has_returned = not task.cancelled() and error_of(task) is None
        if has_returned and keeps:
            return
        closed = self._servers.close_of(number)
        left = [other for other in self._session.tracker.live() if self._is_left_by(number, other)]
        if (left or closed) and has_returned:
            what = [f"its task{'s' * (len(left) > 1)} {views.names_of(left)}"] if left else []
            what += [f"its server on {address}" for address in closed]
            say(
                f"background run {task.get_name()!r} has returned, and {' and '.join(what)} end with it. "
                "With --keep they stay; so do tasks of loopnb.spawn()."
            )
        for other in left:
            live_runs[other] = run  # so that the next run waits for it, too
            other.add_done_callback(live_runs.pop)
        self._cancelled.update(left)
        self._cancel_after(_PASSES if closed else 0, left)

    def _cancel_after(self, passes: int, tasks: list[asyncio.Task[Any]]) -> None:
        """Cancel those of *tasks* that have not ended after *passes* passes of the loop."""
        if passes:
            self._session.loop.call_soon(self._cancel_after, passes - 1, tasks)
            return
        for task in tasks:
            task.cancel()

    def _is_left_by(self, number: int, task: asyncio.Task[Any]) -> bool:
        cell = self._session.tracker.origin_of(task).cell
        if cell is None or cell.background != number:
            return False
        return not (is_background(task) or is_held(task) or self._session.is_kept(task))

    def _show(self, error: BaseException) -> None:
        traceback = users_frames(error.__traceback__)
        try:
            # For an exception group, IPython prints the error that is being handled, not the given one. So
            # raise and handle this error.
            raise error
        except BaseException:  # noqa: BLE001  it is shown
            error.__traceback__ = traceback
            try:
                self._shell.showtraceback((type(error), error, traceback), tb_offset=0)
            except Exception:  # noqa: BLE001  the user's code, such as the error's `__str__`
                say(f"{error_text(error)}; showing its traceback failed.")


def _run_of(request: Request) -> BackgroundRun:
    return BackgroundRun(request.cell, request.options.name, request.source.text)


def _sorted_names(tasks: set[asyncio.Task[Any]]) -> str:
    return views.names_of(sorted(tasks, key=name_of))
