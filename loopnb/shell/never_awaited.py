"""Add the cell, and what to type, to Python's warning "coroutine ... was never awaited".

We change the text of the warning when it is about to be shown. By then Python has applied its filters, so
they still match Python's own text.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from loopnb.shell._cpython import before_warnings
from loopnb.tracking.cells import current_cell

if TYPE_CHECKING:
    from loopnb.shell.cells import Places

_TEXT = re.compile(r"coroutine '([^']+)' was never awaited")


class NeverAwaited:
    """Completes these warnings, in whichever thread they are shown.

    Args:
        places: Knows the files of cells.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._patch = before_warnings(self._complete)

    def start(self) -> None:
        """Complete the warnings from now on."""
        self._patch.install()

    def stop(self) -> None:
        """Leave them as they are."""
        self._patch.restore()

    def _complete(self, warning: Any) -> None:
        """Add a note to *warning*, a `warnings.WarningMessage`. Raises nothing: finalizers warn, too."""
        with suppress(Exception):
            found = _TEXT.fullmatch(str(warning.message)) if warning.category is RuntimeWarning else None
            if found is not None:
                where = ""
                # If it is another file, the coroutine was dropped there: in the garbage collector, for
                # instance.
                if self._places.is_cell_file(warning.filename):
                    where = f"{self._places(warning.filename, warning.lineno, current_cell.get())}: "
                name = found[1].rpartition(".")[2]
                note = (
                    f"{where}calling {name}() only makes a coroutine. To run it, put `await` in front (in a "
                    "plain `def`, asyncio.run() around it), or loopnb.spawn() around it to go on meanwhile."
                )
                warning.message = RuntimeWarning(f"{found[0]}. {note}")
