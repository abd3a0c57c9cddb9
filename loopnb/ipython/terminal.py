"""IPython in a terminal: cells and the prompt take turns on the persistent loop.

The wish. What works in a notebook works here: a plain cell can `create_task`, a client made by one
`asyncio.run` serves in the next, and tasks move while the prompt waits.

What IPython does. The prompt has a loop of its own, an `await` cell another, which stands still
otherwise, and in a plain cell no loop runs: there `asyncio.run` makes a third and closes it.

The solution. The shell's own `run_cell` is called in a task of the persistent loop, as a kernel
calls it, and the prompt is a task of that loop, too. A plain cell runs in the step of its task. An
`await` cell is a nested run in it: IPython's `loop_runner` is called there, and waits for the
coroutine of the cell.

What it cannot do. A prompt that is read by `input()` (`--simple-prompt`, no tty) blocks the loop,
and so does a GUI's event loop (`%gui qt`): tasks move then only while cells run. And where nesting
is off, a plain cell is run as IPython does it, outside the loop.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from loopnb.internals.patching import Patch, PatchSet

if TYPE_CHECKING:
    from contextlib import ExitStack
    from contextvars import Context

    from loopnb.ipython.interrupts import Interrupts
    from loopnb.session import Session

#: All cells of a shell share one Context, as they do without us: what one sets, the next one sees.
_contexts: WeakKeyDictionary[Any, Context] = WeakKeyDictionary()


def hook(shell: Any, session: Session, interrupts: Interrupts, parts: ExitStack) -> None:
    """Put cells and prompt of *shell* on the loop of *session*, until *parts* is closed."""
    cells = TerminalCells(shell, session, interrupts)
    cells.start()
    parts.callback(cells.stop)


class TerminalCells:
    """Runs the cells of a shell that has no kernel in the persistent loop.

    Args:
        shell: The shell.
        session: Its session.
        interrupts: Takes SIGINT while a cell awaits.
    """

    def __init__(self, shell: Any, session: Session, interrupts: Interrupts) -> None:
        self._shell = shell
        self._session = session
        self._interrupts = interrupts
        self._stock_run_cell = shell.run_cell
        self._run_cell_patch = Patch(shell, "run_cell", functools.wraps(shell.run_cell)(self.run_cell))
        self._patches = PatchSet(self._run_cell_patch)
