"""Changes to other people's objects that can be taken back."""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_F = TypeVar("_F", bound="Callable[..., Any]")

_ABSENT: Final = object()


class Patch:
    """One attribute of somebody else's object, replaced until further notice.

    Args:
        owner: Module, class or instance whose attribute is replaced.
        name: The attribute.
        replacement: What it becomes.
    """

    def __init__(self, owner: Any, name: str, replacement: Any) -> None:
        self.owner = owner
        self.name = name
        self.replacement = replacement
        self.installed = False
        self.was_added = False
        self._original: Any = _ABSENT

    @classmethod
    def made(cls, owner: Any, name: str, original: Any) -> Patch:
        """Return a patch that somebody else has installed over *original*, to be restored by us."""
        patch = cls(owner, name, vars(owner).get(name, _ABSENT))
        patch._original = original
        patch.installed = True
        patch.was_added = original is _ABSENT
        return patch

    def __repr__(self) -> str:
        owner = getattr(self.owner, "__qualname__", None) or getattr(self.owner, "__name__", None)
        return f"{owner or type(self.owner).__name__}.{self.name}"

    def install(self) -> None:
        """Put the replacement in place. Does nothing if it is already there."""
        if self.installed:
            return
        self._original = self._read()
        setattr(self.owner, self.name, self.replacement)
        self.installed = True

    def restore(self) -> bool:
        """Put the original back, provided the replacement is still ours.

        Returns:
            False if somebody else has replaced the attribute since. Theirs is left alone:
            restoring would silently undo it.
        """
        if not self.installed:
            return True
        self.installed = False
        original, self._original = self._original, _ABSENT
        if not self.is_in_place():
            return False
        if original is _ABSENT:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, original)
        return True

    def is_in_place(self) -> bool:
        """Say whether the attribute is the replacement now, whoever has put it there."""
        return self._read() is self.replacement

    def _read(self) -> Any:
        # vars(), not getattr(): a name inherited from a base class must be *deleted* on restore.
        # Writing the inherited value back would freeze it on the subclass, and a later patch of
        # the base would go unseen.
        if isinstance(self.owner, type | types.ModuleType):
            return vars(self.owner).get(self.name, _ABSENT)
        # Not so for an instance: vars() makes Python 3.11 and 3.12 build its dictionary, and every
        # `self.attribute` in its methods is slower from then on. A task's step on a loop patched
        # that way costs 1.14x (3.11) and 1.22x (3.12) of what it did.
        inherited = getattr(type(self.owner), self.name, _ABSENT)
        found = getattr(self.owner, self.name, _ABSENT)
        return _ABSENT if getattr(found, "__func__", found) is inherited else found


class CodePatch(Patch):
    """The code of a function, replaced so that every name bound to that function follows.

    `from asyncio import run`, executed before loopnb was loaded, binds the function object.
    Replacing the module's attribute would miss it; replacing the code inside does not.

    Args:
        function: The function to patch.
        replacement: A function without a closure, whose code is used. It runs with the *globals
            and defaults of the patched function*, so it must import what it needs.
    """

    def __init__(self, function: types.FunctionType, replacement: types.FunctionType) -> None:
        super().__init__(function, "__code__", replacement.__code__)
        self.original_function = _copy_of(function)

    def _read(self) -> Any:
        return self.owner.__code__


def looking_like(stock: Any, replacement: _F) -> _F:
    """Return *replacement* with the name, signature and help of *stock*, which it stands in for.

    But not with nest_asyncio's module, by which that package's own functions are told.
    """
    is_asyncios = str(getattr(stock, "__module__", "")).startswith("asyncio")
    told = [one for one in functools.WRAPPER_ASSIGNMENTS if is_asyncios or one != "__module__"]
    functools.update_wrapper(replacement, stock, told)
    return replacement


def _copy_of(function: types.FunctionType) -> types.FunctionType:
    """Return a function that goes on running the code that *function* has now."""
    copy = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


class TaskFactoryPatch:
    """The task factory of a loop, unless it has one of somebody else's.

    Args:
        loop: The loop. All calls in its thread.
        factory: What it shall have.
        over: A factory that may be replaced.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, factory: Any, over: Any = None) -> None:
        self.installed = False
        self._loop = loop
        self._factory = factory
        self._over = over
        self._original: Any = None

    def install(self) -> None:
        """Set it, unless it is set or another one than *over* is."""
        original = self._loop.get_task_factory()
        if not self.installed and (original is None or original is self._over):
            self._original = original
            self._loop.set_task_factory(self._factory)
            self.installed = True

    def is_in_place(self) -> bool:
        """Say whether it is the loop's now."""
        return self._loop.get_task_factory() is self._factory

    def restore(self) -> bool:
        """Set the one from before; False if somebody has set another one since, which stays."""
        if not self.installed:
            return True
        self.installed = False
        if not self.is_in_place():
            return False
        self._loop.set_task_factory(self._original)
        return True


class Revertible(Protocol):
    """A change that can be taken back: a `Patch`, a `MethodLayer`."""

    def install(self) -> None:
        """Make the change, unless it is made."""

    def restore(self) -> bool:
        """Take it back; False if somebody has changed the same since, and so it cannot be."""


class PatchSet:
    """Patches that go in and come out together."""

    def __init__(self, *patches: Revertible) -> None:
        self._patches = list(patches)

    def install(self) -> None:
        """Install every patch, or none of them."""
        done: list[Revertible] = []
        try:
            for patch in self._patches:
                patch.install()
                done.append(patch)
        except BaseException:
            for patch in reversed(done):
                patch.restore()
            raise

    def restore(self) -> list[Revertible]:
        """Take every patch back, the newest first.

        Returns:
            The patches that could not be taken back, since somebody patched over them.
        """
        return [patch for patch in reversed(self._patches) if not patch.restore()]


class Difference:
    """What somebody else's code changes in the attributes of some objects, so that it can go back.

    Args:
        owners: Modules, classes and instances, looked at when this is made and again by `note`.
    """

    def __init__(self, owners: list[Any]) -> None:
        self._before = [(owner, dict(vars(owner))) for owner in owners]
        self._changed: list[Patch] = []

    def note(self) -> None:
        """Note what has changed since."""
        for owner, before in self._before:
            now = dict(vars(owner))
            for name in now.keys() | before.keys():
                if now.get(name, _ABSENT) is not before.get(name, _ABSENT):
                    self._changed.append(Patch.made(owner, name, before.get(name, _ABSENT)))

    def restore(self) -> list[str]:
        """Put everything back that is still as noted, and name the rest.

        What was added goes, whatever it holds by now: a counter, for instance.
        """
        changed, self._changed = self._changed, []
        added = {patch.name for patch in changed if patch.was_added}
        kept = [patch for patch in reversed(changed) if not patch.restore() and patch.name not in added]
        for owner, before in self._before:
            for name in added & (vars(owner).keys() - before.keys()):
                delattr(owner, name)
        return [repr(patch) for patch in kept]
