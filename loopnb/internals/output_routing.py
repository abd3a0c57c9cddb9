"""Which cell a display or an error goes to: the newest one in ipykernel 6, the one it came from here."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from traitlets import TraitType

from loopnb.internals.patching import Patch, PatchSet


def route_by_context(shell: Any) -> PatchSet:
    """Return the patches that send what a task displays, and its error, to the cell that spawned it.

    ipykernel 7 keeps the request that output belongs to in a ContextVar, which a task inherits
    from its cell. ipykernel 6 does so for standard output and error only: `parent_header` of the
    display hook, of the display publisher and of the shell is an ordinary trait there, and
    whatever is sent goes to the newest cell. (Of the shell it is what `with Output():` of
    ipywidgets captures.)

    Public names, but their kind is what matters: a trait in ipykernel 6.29.5 and 6.31.0, a
    property from 7.0 on. Where it is no trait nothing is patched.
    """
    owners = [shell.displayhook, shell.display_pub, shell]
    return PatchSet(
        *(
            Patch(type(owner), "parent_header", _ContextLocal(trait, owner))
            for owner in owners
            if isinstance(trait := getattr(type(owner), "parent_header", None), TraitType)
        )
    )


class _ContextLocal:
    """Stands in for a trait: each Context sees the value last set in it.

    Threads and older Contexts, in which none was set, see the newest. The trait holds that, so it
    is right when this is taken off again.

    Args:
        trait: The trait.
        owner: Whose value the calling Context starts with: the cell's that executes now.
    """

    def __init__(self, trait: TraitType[Any, Any], owner: Any) -> None:
        self._trait = trait
        self._here: ContextVar[Any] = ContextVar("parent_header")
        newest = trait.__get__(owner, type(owner))
        if newest:  # there is none yet while the kernel starts
            self._here.set(newest)

    def __get__(self, owner: Any, cls: type | None = None) -> Any:
        if owner is None:
            return self
        try:
            return self._here.get()
        except LookupError:
            return self._trait.__get__(owner, type(owner))

    def __set__(self, owner: Any, value: Any) -> None:
        self._here.set(value)
        self._trait.__set__(owner, value)
