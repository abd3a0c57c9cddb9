"""Keep the last lines that each task prints, while a view is visible.

ipykernel's streams copy what is written to another stream, their `echo`, if they have one. They do so in the
thread that writes. So in the loop's thread, the current task is the one that prints. Text that other threads
print belongs to no task.

Wrapping `write` would not do. From IPython 9 on, the shell sets `write` of the streams in each cell, and
after the cell sets it to what it was before.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

from loopnb.nesting._cpython import running_loop
from loopnb.patching import Patch
from loopnb.tracking.tracked import has_origin
from loopnb.widgets.protocol import MOST_TEXT, cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MOST_LINES = 20
"""How many lines of a task are shown."""
_MOST_KEPT = MOST_LINES * MOST_TEXT
"""How many characters of a task are kept."""
_MOST_TASKS = 500
"""How many tasks' lines are kept: those of the tasks that have printed last."""

#: Sequences that colour text in a terminal, or move its cursor.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def kernel_streams() -> list[Any]:
    """Return those of standard output and standard error that are streams of a kernel."""
    kind = getattr(sys.modules.get("ipykernel.iostream"), "OutStream", ())
    return [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, kind)]


class Printed:
    """The last lines that each task of a loop has printed. The loop's thread, unless it says otherwise.

    Args:
        loop: The loop.
        find_streams: Returns the streams to listen to.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, find_streams: Callable[[], Iterable[Any]]) -> None:
        self._loop = loop
        self._find_streams = find_streams
        #: By number, the end of what the task has printed. The task that printed last is last.
        self._texts: dict[int, str] = {}
        self._echoes: list[_Echo] = []

    def begin(self) -> None:
        """Listen to the streams from now on. Those that it listens to already stay as they are."""
        for stream in self._find_streams():
            echo = _echo_of(stream)
            if echo not in self._echoes:  # both may be one stream
                self._echoes.append(echo)
                echo.add(self._hear)

    def end(self) -> None:
        """Listen no more, and forget all lines. Does nothing the second time. Any thread."""
        echoes, self._echoes = self._echoes, []
        for echo in echoes:
            echo.discard(self._hear)
        self._texts.clear()

    def lines(self, number: int) -> list[str]:
        """Return the last lines of the task with that number, as a terminal would show them."""
        text = self._texts.get(number, "")
        lines = _ESCAPES.sub("", text).removesuffix("\n").split("\n") if text else []
        # A progress bar writes its line again and again, each time from the left.
        shown = [line.rstrip("\r").rpartition("\r")[2] for line in lines]
        if len(text) == _MOST_KEPT:
            shown[0] = f"…{shown[0]}"
        return [cut(line) for line in shown[-MOST_LINES:]]

    def _hear(self, text: str) -> None:
        if running_loop() is not self._loop:
            return
        task = asyncio.current_task(self._loop)
        if task is None or not has_origin(task):
            return
        # A subclass of str may do anything; this makes a plain str of it.
        kept = self._texts.pop(task.number, "") + str.__getitem__(text, slice(-_MOST_KEPT, None))
        self._texts[task.number] = kept[-_MOST_KEPT:]
        if len(self._texts) > _MOST_TASKS:
            del self._texts[next(iter(self._texts))]


class _Echo:
    """Stands in for the echo of a stream for as long as somebody listens. Any thread.

    Args:
        stream: The stream.
    """

    def __init__(self, stream: Any) -> None:
        self._stock: TextIO | None = stream.echo
        self._listeners: tuple[Callable[[str], None], ...] = ()
        self._patch = Patch(stream, "echo", self)

    def add(self, listener: Callable[[str], None]) -> None:
        """Tell *listener* of each text."""
        self._listeners = (*self._listeners, listener)
        self._patch.install()

    def discard(self, listener: Callable[[str], None]) -> None:
        """Tell *listener* nothing any more."""
        self._listeners = tuple(other for other in self._listeners if other != listener)
        if not self._listeners:
            self._patch.restore()

    def write(self, text: str) -> None:
        """Hear a text. The stream calls this."""
        for listener in self._listeners:
            listener(text)
        if self._stock is not None:
            self._stock.write(text)

    def flush(self) -> None:
        """Flush the echo for which this stands in. The stream calls this."""
        if self._stock is not None:
            self._stock.flush()


def _echo_of(stream: Any) -> _Echo:
    """Return the stand-in for the echo of *stream*: the one in place, or a new one."""
    return stream.echo if isinstance(stream.echo, _Echo) else _Echo(stream)
