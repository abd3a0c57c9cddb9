"""Know which cell executes now and in which task, and name places in cells."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from loopnb.frames import NOBODYS, is_called_by, users_place
from loopnb.loop.fresh import FreshLoop
from loopnb.nesting._cpython import running_loop
from loopnb.records import CellRef
from loopnb.shell._ipython import CellFiles, counts_at_start
from loopnb.tracking.cells import current_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_log = logging.getLogger("loopnb")


class _Execution:
    """A cell that has begun and not ended. Cells that a magic runs inside it come later in the list."""

    def __init__(self, info: object, cell: CellRef, task: asyncio.Task[Any] | None) -> None:
        self.info = info
        self.cell = cell
        self.task = task
        self.began_at = time.monotonic()
        self.attributed: list[asyncio.Task[Any]] = []


class Cells:
    """Follows the cells of one shell by IPython's events, whose callbacks never raise.

    Each thread has cells of its own, since cells of a subshell run in another thread. A method asks about the
    calling thread unless it says otherwise.

    Args:
        shell: The shell.

    Attributes:
        places: Formats file and line for people.
        ended: How many cells have ended. Any thread.
    """

    def __init__(self, shell: Any) -> None:
        self.ended = 0
        self.places = Places(shell)
        self._after: list[Callable[[], None]] = []
        self._shell = shell
        self._threads: dict[int | None, list[_Execution]] = {}

    def start(self) -> None:
        """Follow cells from the next one on."""
        self.places.files.patches.install()
        self._shell.events.register("pre_run_cell", self._begin)
        self._shell.events.register("post_run_cell", self._end)

    def stop(self) -> None:
        """Forget the cells, and stop following them."""
        self._shell.events.unregister("pre_run_cell", self._begin)
        self._shell.events.unregister("post_run_cell", self._end)
        self.places.files.patches.restore()
        self._threads.clear()

    def begin_loading_cell(self) -> None:
        """Count the cell that loads the extension as begun, if the caller is part of a cell.

        IPython announced that cell before we listened. A task that a cell has left running is not part of a
        cell: IPython would never announce its end.
        """
        if running_loop() is not None and asyncio.current_task() is not None and _stands_in_cell():
            self._push(None, CellRef(None, self._number()))

    def call_after(self, fn: Callable[[], None]) -> Callable[[], None]:
        """Call *fn* whenever a cell of the main thread has ended. What it raises is only logged.

        Returns:
            A function that takes this back. Call it once.
        """
        self._after.append(fn)
        return partial(self._after.remove, fn)

    @property
    def executing(self) -> CellRef | None:
        """The outermost cell that executes in the main thread. Any thread may ask."""
        # A slice: the main thread may end the cell between a test and an index.
        outermost = self._threads.get(threading.main_thread().ident, [])[:1]
        return outermost[0].cell if outermost else None

    @property
    def executing_since(self) -> float | None:
        """When `executing` began, in monotonic seconds; None if no cell executes. Any thread may ask."""
        outermost = self._threads.get(threading.main_thread().ident, [])[:1]
        return outermost[0].began_at if outermost else None

    def is_foreground(self, task: asyncio.Task[Any] | None) -> bool:
        """Return True if a cell executes in *task*."""
        return task is not None and any(
            execution.task is task or task in execution.attributed for execution in self._here()
        )

    def cell_in(self, task: asyncio.Task[Any]) -> CellRef | None:
        """Return the cell of the main thread that executes in *task*. Any thread may ask."""
        here = list(self._threads.get(threading.main_thread().ident, ()))
        for execution in here:
            if execution.task is task or task in tuple(execution.attributed):
                return execution.cell
        return None

    def is_top_level(self, task: asyncio.Task[Any] | None) -> bool:
        """Return True if *task* is itself the task in which IPython executes a cell."""
        return task is not None and any(execution.task is task for execution in self._here())

    @contextmanager
    def attribute_to_cell(self, task: asyncio.Task[Any]) -> Iterator[None]:
        """Count *task*, in which code of the executing cell runs, as that cell's own while the block runs."""
        here = self._here()
        if not here:
            yield
            return
        execution = here[-1]
        execution.attributed.append(task)
        try:
            yield
        finally:
            execution.attributed.remove(task)

    def is_inside_cell(self) -> bool:
        """Return True if the caller is part of a cell that executes, as a magic is."""
        if not self._here():
            return False
        return running_loop() is None or self.is_foreground(asyncio.current_task())

    def current(self) -> CellRef | None:
        """Return the outermost cell that executes in this thread."""
        here = self._here()
        return here[0].cell if here else None

    def typed(self, transformed: str) -> str:
        """Return the executing cell's text as the front end sent it, if *transformed* was made from it.

        IPython ends the text with a newline and strips the line of a magic. A cell's file name and a
        debugger's breakpoints depend on the text as it was sent.
        """
        here = self._here()
        sent: str = getattr(here[-1].info, "raw_cell", None) or "" if here else ""
        return sent if _stripped(sent) == _stripped(transformed) else transformed

    def is_executing(self, cell: CellRef | None) -> bool:
        """Return True if *cell* executes, in any thread; for None, if any cell does. Any thread may ask."""
        executing = [execution.cell for here in list(self._threads.values()) for execution in here]
        return bool(executing) if cell is None else cell in executing

    def _here(self) -> list[_Execution]:
        return self._threads.setdefault(threading.get_ident(), [])

    def _begin(self, info: Any) -> None:
        count = self._number() if info.store_history else self._shell.execution_count
        outer = self.current()
        # A cell that a magic runs counts as part of the cell with the magic.
        self._push(info, outer or CellRef(getattr(info, "cell_id", None), count))
        self.places.note(info.raw_cell, count)

    def _number(self) -> int:
        """Return the number of the cell that executes."""
        count: int = self._shell.execution_count
        return count - 1 if counts_at_start(self._shell) else count

    def _push(self, info: object, cell: CellRef) -> None:
        task = asyncio.current_task() if running_loop() is not None else None
        self._here().append(_Execution(info, cell, task))
        current_cell.set(cell)

    def _end(self, result: Any) -> None:
        # ipykernel reports None for an async cell that was cancelled.
        info = getattr(result, "info", None)
        if info is not None and not (info.raw_cell or "").strip():
            return  # IPython announces the end of a blank cell, but not its beginning
        self.ended += 1
        here = self._here()
        while here:
            ended = here.pop()
            if info is None or ended.info is info:
                break
        if not here and threading.current_thread() is threading.main_thread():
            self._call_after()

    def _call_after(self) -> None:
        for fn in self._after:
            try:
                fn()
            except Exception:  # noqa: BLE001  it must not keep the other functions from being called
                _log.exception("looking after a cell failed")


def _stripped(text: str) -> tuple[str, str]:
    first, _newline, rest = text.partition("\n")
    return first.strip(), rest.rstrip("\n")


def _stands_in_cell() -> bool:
    from IPython.core.interactiveshell import InteractiveShell

    return is_called_by(InteractiveShell.run_cell_async.__code__)


#: For how many texts of cells `Places` remembers the numbers of their executions.
_KEPT = 1_000


class Places:
    """A `Describe` that formats places for people: `In[4], line 2` in a cell, `app.py:12` elsewhere.

    ipykernel gives cells of the same text one file name, and shows it with the number of the newest cell. So
    this object remembers the numbers of all executions of a text. Any thread may ask.

    Args:
        shell: The shell.

    Attributes:
        files: Knows which file names stand for cells.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self.files = CellFiles(shell)
        self._counts: dict[str, set[int]] = {}  # by file name

    def note(self, raw_cell: str, count: int) -> None:
        """Note that *raw_cell* is executed as `In[count]`. Never raises."""
        try:
            filename = self._shell.compile.get_code_name(raw_cell, raw_cell, count)
        except Exception:  # noqa: BLE001  another package's compiler; then that names places
            return
        self._counts[filename] = {*self._counts.pop(filename, ()), count}
        if len(self._counts) > _KEPT:
            del self._counts[next(iter(self._counts))]

    def __call__(self, filename: str, line: int, cell: CellRef | None = None) -> str:
        """Return the place as people write it."""
        if cell is not None and cell.execution_count in self._counts.get(filename, ()):
            return f"{cell}, line {line}"
        label = self.files.label(filename)
        if label is not None:
            return f"{label}, line {line}"
        return f"{os.path.basename(filename)}:{line}"

    def of_closing(self) -> str:
        """Return where a loop is being closed: the user's innermost line, as people write it."""
        cell, (filename, line) = current_cell.get(), users_place()
        if is_called_by(FreshLoop.close.__code__):
            return f"the end of {cell or 'a cell'}, a %%aloop --fresh cell"
        if filename == NOBODYS and cell is not None:  # as in `asyncio.to_thread(asyncio.run, main())`
            return str(cell)
        return self(filename, line, cell)

    def is_cell_file(self, filename: str) -> bool:
        """Return True if *filename* stands for the source of a cell."""
        return self.files.label(filename) is not None
