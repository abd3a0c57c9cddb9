"""Send output of a task to the cell that spawned it. JupyterLite would send it to the newest cell."""

from __future__ import annotations

from typing import Any

from loopnb.pyodide import _pyodide


class CellOutput:
    """Notes in the Context of each cell which request its output answers. Tasks inherit that.

    Args:
        shell: The shell.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._patch = _pyodide.patch_request(shell.kernel)

    def start(self) -> None:
        """Route output from the next cell on."""
        self._patch.install()
        self._shell.events.register("pre_run_cell", self._begin)

    def stop(self) -> None:
        """Leave the choice to JavaScript again."""
        self._shell.events.unregister("pre_run_cell", self._begin)
        self._patch.restore()

    def _begin(self, _info: Any) -> None:
        _pyodide.keep_request(self._shell.kernel)
