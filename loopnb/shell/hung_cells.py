"""Say in a cell that can never go on what it waits for, without being asked."""

from __future__ import annotations

from contextlib import ExitStack
from contextvars import Context
from typing import TYPE_CHECKING, Any

from loopnb._cpython import thread_time
from loopnb.texts import say
from loopnb.tracking.cells import current_cell

if TYPE_CHECKING:
    import asyncio

    from loopnb.session import Session
    from loopnb.shell.cells import Cells

#: Seconds from the beginning of a cell to the first look, and the least time between two looks.
_FIRST_S = 1.0
_NEXT_S = 0.8
#: After a look that finds nothing, rest this many times as long as it took, but at most this many seconds.
_REST = 300
_MOST_S = 30.0


class HungCells:
    """Looks now and then whether the executing cell can go on. If it cannot, one line in the cell says so.

    A look is made by a timer of the loop: while the cell awaits, or waits in a nested run. Two looks have to
    agree, so that a passing state is no alarm. The line appears once for each execution of a cell.

    Call everything in the loop's thread.

    Args:
        shell: The shell.
        session: Its session.
        cells: Knows which cell executes.
    """

    def __init__(self, shell: Any, session: Session, cells: Cells) -> None:
        self._shell = shell
        self._session = session
        self._cells = cells
        self._hooks = ExitStack()
        self._timer: asyncio.TimerHandle | None = None
        self._before: list[object] = []  # what the suspects waited for at the last look

    def start(self) -> None:
        """Look at cells from the next one on."""
        self._shell.events.register("pre_run_cell", self._begin)
        self._hooks.callback(self._cells.call_after(self._end))

    def stop(self) -> None:
        """Stop looking at cells."""
        self._shell.events.unregister("pre_run_cell", self._begin)
        self._hooks.close()
        self._end()

    def _begin(self, _info: object) -> None:
        is_told = self._session.settings.on_deadlock == "tell"
        if is_told and self._timer is None and self._session.owner.is_home() and current_cell.get():
            self._look_after(_FIRST_S)

    def _end(self) -> None:
        self._before = []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_after(self, seconds: float) -> None:
        loop = self._session.loop
        if not loop.is_closed():
            # Use an empty Context, so that the timer keeps no cell's Context alive.
            self._timer = loop.call_later(seconds, self._look, context=Context())

    def _look(self) -> None:
        self._timer = None
        cell = self._cells.executing
        if cell is None:
            return
        began = thread_time()
        deadlocks = self._session.deadlocks
        found = deadlocks.stuck_cell()
        waits = [] if found is None else deadlocks.waits_of(found)
        is_same = bool(waits) and len(waits) == len(self._before) and all(map(_is, waits, self._before))
        self._before = waits
        if found is not None and is_same and deadlocks.is_certain(found):
            self._before = []
            context = self._session.tracker.runs.context_of(cell) or Context()
            context.copy().run(say, f'{found.text}. LoopNB.on_deadlock = "keep" hides this line.')
            return
        rest_s = min(_REST * (thread_time() - began), _MOST_S)
        self._look_after(_NEXT_S if found is not None else max(_NEXT_S, rest_s))


def _is(found: object, before: object) -> bool:
    """Return True if both are the same wait. None stands for an unknown wait, and is never the same."""
    return found is not None and found is before
