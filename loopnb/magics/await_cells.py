"""Rewrite plain `%%aloop` cells as `await` cells.

An `await` cell needs no nested run, and the kernel handles widgets' messages while it waits. So we turn a
plain `%%aloop` cell into an `await` cell before IPython turns it into a call of the magic.

For any other cell magic, `In[n]`, `%save` and `%macro` hold the call of the magic, since they hold what
IPython executes. They should do so for `%%aloop`, too. `%history` and `_i` hold what the user typed.
"""

from __future__ import annotations

from typing import Any

from loopnb.patching import Patch

#: `__self__` is the `LoopMagics` of the shell, and `runner` its `Aloop`. The frame of this cell holds no code
#: of the user's, so the cell takes its own frame out of the traceback; a bare `raise` does not put it back.
_AWAIT_CELL = """\
try:
    await get_ipython().find_cell_magic("aloop").__self__.runner.run_cell({line!r}, {body!r})
except BaseException:
    __import__("sys").exception().__traceback__ = __import__("sys").exception().__traceback__.tb_next
    raise
"""
_MAGICS_CALL = "get_ipython().run_cell_magic('aloop', {line!r}, {body!r})\n"

#: How many rewritten cells are remembered. IPython stores a cell right after we rewrite it.
_KEPT = 100


class AwaitCells:
    """Rewrites plain `%%aloop` cells, and has history hold the magic's call.

    Args:
        shell: The shell.
    """

    def __init__(self, shell: Any) -> None:
        stock = shell.history_manager.store_inputs
        self._calls: dict[str, str] = {}  # by the text of the `await` cell

        def store_inputs(line_num: int, source: str, source_raw: str | None = None) -> None:
            # If the call is forgotten, history holds the `await` cell, which does the same.
            stock(line_num, self._calls.get(source, source), source_raw)

        self._patch = Patch(shell.history_manager, "store_inputs", store_inputs)

    def start(self) -> None:
        """Have history hold the magic's call from now on."""
        self._patch.install()

    def stop(self) -> None:
        """Leave history to IPython."""
        self._patch.restore()

    def rewrite(self, line: str, body: str) -> str:
        """Return the `await` cell for a plain `%%aloop` cell with that first line and body."""
        text = _AWAIT_CELL.format(line=line, body=body)
        self._calls[text] = _MAGICS_CALL.format(line=line.strip(), body=body)
        if len(self._calls) > _KEPT:
            del self._calls[next(iter(self._calls))]
        return text
