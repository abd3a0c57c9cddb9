"""`call_soon` in one Python call where asyncio makes three: it gives back what nesting and tracking take.

Each step of a task, each done-callback and each spawn goes through `BaseEventLoop.call_soon`. Merged with
the two methods it calls it takes a tenth less: what the look between two passes costs, and a fifth of what
tracking adds to a spawn. Checked on CPython 3.11.7 to 3.14.10; where asyncio's methods are other ones, they
are left alone. Loops of a subclass, which may have its own, go to asyncio's by way of this one. Who patches
`BaseEventLoop.call_soon` later on stands before it; a later patch of `_call_soon` alone is not seen.
"""

from __future__ import annotations

import threading
from asyncio import events
from typing import TYPE_CHECKING, Any

from loopnb.internals.asyncio_state import BaseEventLoop
from loopnb.internals.frames import is_ours, without_any_frames_of
from loopnb.internals.patching import Patch, looking_like
from loopnb.internals.runners import loop_classes

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

_Loop: Any = BaseEventLoop

#: The methods that the one below stands for, and what they refer to.
_MERGED = {
    "call_soon": {"_check_closed", "_debug", "_check_thread", "_check_callback", "_call_soon"}
    | {"_source_traceback"},
    "_call_soon": {"events", "Handle", "_source_traceback", "_ready", "append"},
    "_check_closed": {"_closed", "RuntimeError"},
}


def _are_asyncios(kind: Any) -> bool:
    """Say whether *kind* has the very methods that are merged."""
    methods = {name: getattr(kind, name) for name in _MERGED}
    return all(
        method is vars(_Loop)[name] and set(method.__code__.co_names) == _MERGED[name]
        for name, method in methods.items()
    )


def _merged(kinds: list[type]) -> Callable[..., events.Handle]:
    stock, first, second = _Loop.call_soon, kinds[0], kinds[-1]

    def call_soon(
        self: Any, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> events.Handle:
        kind = type(self)  # a subclass may have methods of its own
        if (kind is not first and kind is not second) or self._closed or self._debug:
            try:
                return _checked(stock(self, callback, *args, context=context))
            except BaseException as error:
                error.__traceback__ = without_any_frames_of(error.__traceback__, is_ours)
                raise
        handle = events.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    return looking_like(stock, call_soon)


def _checked(handle: Any) -> events.Handle:
    if handle._source_traceback:
        del handle._source_traceback[-1]  # a frame more than asyncio knows of
    return handle  # type: ignore[no-any-return]  # its private attribute is looked at


class LeanScheduling:
    """The merged method, in place while somebody asks for it. Any thread; a `Revertible`."""

    def install(self) -> None:
        """Have it in place."""
        with _changing:
            kinds = [kind for kind in loop_classes() if _are_asyncios(kind)]
            if not _users and kinds:
                _patches.append(Patch(_Loop, "call_soon", _merged(kinds)))
                _patches[0].install()
            _users.add(self)

    def restore(self) -> bool:
        """Need it no more; False if somebody has replaced it since, and asyncio's cannot be put back."""
        with _changing:
            _users.discard(self)
            if _users:
                return True
            return _patches.pop().restore() if _patches else True


_users: set[LeanScheduling] = set()
_patches: list[Patch] = []
_changing = threading.Lock()
