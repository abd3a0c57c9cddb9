"""Streams that have one buffer, as in ipykernel before 6.29, without a kernel."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from loopnb.kernel.streams import StreamsByContext

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stream:
    """What `OutStream` of ipykernel 6.28 does, without its thread."""

    def __init__(self) -> None:
        self.parent_header = "before"
        self.sent: list[tuple[str, str]] = []
        self._buffer_lock = threading.RLock()
        self._buffer = ""

    def write(self, text: str) -> int:
        """Add *text* to the buffer."""
        self._buffer += text
        return len(text)

    def flush(self) -> None:
        """Send the buffer."""
        self._flush()

    def _flush(self) -> None:
        text = self._flush_buffer()
        if text:
            self.sent.append((self.parent_header, text))

    def _flush_buffer(self) -> str:
        text, self._buffer = self._buffer, ""
        return text


@contextmanager
def cell(stream: Any, name: str) -> Iterator[None]:
    """Do what ipykernel does for a request, and what `_tee` of IPython 9 does around a cell."""
    stream.parent_header = name
    before = stream.write
    stream.write = lambda text: before(text)
    yield
    stream.write = before
    stream.flush()


def send_beside_cells(stream: Stream) -> None:
    streams = StreamsByContext(Stream, [stream])
    with cell(stream, "loads"):
        streams.install()
        stream.write("loads")
    with cell(stream, "spawns"):
        stream.write("spawns")
        task = copy_context()
    with cell(stream, "prints"):
        stream.write("prints")
        task.run(stream.write, "a task")
        stream.write(", prints more")
    task.run(stream.write, "between cells")
    stream.flush()
    with cell(stream, "unloads"):
        assert streams.restore()
        stream.write("unloads")
    stream.write("later")
    stream.flush()


def test_a_task_prints_in_its_own_cell_although_ipython_replaces_write() -> None:
    stream = Stream()

    copy_context().run(send_beside_cells, stream)

    assert stream.sent == [
        ("loads", "loads"),
        ("spawns", "spawns"),
        ("prints", "prints"),
        ("spawns", "a task"),
        ("prints", ", prints more"),
        ("spawns", "between cells"),
        ("unloads", "unloads"),
        ("unloads", "later"),
    ]
