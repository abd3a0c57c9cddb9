"""Drive JupyterLite's Python kernel in Node: `jupyterlite/kernel.mjs`."""

from __future__ import annotations

import json
import queue
import re
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from tests.processes import ROOT, WaitTimedOutError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SCRIPT = Path(__file__).parent / "jupyterlite" / "kernel.mjs"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Cell:
    """A cell that has run, and what came for it.

    Attributes:
        number: Its number. The first is 1.
        error: The class and text of its error; "" if it succeeded.
        traceback: Its traceback, without colours.
        messages: What has come for it, also what came later.
    """

    number: int
    error: str = ""
    traceback: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What it has printed and displayed as text, without colours."""
        return _COLOURS.sub("", "".join(_texts(self.messages)))


class LiteKernel:
    """A kernel of JupyterLite in Node.

    Args:
        folder: What `make test-all` has installed: Pyodide, Node and packages.
        options: Options of `kernel.mjs`.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        modules = folder / "node_modules"
        node, pyodide = modules / "node" / "bin" / "node", modules / "pyodide"
        paths = (node, _SCRIPT, pyodide, folder / "packages", ROOT)
        command = [*map(str, paths), *options]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._said: list[str] = []
        self._cells: dict[int, Cell] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._wait("ready")

    def run(self, code: str) -> Cell:
        """Run a cell, and wait until it has ended."""
        cell = Cell(len(self._cells) + 1)
        self._cells[cell.number] = cell
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dedent(code).strip()) + "\n")
        self._process.stdin.flush()
        reply = self._wait("reply")["reply"]
        if reply["status"] != "ok":
            kind = reply["ename"].removeprefix("<class '").removesuffix("'>")
            cell.error = f"{kind}: {reply['evalue']}"
            cell.traceback = _COLOURS.sub("", "\n".join(reply["traceback"]))
        return cell

    def ok(self, code: str) -> Cell:
        """Run a cell that must succeed."""
        cell = self.run(code)
        assert not cell.error, cell.traceback
        return cell

    def wait_for(self, cell: Cell, text: str) -> None:
        """Wait until *cell* has printed or displayed *text*, though it has ended."""
        while text not in cell.text:
            self._take()

    def close(self) -> None:
        """End the kernel."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._reader.join()
        self._process.stdout.close()

    def _wait(self, kind: str) -> dict[str, Any]:
        while True:
            message = self._take()
            if message["kind"] == kind:
                return message

    def _take(self) -> dict[str, Any]:
        try:
            message = self._messages.get(timeout=50)
        except queue.Empty:
            message = None
        if message is None:
            shown = {cell.number: cell.text for cell in self._cells.values()}
            raise WaitTimedOutError(f"nothing more came; Node said {self._said}, and cells {shown}")
        if message["cell"] in self._cells:
            self._cells[message["cell"]].messages.append(message)
        return message

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self._messages.put(json.loads(line))
            except ValueError:
                self._said.append(line)
        self._messages.put(None)


def _texts(messages: list[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        if message["kind"] == "stream":
            yield message["text"]
        elif message["kind"] == "display":
            yield message["data"].get("text/plain", "")
