"""Say who cancels a task, by the frames of the call: the user's line, a command, a timeout, an interrupt.

This notes cancellations only while somebody wants to know: `tracked.on_cancelled` is empty while no widget is
shown. It runs in the thread that calls `cancel()`. Nothing here keeps a task or a frame alive.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from typing import TYPE_CHECKING
from weakref import WeakMethod

from loopnb.frames import PACKAGE, Owner, outwards, owner_of
from loopnb.nesting._cpython import HANDLE_RUN_CODE
from loopnb.tracking import tracked, waits
from loopnb.tracking.cells import current_cell, line_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    from loopnb.records import CellRef
    from loopnb.tracking.tracked import TrackedTask
    from loopnb.tracking.tracker import Tracker

_ASYNCIO = os.path.dirname(asyncio.__file__) + os.sep
#: File -> who cancels if its code is on the stack. If several are, the outermost counts.
_CANCELLERS = {
    f"{_ASYNCIO}timeouts.py": "a timeout",
    f"{_ASYNCIO}taskgroups.py": "its task group, since another task of the group has failed",
    **{
        f"{PACKAGE}{path.replace('/', os.sep)}": who
        for path, who in {
            "loop/deadline.py": "a timeout",
            "loop/shutdown.py": "the end of the kernel",
            "magics/background.py": "the end or another run of its cell",
            "shell/interrupts.py": "an interrupt",
            "shell/reruns.py": "another run of its cell",
        }.items()
    },
}
_COMMANDS = f"{PACKAGE}magics{os.sep}commands.py"
_WIDGETS = f"{PACKAGE}widgets{os.sep}"
#: How many lines are remembered as text.
_MOST_LINES = 1_000


class Cancellers:
    """Calls *note* for each cancelled task of a loop, until this object is closed or dropped.

    Args:
        tracker: Knows the tasks of the loop.
        note: Called with the number of the task and with who cancels it, in words. Not called for a click
            in the widget, nor if the canceller is not known.
    """

    def __init__(self, tracker: Tracker, note: Callable[[int, str], object]) -> None:
        self._tracker = tracker
        self._note = note
        self._lines: dict[tuple[str, int, int, CellRef | None], str] = {}
        observe: Callable[[TrackedTask], None] = self._cancelled
        self._observer = WeakMethod(observe, _forget)
        tracked.on_cancelled.append(self._observer)

    def close(self) -> None:
        """Call *note* no more. Does nothing the second time."""
        _forget(self._observer)

    def _cancelled(self, task: TrackedTask) -> None:
        if task.get_loop() is self._tracker.loop:
            who = self._who(inspect.currentframe())
            if who:
                self._note(task.number, who)

    def _who(self, frame: FrameType | None) -> str:
        """Return who calls *frame*, in words; "" if that is not known, or if the widget does."""
        who = ""
        for caller in outwards(frame):
            code = caller.f_code
            owner = owner_of(code.co_filename)
            if owner is Owner.USER:
                # If an interrupt or a timeout cancels, the user's code further out has no part in it.
                return who or self._line(code, caller.f_lasti)
            if code is HANDLE_RUN_CODE or owner is Owner.KERNEL:
                return who
            if code.co_filename.startswith(_WIDGETS):
                return ""
            if code.co_filename == _COMMANDS:
                return self._command(caller)
            who = _CANCELLERS.get(code.co_filename, who)
        return who

    def _command(self, frame: FrameType) -> str:
        """Return the words for `%loopnb cancel`, with the line that it stands in."""
        for caller in outwards(frame):
            if owner_of(caller.f_code.co_filename) is Owner.USER:
                place = self._tracker.place(caller.f_code, caller.f_lasti, current_cell.get())
                return f"%loopnb cancel at {place}"
        return "%loopnb cancel"

    def _line(self, code: CodeType, instruction: int) -> str:
        cell = current_cell.get()
        # Hashing the code itself would take longer than all the rest.
        key = code.co_filename, code.co_firstlineno, instruction, cell
        line = self._lines.get(key)
        if line is None:
            place = self._tracker.place(code, instruction, cell)
            source = waits.source_of_line(code.co_filename, line_of(code, instruction))
            if len(self._lines) >= _MOST_LINES:
                self._lines.clear()
            line = self._lines[key] = f"{place}: {source}" if source else place
        return line


def _forget(observer: WeakMethod[Callable[[TrackedTask], None]]) -> None:
    if observer in tracked.on_cancelled:
        tracked.on_cancelled.remove(observer)
