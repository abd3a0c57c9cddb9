"""Functions that stand before the methods of a class: any number, put in and taken out in any order."""

from __future__ import annotations

import inspect
import threading
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeGuard
from weakref import ref

from loopnb.internals.frames import is_ours, without_any_frames_of
from loopnb.internals.patching import CodePatch, Patch, looking_like

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: attributes of other classes cannot be set


class MethodLayer:
    """A function that stands before a method, for one instance or for all.

    For one instance, an attribute of the instance would do. But those that CPython 3.11 to 3.13 keep for
    the instances of a class have room for two or three more than an event loop has; beyond that all of
    them are looked up in a dictionary, and every step of a task takes longer.

    It goes on the class that defines the method, or in its code, so that those for one class and for its
    subclasses meet. What such a method raises has no frames of this package.

    Args:
        kind: The class that has the method.
        name: Of the method.
        around: Called in its place, with what does the rest, the instance and the arguments.
        only: The one instance that is meant, which *around* is not told then; None for all.
    """

    def __init__(self, kind: type, name: str, around: Callable[..., Any], only: Any = None) -> None:
        self.around = around
        self.only = None if only is None else ref(only)
        self._owner = _owner_of(kind, name)
        self._name = name
        self._method: _LayeredMethod | None = None

    def install(self) -> None:
        """Stand before the method, and before all that do so already. Does nothing a second time."""
        with _changing:
            if self._method is None:
                self._method = _LayeredMethod.of(self._owner, self._name)
                self._method.layers = (*self._method.layers, self)

    def restore(self) -> bool:
        """Step aside; the last one puts the method back.

        Returns:
            False if it cannot, since somebody else has patched the method meanwhile.
        """
        with _changing:
            method, self._method = self._method, None
            if method is None:
                return True
            method.layers = tuple(layer for layer in method.layers if layer is not self)
            return bool(method.layers) or method.patch.restore()


class _LayeredMethod:
    """A method with all that stands before it, the last one outermost.

    Of one that takes nothing but the instance the code is replaced, so that methods bound before follow;
    others are attributes of their class.
    """

    def __init__(self, owner: type, name: str) -> None:
        self.layers: tuple[MethodLayer, ...] = ()
        self.stock = vars(owner).get(name)
        self._owner = owner
        self._name = name
        self.patch: Patch
        if _takes_only_instance(self.stock):
            stand_in = FunctionType(_code_calling(self.call, name), {})
            self.patch = code_patch = CodePatch(self.stock, stand_in)
            self._call_stock: Any = code_patch.original_function
            self.stand_in: Any = self.stock
        else:
            self._call_stock = self.stock
            self.stand_in = looking_like(getattr(owner, name), self._as_function())
            self.patch = Patch(owner, name, self.stand_in)

    @classmethod
    def of(cls, owner: type, name: str) -> _LayeredMethod:
        """Return that of *name*, put in now if it is not there or somebody has patched over it.

        It is the same one again where it can be: who has kept a bound method calls the layers of now.
        """
        found, present = _layered.get((owner, name)), vars(owner).get(name)
        if found is None or present not in (found.stock, found.stand_in):
            found = _layered[owner, name] = cls(owner, name)
        if not found.patch.is_in_place():
            found.patch.installed = False  # it may have been patched over, and that taken back
            found.patch.install()
        return found

    def _as_function(self) -> Callable[..., Any]:
        def method(instance: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return self.call(instance, *args, **kwargs)
            except BaseException as error:
                error.__traceback__ = without_any_frames_of(error.__traceback__, is_ours)
                raise

        return method

    def call(self, instance: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the layers, and what they stand before."""
        if self._call_stock is None:
            call = getattr(super(self._owner, instance), self._name)
        else:
            call = partial(self._call_stock, instance)
        for layer in self.layers:
            if layer.only is None:
                call = partial(layer.around, call, instance)
            elif layer.only() is instance:
                call = partial(layer.around, call)
        return call(*args, **kwargs)


def _takes_only_instance(method: Any) -> TypeGuard[FunctionType]:
    if not isinstance(method, FunctionType) or method.__code__.co_freevars:
        return False
    return list(inspect.signature(method).parameters) == ["self"]


def _bare(self: Any) -> Any:
    call = "call"
    without_our_frames = "without_our_frames"
    try:
        return call(self)  # type: ignore[operator]  # see `_code_calling`
    except BaseException as error:
        error.__traceback__ = without_our_frames(error.__traceback__)  # type: ignore[operator]  # the same
        raise


def _code_calling(call: Callable[..., Any], name: str) -> CodeType:
    """Return the code of a method that calls *call*.

    It runs with the globals of the method's own module, and has to find what it calls without them, also
    when Python ends and nothing can be imported any more: by constants.
    """
    constants = {
        "call": call,
        "without_our_frames": lambda tb: without_any_frames_of(tb, is_ours),
    }
    code = _bare.__code__
    replaced = tuple(constants.get(one, one) if isinstance(one, str) else one for one in code.co_consts)
    return code.replace(co_name=name, co_consts=replaced)


_layered: dict[tuple[type, str], _LayeredMethod] = {}
_changing = threading.Lock()


def _owner_of(kind: type, name: str) -> type:
    owner = next(one for one in kind.__mro__ if name in vars(one))
    return owner if owner.__flags__ & _HEAP_TYPE else kind
