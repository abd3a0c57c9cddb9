"""Which cell executes now, in which task, and how a place in a cell is called."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from loopnb.frames import is_called_by
from loopnb.nesting._cpython import running_loop
from loopnb.records import CellRef
from loopnb.tracking.cells import current_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_log = logging.getLogger("loopnb")


class _Execution:
    """One cell that has begun and not ended. Cells that a magic runs inside stand above it."""

    def __init__(self, info: object, cell: CellRef, task: asyncio.Task[Any] | None) -> None:
        self.info = info
        self.cell = cell
        self.task = task
        self.lent: list[asyncio.Task[Any]] = []


class Cells:
    """Follows the cells of one shell by IPython's events. Callbacks here never raise.

    Args:
        shell: The shell.
        changed: Called with the main thread's executing cell, or None, when that changes.
        places: Is told of each text that is executed.

    Attributes:
        after: Called when a cell of the main thread has ended; what they raise is only logged.
    """

    def __init__(self, shell: Any, changed: Callable[[CellRef | None], None], places: Places) -> None:
        self._shell = shell
        self._places = places
        self._changed = changed
        self._threads: dict[int, list[_Execution]] = {}
        self.after: list[Callable[[], None]] = []

    def start(self) -> None:
        """Follow cells from the next one on, and count the one that executes now as begun."""
        self._shell.events.register("pre_run_cell", self._begin)
        self._shell.events.register("post_run_cell", self._end)

    def stop(self) -> None:
        """Follow cells no more."""
        self._shell.events.unregister("pre_run_cell", self._begin)
        self._shell.events.unregister("post_run_cell", self._end)
        self._threads.clear()

    def begin_loading_cell(self) -> None:
        """Count the cell that loads the extension, if the caller is part of one: its `pre_run_cell` has been.

        A task that a cell has left running is none; its end would never be told.
        """
        if running_loop() is not None and asyncio.current_task() is not None and _stands_in_cell():
            self._push(None, CellRef(None, self._shell.execution_count - 1))

    def is_foreground(self, task: asyncio.Task[Any] | None) -> bool:
        """Say whether *task* is the one that a cell of this thread executes in."""
        return task is not None and any(one.task is task or task in one.lent for one in self._here())

    def is_top_level(self, task: asyncio.Task[Any] | None) -> bool:
        """Say whether *task* is the very one in which IPython executes a cell."""
        return task is not None and any(one.task is task for one in self._here())

    @contextmanager
    def lend(self, task: asyncio.Task[Any]) -> Iterator[None]:
        """Count *task* as the executing cell's own while the block runs: its code runs there."""
        here = self._here()
        if not here:
            yield
            return
        execution = here[-1]
        execution.lent.append(task)
        try:
            yield
        finally:
            execution.lent.remove(task)

    def is_inside_cell(self) -> bool:
        """Say whether the caller is part of a cell that executes: a magic, for instance."""
        if not self._here():
            return False
        return running_loop() is None or self.is_foreground(asyncio.current_task())

    def current(self) -> CellRef | None:
        """Return the outermost cell that executes in this thread."""
        here = self._here()
        return here[0].cell if here else None

    def typed(self, transformed: str) -> str:
        """Return the text of the executing cell as the front end has sent it, if it is *transformed*.

        IPython has ended that with a newline, and stripped the line of a magic. Files, and a debugger's
        breakpoints, go by what was sent.
        """
        here = self._here()
        sent: str = getattr(here[-1].info, "raw_cell", None) or "" if here else ""
        return sent if _stripped(sent) == _stripped(transformed) else transformed

    def is_executing(self, cell: CellRef | None) -> bool:
        """Say whether *cell* executes, in any thread; of None, whether any cell does."""
        executing = [one.cell for here in list(self._threads.values()) for one in here]
        return bool(executing) if cell is None else cell in executing

    def _here(self) -> list[_Execution]:
        return self._threads.setdefault(threading.get_ident(), [])

    def _begin(self, info: Any) -> None:
        count = self._shell.execution_count - (1 if info.store_history else 0)
        outer = self.current()
        # A cell run by a magic of another cell is that cell's doing.
        self._push(info, outer or CellRef(getattr(info, "cell_id", None), count))
        self._places.note(info.raw_cell, count)

    def _push(self, info: object, cell: CellRef) -> None:
        task = asyncio.current_task() if running_loop() is not None else None
        self._here().append(_Execution(info, cell, task))
        current_cell.set(cell)
        self._tell()

    def _end(self, result: Any) -> None:
        # ipykernel reports None for an async cell that was cancelled.
        info = getattr(result, "info", None)
        if info is not None and not (info.raw_cell or "").strip():
            return  # blank: IPython has not told of its beginning
        here = self._here()
        while here:
            ended = here.pop()
            if info is None or ended.info is info:
                break
        self._tell()
        if not here and threading.current_thread() is threading.main_thread():
            self._call_after()

    def _tell(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._changed(self.current())

    def _call_after(self) -> None:
        for fn in self.after:
            try:
                fn()
            except Exception:  # noqa: BLE001  an observer: it is logged, and the cell's end goes on
                _log.exception("looking after a cell failed")


def _stripped(text: str) -> tuple[str, str]:
    first, _newline, rest = text.partition("\n")
    return first.strip(), rest.rstrip("\n")


def _stands_in_cell() -> bool:
    from IPython.core.interactiveshell import InteractiveShell

    return is_called_by(InteractiveShell.run_cell_async.__code__)


#: Texts whose executions are remembered.
_KEPT = 1_000


class Places:
    """Formats file and line for people: `In[4], line 2` in a cell, `app.py:12` elsewhere; a `Describe`.

    To ipykernel, cells of the same text are one file, which it calls by the newest of them.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._counts: dict[str, set[int]] = {}  # by file name

    def note(self, raw_cell: str, count: int) -> None:
        """Note that *raw_cell* is executed as `In[count]`. Never raises."""
        try:
            filename = self._shell.compile.get_code_name(raw_cell, raw_cell, count)
        except Exception:  # noqa: BLE001  somebody's own compiler: places are as it says then
            return
        self._counts[filename] = {*self._counts.pop(filename, ()), count}
        if len(self._counts) > _KEPT:
            del self._counts[next(iter(self._counts))]

    def __call__(self, filename: str, line: int, cell: CellRef | None = None) -> str:
        """Return how a person would call that place."""
        if cell is not None and cell.execution_count in self._counts.get(filename, ()):
            return f"{cell}, line {line}"
        label = self._shell.compile.format_code_name(filename)
        if label is not None:
            return f"{label[1]}, line {line}"
        return f"{os.path.basename(filename)}:{line}"
