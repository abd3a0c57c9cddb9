"""Show in a cell's own output how far it has come, while it waits: `%%aloop --progress`, `LoopNB.progress`.

It is one line, which changes twice a second. It says for how long the cell has run, how many of its tasks are
done and how many have failed, how fast that goes, and where the cell waits. At the end it becomes one short
line, which stays in the saved notebook.

The line belongs to the cell, so it is published in a copy of the cell's Context. We count tasks by looks at
the listing and the history, and add nothing to a task. We find tasks that end between two looks in the
history, as far as it goes back.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from contextvars import Context, copy_context
from html import escape
from typing import TYPE_CHECKING, Any

from loopnb.kernel._ipykernel import kernel_of
from loopnb.nesting._cpython import error_of, running_loop
from loopnb.views import age_text, lines_text, seconds_text

if TYPE_CHECKING:
    from loopnb.records import CellRef
    from loopnb.session import Session
    from loopnb.shell.cells import Cells
    from loopnb.tracking.tracked import Origin

_FIRST_S = 1.0
"""A cell that ends sooner shows nothing."""
_EVERY_S = 0.5
_SHARE = 0.02
"""Seconds between two looks, and the share of the time that they take at most."""

_log = logging.getLogger("loopnb")


class Progress:
    """Shows how far cells have come. The loop's thread. It never raises, and shows nothing in a terminal.

    Args:
        shell: The shell.
        session: Its session.
        cells: Knows which cells execute.
    """

    def __init__(self, shell: Any, session: Session, cells: Cells) -> None:
        self._shell = shell
        self._session = session
        self._cells = cells
        self._line: _Line | None = None

    def start(self) -> None:
        """Follow the cells from the next one on."""
        self._shell.events.register("pre_run_cell", self._begin_cell)
        self._shell.events.register("post_run_cell", self._end_cell)

    def stop(self) -> None:
        """Follow the cells no more."""
        self._shell.events.unregister("pre_run_cell", self._begin_cell)
        self._shell.events.unregister("post_run_cell", self._end_cell)
        self._end_cell()

    def begin(self, main: asyncio.Task[Any] | None = None) -> None:
        """Show the progress of the cell that executes, until it ends.

        Args:
            main: The task that the cell waits for. It does not count as one that the cell has spawned.
        """
        cell = self._cells.executing
        if cell is None or kernel_of(self._shell) is None or not self._session.owner.is_home():
            return
        if self._line is not None and self._line.cell == cell:
            self._line.main = main if main is not None else self._line.main
            return
        self._end_cell()
        self._line = _Line(self._shell, self._session, cell, main)

    def _begin_cell(self, _info: object) -> None:
        if self._session.settings.progress:
            self.begin(None if running_loop() is None else asyncio.current_task())

    def _end_cell(self, _result: object = None) -> None:
        line = self._line
        if line is not None and self._cells.executing != line.cell:
            self._line = None
            line.end()


class _Line:
    """The line of one cell.

    Args:
        shell: The shell.
        session: Its session.
        cell: The cell.
        main: The task that the cell waits for, if it has one of its own.

    Attributes:
        cell, main: As given.
    """

    def __init__(self, shell: Any, session: Session, cell: CellRef, main: asyncio.Task[Any] | None) -> None:
        self.cell = cell
        self.main = main
        self._shell = shell
        self._session = session
        self._context = copy_context()
        self._id = uuid.uuid4().hex
        self._is_shown = False
        self._began = time.monotonic()
        self._follower = session.tracker.listing.follow()
        self._spawned: set[int] = set()
        self._ended: set[int] = set()
        self._failed: set[int] = set()
        self._cancelled: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._sleep(_FIRST_S)

    def end(self) -> None:
        """Replace it by a short line, if it was ever shown."""
        if self._timer is not None:
            self._timer.cancel()
        if self._is_shown:
            self._guard(self._fold)
        self._follower.close()

    def _sleep(self, pause_s: float) -> None:
        self._timer = self._session.loop.call_later(pause_s, self._guard, self._tick, context=Context())

    def _guard(self, fn: Any) -> None:
        try:
            fn()
        except Exception:  # noqa: BLE001  an observer: the cell goes on without it
            _log.exception("the progress of a cell could not be shown")

    def _tick(self) -> None:
        began = time.perf_counter()
        # Only `held` finds tasks that have ended before the first look, and to which something refers.
        self._count(is_thorough=not self._is_shown)
        self._show(self._text())
        self._sleep(max(_EVERY_S, (time.perf_counter() - began) / _SHARE))

    def _fold(self) -> None:
        self._count(is_thorough=True)
        took = seconds_text(time.monotonic() - self._began)
        self._show(f"{self.cell} took {took}{self._counts(': {}')}")

    def _count(self, *, is_thorough: bool) -> None:
        tracker = self._session.tracker
        delta, refs = self._follower.look(), self._follower.take_ended()
        main = None if self.main is None else tracker.number_of(self.main)
        if is_thorough:
            refs |= tracker.held()
        self._spawned.update(
            number
            for number, record in delta.changed.items()
            if record.cell == self.cell and record.spawned_at >= self._began and number != main
        )
        self._ended |= self._spawned & delta.gone
        for task_ref in refs.values():
            task = task_ref()
            if task is not None:
                state = (
                    "cancelled" if task.cancelled() else "returned" if error_of(task) is None else "raised"
                )
                self._note_ended(tracker.origin_of(task), main, state)
        for ended in tracker.history:
            self._note_ended(ended.origin, main, ended.state)

    def _note_ended(self, origin: Origin, main: int | None, state: str) -> None:
        number = origin.number
        if origin.cell != self.cell or origin.spawned_at < self._began or number == main:
            return
        self._spawned.add(number)
        self._ended.add(number)
        if state == "raised":
            self._failed.add(number)
        elif state == "cancelled":
            self._cancelled.add(number)

    def _text(self) -> str:
        elapsed_s = time.monotonic() - self._began
        parts = [f"{self.cell} runs, {age_text(elapsed_s)}{self._counts(': {}')}"]
        done, total = len(self._ended), len(self._spawned)
        if 0 < done < total:
            rate = done / elapsed_s
            parts.append(f"{rate:.3g} a second, about {age_text((total - done) / rate)} left")
        if (doing := self._doing()) is not None:
            parts.append(doing)
        return "; ".join(parts)

    def _doing(self) -> str | None:
        if self.main is None or self.main.done():
            return None
        return self._session.tracker.record(self.main).doing

    def _counts(self, form: str) -> str:
        total, failed, cancelled = len(self._spawned), len(self._failed), len(self._cancelled)
        done = len(self._ended) - cancelled
        if not total:
            return ""
        counts = f"{done:,} of {total:,} tasks done" if total > 1 else f"{done} of 1 task done"
        if failed:
            counts += f", {failed:,} of them failed"
        if cancelled:
            counts += f", {cancelled:,} cancelled"
        return form.format(counts)

    def _show(self, text: str) -> None:
        text = lines_text([text])
        data = {"text/plain": text, "text/html": f"<div>{escape(text)}</div>"}
        publish = self._shell.display_pub.publish
        is_update, self._is_shown = self._is_shown, True
        self._context.run(publish, data, transient={"display_id": self._id}, update=is_update)
