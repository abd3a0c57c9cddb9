"""Send what a task prints to the cell that spawned it, where ipykernel sends it to the newest cell.

From 6.29 on an `OutStream` keeps in a ContextVar which request its text belongs to, and a buffer for each
request. Before, it has one attribute `parent_header` and one buffer. What that holds is sent up to 0.2 s later,
with the header of that moment.

The solution. `parent_header` becomes a value of each Context. When somebody writes for another request, we first
set aside what the buffer holds, with its own header. A flush sends that, oldest first, and then the buffer.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from loopnb.kernel._ipykernel import buffer_lock, take_buffer, wrap_streams
from loopnb.kernel.by_context import ByContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class StreamsByContext:
    """The change that routes the text of all streams of a class. Any thread.

    Args:
        kind: The class.
        streams: Those that exist. They are flushed when the change is taken back.
    """

    def __init__(self, kind: type, streams: Iterable[Any]) -> None:
        self._streams = list(streams)
        self._texts: WeakKeyDictionary[Any, _Text] = WeakKeyDictionary()
        self._sending = threading.local()
        self._patches = wrap_streams(kind, _Header(self), self._write, self._flush, self._take)

    def install(self) -> None:
        """Route from now on."""
        for stream in self._streams:
            self._texts[stream] = _Text(stream.parent_header)
        self._patches.install()

    def restore(self) -> bool:
        """Send what is buffered, and leave the streams to the kernel."""
        for stream in self._streams:
            stream.flush()
        return self._patches.restore()

    def header(self, stream: Any) -> Any:
        """Return the header of the request that text of the calling Context belongs to."""
        if hasattr(self._sending, "header"):
            return self._sending.header
        return self._of(stream).parent.get(vars(stream)["parent_header"])

    def set_header(self, stream: Any, header: Any) -> None:
        """Set it, and keep it where the stock class does: there it holds for threads, and after `restore`."""
        self._of(stream).parent.set(header)
        vars(stream)["parent_header"] = header

    def _of(self, stream: Any) -> _Text:
        text = self._texts.get(stream)
        return self._texts.setdefault(stream, _Text(None)) if text is None else text

    def _write(self, stock: Callable[..., Any], stream: Any, *args: Any) -> Any:
        text, header = self._of(stream), self.header(stream)
        with buffer_lock(stream):
            if text.owner is not header:
                piece = take_buffer(stream)
                if piece:
                    text.set_aside.append((text.owner, piece))
                text.owner = header
            return stock(stream, *args)

    def _flush(self, stock: Callable[..., Any], stream: Any) -> None:
        text = self._of(stream)
        with buffer_lock(stream):
            pieces = [*text.set_aside, (text.owner, take_buffer(stream))]
            text.set_aside.clear()
        for header, piece in pieces:
            self._sending.header, self._sending.text = header, piece
            try:
                stock(stream)
            finally:
                del self._sending.header, self._sending.text

    def _take(self, stock: Callable[..., Any], stream: Any) -> Any:
        piece = vars(self._sending).get("text")
        return stock(stream) if piece is None else piece


class _Text:
    """What a stream has buffered, and for which requests. Its lock guards all but `parent`.

    Attributes:
        parent: The header of each Context.
        set_aside: Header and text of what is to be sent before the buffer.
        owner: The header of what the buffer holds.
    """

    def __init__(self, newest: Any) -> None:
        self.parent = ByContext(newest)
        self.set_aside: list[tuple[Any, str]] = []
        self.owner: Any = newest


class _Header:
    """Stands in for the attribute `parent_header`."""

    def __init__(self, streams: StreamsByContext) -> None:
        self._streams = streams

    def __get__(self, stream: Any, cls: type | None = None) -> Any:
        return self if stream is None else self._streams.header(stream)

    def __set__(self, stream: Any, header: Any) -> None:
        self._streams.set_header(stream, header)
