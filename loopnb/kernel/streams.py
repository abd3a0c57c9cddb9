"""Send what a task prints to the cell that spawned it, on versions of ipykernel that do not.

From 6.29 on an `OutStream` keeps in a ContextVar to which request its text belongs, and has a buffer for each
request. Earlier versions have one attribute `parent_header` and one buffer. They send the buffer up to 0.2 s
after a write, with the header of that moment: the newest cell's, whoever has written.

The solution. `parent_header` becomes a value of each Context. When code writes for another request, we first
set aside what the buffer holds, with its header. A flush sends what was set aside, oldest first, and then the
buffer.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from loopnb.kernel._ipykernel import buffer_lock, forget_own_write, take_buffer, wrap_streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


#: The header of the request to which text of this Context belongs. It outlives a reload of loopnb, since
#: tasks do. One serves all streams: the kernel sets the headers of standard output and standard error
#: together.
_header: ContextVar[Any] = ContextVar("header")


class StreamsByContext:
    """The patches that route the text of all streams of a class. Any thread.

    Args:
        kind: The class.
        streams: The streams that exist. They are flushed when the patches are restored.
    """

    def __init__(self, kind: type, streams: Iterable[Any]) -> None:
        self._streams = list(streams)
        self._texts: WeakKeyDictionary[Any, _Text] = WeakKeyDictionary()
        self._sending = threading.local()
        self._patches = wrap_streams(kind, _Header(self), self._write, self._flush, self._take)

    def install(self) -> None:
        """Route from now on."""
        for stream in self._streams:
            _header.set(stream.parent_header)
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
        return _header.get(vars(stream)["parent_header"])

    def set_header(self, stream: Any, header: Any) -> None:
        """Set the header of the calling Context.

        Also keep it where the stock class does, for threads, and for the stream after `restore`.
        """
        forget_own_write(stream)  # at the latest now, in the first request after `install`
        _header.set(header)
        vars(stream)["parent_header"] = header

    def _of(self, stream: Any) -> _Text:
        text = self._texts.get(stream)
        return self._texts.setdefault(stream, _Text(vars(stream)["parent_header"])) if text is None else text

    def _write(self, stock: Callable[..., Any], stream: Any, *args: Any) -> Any:
        text, header = self._of(stream), self.header(stream)
        with buffer_lock(stream):
            if text.owner is not header:
                text.change_owner(header, take_buffer(stream))
            return stock(*args)

    def _flush(self, stock: Callable[..., Any], stream: Any) -> None:
        text = self._of(stream)
        with buffer_lock(stream):
            pieces = text.take_all(take_buffer(stream))
        for header, piece in pieces:
            self._sending.header, self._sending.text = header, piece
            try:
                stock()
            finally:
                del self._sending.header, self._sending.text

    def _take(self, stock: Callable[..., Any], stream: Any) -> Any:
        piece = vars(self._sending).get("text")
        return stock() if piece is None else piece


class _Text:
    """What a stream has buffered, and for which requests. The stream's lock guards it.

    Args:
        owner: The header of what the buffer holds.

    Attributes:
        owner: The header of what the buffer holds.
    """

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self._set_aside: list[tuple[Any, str]] = []  # header and text of what is to be sent first

    def change_owner(self, owner: Any, piece: str) -> None:
        """Have the buffer belong to another request. Set aside *piece*, which it held."""
        if piece:
            self._set_aside.append((self.owner, piece))
        self.owner = owner

    def take_all(self, piece: str) -> list[tuple[Any, str]]:
        """Return what was set aside, each with its header, then *piece*, which the buffer held."""
        pieces, self._set_aside = [*self._set_aside, (self.owner, piece)], []
        return pieces


class _Header:
    """Stands in for the attribute `parent_header`."""

    def __init__(self, streams: StreamsByContext) -> None:
        self._streams = streams

    def __get__(self, stream: Any, cls: type | None = None) -> Any:
        return self if stream is None else self._streams.header(stream)

    def __set__(self, stream: Any, header: Any) -> None:
        self._streams.set_header(stream, header)
