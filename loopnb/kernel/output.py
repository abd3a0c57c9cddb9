"""Send displays and errors of a task to the cell that spawned it.

Stock ipykernel 6 sends them to the newest cell.

ipykernel 7 keeps in a ContextVar to which request output belongs, and a task inherits that from its cell.
ipykernel 6.29 to 6.31 does so only for standard output and standard error. Older versions do so for nothing
(`streams.py`).
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from traitlets import TraitType

from loopnb.kernel._ipykernel import patch_parents, single_buffer_streams
from loopnb.kernel.streams import StreamsByContext
from loopnb.patching import MethodWrapper, Patch, PatchSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextvars import Context

    from loopnb.patching import Revertible


def route_by_context(shell: Any) -> PatchSet:
    """Return the patches that send a task's displays and errors to the cell that spawned it.

    In ipykernel 7 there is nothing to patch. `parent_header` of the display hook, of the display publisher
    and of the shell is a trait in 6.17.1 to 6.31.0, and a property from 7.0 on. (`with Output():` asks the
    shell for its own in ipywidgets 8.1.9, and the kernel in 8.1.5 and before.) The kernel has a record of its
    own, for statuses and comms, before 7.0.
    """
    patches: list[Revertible] = [
        Patch(type(owner), "parent_header", _ContextLocal(trait, owner))
        for owner in (shell.displayhook, shell.display_pub, shell)
        if isinstance(trait := getattr(type(owner), "parent_header", None), TraitType)
    ]
    record = patch_parents(shell.kernel, _ShellParentByContext)
    if record is not None:
        patches.append(record)
    kind = single_buffer_streams()
    if kind is not None:
        streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, kind)]
        patches.append(StreamsByContext(kind, streams))
    return PatchSet(*patches)


class _ByContext:
    """A value that each Context has for itself.

    Args:
        newest: The value of the calling Context at first; empty while the kernel starts.
    """

    def __init__(self, newest: Any) -> None:
        self._here: ContextVar[Any] = ContextVar("parent")
        if newest:
            self._here.set(newest)

    def get(self, newest: Any) -> Any:
        """Return the calling Context's value. Where none was set, as in threads, return *newest*."""
        return self._here.get(newest)

    def set(self, value: Any) -> None:
        """Set the calling Context's value."""
        self._here.set(value)


class _ContextLocal:
    """Stands in for a trait.

    The trait itself keeps the newest value. That value holds again once this stand-in is gone.
    """

    def __init__(self, trait: TraitType[Any, Any], owner: Any) -> None:
        self._trait = trait
        self._value = _ByContext(trait.__get__(owner, type(owner)))

    def __get__(self, owner: Any, cls: type | None = None) -> Any:
        return self if owner is None else self._value.get(self._trait.__get__(owner, type(owner)))

    def __set__(self, owner: Any, value: Any) -> None:
        self._value.set(value)
        self._trait.__set__(owner, value)


class _ShellParentByContext(dict[str, Any]):
    """Stands in for the kernel's record of the newest request of each channel, and keeps it up to date."""

    def __init__(self, newest: dict[str, Any]) -> None:
        super().__init__(newest)
        self._newest = newest
        self._value = _ByContext(newest.get("shell"))

    def get(self, channel: str, default: Any = None) -> Any:
        newest = self._newest.get(channel, default)
        return self._value.get(newest) if channel == "shell" else newest

    def __getitem__(self, channel: str) -> Any:
        return self.get(channel)

    def __setitem__(self, channel: str, parent: Any) -> None:
        super().__setitem__(channel, parent)
        self._newest[channel] = parent
        if channel == "shell":
            self._value.set(parent)


@contextmanager
def moved_here(shell: Any, contexts: Iterable[Context]) -> Iterator[None]:
    """While the block runs, send to the caller's cell what code in *contexts* prints, displays or raises.

    nbclient drops what comes for a cell that has ended. Every output passes `Session.msg`, with the request
    that it belongs to. Messages of widgets pass it, too. In a terminal this does nothing: all output goes to
    the same place. Call it in the cell's thread. Only the flush at the end may block.

    Args:
        shell: The shell.
        contexts: Contexts of cells that have ended. Output of executing cells stays theirs.
    """
    session = getattr(shell.display_pub, "session", None)
    here = getattr(shell.display_pub, "parent_header", None)
    if session is None or not here:
        yield
        return
    moved = {
        context.copy().run(getattr, shell.display_pub, "parent_header").get("msg_id") for context in contexts
    } - {None, here.get("msg_id")}

    def msg(
        stock: Any, msg_type: str, content: Any = None, parent: Any = None, *rest: Any, **named: Any
    ) -> Any:
        request = (parent or {}).get("header", parent) or {}  # a message, or only its header
        return stock(msg_type, content, here if request.get("msg_id") in moved else parent, *rest, **named)

    wrapper = MethodWrapper(type(session), "msg", msg, only=session)
    wrapper.install()
    try:
        yield
    finally:
        try:
            for stream in (sys.stdout, sys.stderr):  # a stream sends its text later, in another thread
                stream.flush()
        finally:
            wrapper.restore()
