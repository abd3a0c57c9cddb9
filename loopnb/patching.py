"""Change other people's objects so that every change can be undone.

The wish. loopnb changes asyncio, IPython, ipykernel and a few other packages while they run. After
`%unload_ext loopnb` every object must be what it was before, and patches that others have made since must
stay. Some changes have to reach names that were bound earlier: `from asyncio import run`, or a saved
`loop.stop`.

What does not work. Assigning an attribute, and later assigning the old value back, fails in four ways:

* Writing back an inherited attribute freezes it on the subclass. It has to be deleted instead.
* Code that imported the function by name, or kept a bound method, does not see the assignment.
* If A wraps a method and then B does, they have to come off in reverse order. Removing A first removes B
  with it, and removing B afterwards brings A back.
* If somebody else patches the same name later, writing the old value back removes their patch.

The solution. Every change has `install` and `restore` (`Revertible`). `restore` first checks that the
change is still in place. If somebody has patched over it, `restore` leaves their patch alone and returns
False.

* `Patch` replaces an attribute of a module, a class or an instance.
* `CodePatch` replaces the code inside a function. The function object stays, so all names for it follow.
* `MethodWrapper` puts a function around a method of a class, for all instances or for one. Wrappers of one
  method share a single patch and come off in any order. The price is several more calls each time. For a
  method that is called often, and that only one part of loopnb replaces, use a `Patch` with `looking_like`.
* `TaskFactoryPatch` replaces what can only be read and set through methods: a loop's task factory.
* `ListEntry` adds an entry to a list, such as `gc.callbacks`.
* `PatchSet` installs several changes, or none of them.
* `ImportWatch` calls a function with a module, once the module has been imported.
* `Difference` undoes what somebody else's code has changed.

What it cannot do:

* Code that has kept a replacement (a bound method taken while it was installed, say) keeps it after
  `restore`. So a replacement must keep working after `restore`.
* `CodePatch` reaches Python functions only, and its code sees the globals of the function it stands in for.
* If somebody has wrapped a replacement, `restore` cannot take it out of their wrapper. It returns False, and
  the wrapper goes on calling the replacement.
* Only wrappers of methods are locked. Install and restore any other change in one thread at a time.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeGuard, TypeVar
from weakref import ref

from loopnb._cpython import is_being_imported
from loopnb.frames import is_ours, without_any_frames_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType

_F = TypeVar("_F", bound="Callable[..., Any]")

_ABSENT: Final = object()


class Revertible(Protocol):
    """A change that can be undone."""

    def install(self) -> None:
        """Make the change. Does nothing if it has been made already."""

    def restore(self) -> bool:
        """Undo the change. Does nothing if it has not been made.

        Returns:
            False if the change stays because somebody else has since changed the same thing.
        """


class PatchSet:
    """Changes that are installed and restored together.

    Args:
        patches: In the order in which they are installed.
    """

    def __init__(self, *patches: Revertible) -> None:
        self._patches = patches

    def install(self) -> None:
        """Install every change, or none of them if one raises."""
        done: list[Revertible] = []
        try:
            for patch in self._patches:
                patch.install()
                done.append(patch)
        except BaseException:
            for patch in reversed(done):
                patch.restore()
            raise

    def restore(self) -> bool:
        """Restore every change, the newest first. Returns False if any of them could not be restored."""
        restored = [patch.restore() for patch in reversed(self._patches)]
        return all(restored)


# -- attributes ----------------------------------------------------------------------------------


class Patch:
    """One attribute of somebody else's object, replaced until `restore`.

    Args:
        owner: Module, class or instance whose attribute is replaced.
        name: The attribute.
        replacement: Its value while the patch is installed.
    """

    def __init__(self, owner: Any, name: str, replacement: Any) -> None:
        self.owner = owner
        self.name = name
        self.replacement = replacement
        self.installed = False
        self._original: Any = _ABSENT

    def __repr__(self) -> str:
        return _name_of(self.owner, self.name)

    def install(self) -> None:
        """Put the replacement in place. Does nothing if it is installed already."""
        if self.installed:
            return
        self._original = self._read()
        self._write(self.replacement)
        self.installed = True

    def restore(self) -> bool:
        """Put the original back, provided the replacement is still ours.

        Returns:
            False if somebody else has replaced the attribute since. Their value stays: restoring would
            silently undo their change.
        """
        if not self.installed:
            return True
        self.installed = False
        original, self._original = self._original, _ABSENT
        if not self.is_in_place():
            return False
        self._write(original)
        return True

    def is_in_place(self) -> bool:
        """Return True if the attribute is the replacement now, whoever put it there."""
        return self._read() is self.replacement

    def _read(self) -> Any:
        # Not getattr(): an inherited name must be *deleted* on restore. Writing the inherited value back
        # would freeze it on the subclass, and a later patch of the base would go unseen.
        if isinstance(self.owner, type | ModuleType):
            return vars(self.owner).get(self.name, _ABSENT)
        # Not vars() for an instance: it makes Python 3.11 and 3.12 build the instance's dictionary, which
        # slows down every `self.attribute` in its methods from then on. For a loop, a task's step takes 1.14x
        # as long on 3.11, and 1.22x on 3.12.
        inherited = getattr(type(self.owner), self.name, _ABSENT)
        found = getattr(self.owner, self.name, _ABSENT)
        return _ABSENT if getattr(found, "__func__", found) is inherited else found

    def _write(self, value: Any) -> None:
        _set(self.owner, self.name, value)


class CodePatch(Patch):
    """The code of a function, replaced so that every name for that function follows.

    `from asyncio import run`, executed before loopnb was loaded, binds the function object. Replacing the
    module's attribute would miss it; replacing the code inside does not.

    Args:
        function: The function to patch.
        replacement: A function without a closure, whose code is used. It runs with the *globals and defaults
            of the patched function*, so it must import what it needs.

    Attributes:
        original_function: A function that does what *function* did when this object was made.
    """

    def __init__(self, function: Callable[..., Any], replacement: Callable[..., Any]) -> None:
        super().__init__(function, "__code__", replacement.__code__)
        self.original_function = copy_of(function)


class TaskFactoryPatch(Patch):
    """Set the task factory of a loop, unless somebody else has set one.

    Args:
        loop: The loop. Call all methods in its thread.
        factory: The factory to set.
        over: Another factory of ours, which may be replaced.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, factory: Any, over: Any = None) -> None:
        super().__init__(loop, "task_factory", factory)
        self._over = over

    def install(self) -> None:
        """Set the factory if the loop has none, or has *over*. `installed` tells whether it was set."""
        present = self._read()
        if present is None or present is self._over:
            super().install()

    def _read(self) -> Any:
        return self.owner.get_task_factory()

    def _write(self, value: Any) -> None:
        self.owner.set_task_factory(value)


class ListEntry:
    """An entry in somebody else's list, until `restore`. The entries of others stay as they are.

    Args:
        owner: The list.
        entry: What is added at its end.
    """

    def __init__(self, owner: list[Any], entry: Any) -> None:
        self._owner = owner
        self._entry = entry

    def install(self) -> None:
        """Add the entry. Does nothing if it is there already."""
        if not any(present is self._entry for present in self._owner):
            self._owner.append(self._entry)

    def restore(self) -> bool:
        """Remove the entry. Always returns True: nobody can have put theirs over it."""
        for index, present in enumerate(self._owner):
            if present is self._entry:
                del self._owner[index]
                break
        return True


def looking_like(stock: Any, replacement: _F) -> _F:
    """Return *replacement* with the name, signature and help of *stock*, for which it stands in.

    `__module__` is copied only if it is asyncio's. `reentrant_methods` recognises nest_asyncio's functions by
    their `__module__`, and must not mistake ours for one of them.
    """
    is_asyncios = str(getattr(stock, "__module__", "")).startswith("asyncio")
    copied = [name for name in functools.WRAPPER_ASSIGNMENTS if is_asyncios or name != "__module__"]
    functools.update_wrapper(replacement, stock, copied)
    return replacement


def _set(owner: Any, name: str, value: Any) -> None:
    if value is _ABSENT:
        delattr(owner, name)
    else:
        setattr(owner, name, value)


def _name_of(owner: Any, name: str) -> str:
    known = getattr(owner, "__qualname__", None) or getattr(owner, "__name__", None)
    return f"{known or type(owner).__name__}.{name}"


def copy_of(function: Callable[..., Any]) -> FunctionType:
    """Return a function that keeps running the code that *function* has now."""
    copy = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


# -- methods -------------------------------------------------------------------------------------

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: only attributes of such classes can be set


class MethodWrapper:
    """Wrap a method of a class we don't own; wrappers come off in any order. Any thread.

    The method is patched in the class that defines it, so wrappers for that class and for its subclasses
    share one patch. Tracebacks of errors that pass through a wrapped method show no frames of loopnb.

    For a single instance, setting an attribute of the instance would be simpler. But in CPython 3.11 to 3.13
    the instances of a class share one table of attribute names, and an event loop leaves room for only two or
    three more. With more, the instance looks up every attribute in a dictionary of its own, and each step of
    a task takes 1.08x as long.

    Args:
        kind: The class that has the method.
        name: The method.
        around: Called instead of the method. Its first argument is a function that calls the next wrapper, or
            in the end the method itself. Then come the instance, unless *only* is given, and the arguments
            of the call.
        only: Wrap the method for this instance, which is not kept alive. None wraps it for all instances.
    """

    def __init__(self, kind: type, name: str, around: Callable[..., Any], only: Any = None) -> None:
        self.around = around
        self.only = None if only is None else ref(only)
        self._owner = _owner_of(kind, name)
        self._name = name
        self._method: _WrappedMethod | None = None

    def install(self) -> None:
        """Wrap the method, outside any wrappers it has. Does nothing if this one is installed already."""
        with _changing:
            if self._method is None:
                method = _wrapped_method(self._owner, self._name)
                method.add(self)
                self._method = method

    def restore(self) -> bool:
        """Remove this wrapper. Removing the last one restores the method.

        Returns:
            False if the method cannot be restored because somebody else has patched it since.
        """
        with _changing:
            method, self._method = self._method, None
            return method is None or method.discard(self)


class _WrappedMethod:
    """A method of a class with all its wrappers, the last one outermost.

    If the method takes only `self`, such as `loop.stop`, its code is replaced, so that methods bound
    earlier follow. Otherwise the attribute of the class is replaced.
    """

    def __init__(self, owner: type, name: str) -> None:
        self._owner = owner
        self._name = name
        self._wrappers: tuple[MethodWrapper, ...] = ()
        self._stock = vars(owner).get(name)
        # `_stand_in` is what the class has while the method is wrapped. `_target` is what `Patch` is given.
        if _takes_only_self(self._stock):
            self._call_stock: Any = copy_of(self._stock)
            self._stand_in: Any = self._stock
            self._target: tuple[Any, str, Any] = self._stock, "__code__", _code_calling(self, name)
        else:
            self._call_stock = self._stock
            self._stand_in = looking_like(getattr(owner, name), self._as_function())
            self._target = owner, name, self._stand_in
        self._patch = Patch(*self._target)

    def stands_for(self, present: Any) -> bool:
        """Return True if *present*, found in the class, is the stock method or our replacement."""
        return present is self._stock or present is self._stand_in

    def add(self, wrapper: MethodWrapper) -> None:
        """Add the outermost wrapper, and patch the method if it is not patched now."""
        before, self._wrappers = self._wrappers, (*self._wrappers, wrapper)
        if not self._patch.is_in_place():
            # A new Patch: somebody may have patched over the old one and then restored the stock method.
            self._patch = Patch(*self._target)
            try:
                self._patch.install()
            except BaseException:
                self._wrappers = before
                raise

    def discard(self, wrapper: MethodWrapper) -> bool:
        """Remove *wrapper*, and with the last one the patch. Returns False if the patch has to stay."""
        self._wrappers = tuple(other for other in self._wrappers if other is not wrapper)
        return bool(self._wrappers) or self._patch.restore()

    def call(self, instance: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the wrappers around the method."""
        if self._call_stock is None:  # inherited: looked up for each call, since a base may be patched later
            call = getattr(super(self._owner, instance), self._name)
        else:
            call = functools.partial(self._call_stock, instance)
        for wrapper in self._wrappers:
            if wrapper.only is None:
                call = functools.partial(wrapper.around, call, instance)
            elif wrapper.only() is instance:
                call = functools.partial(wrapper.around, call)
        return call(*args, **kwargs)

    @staticmethod
    def hide_our_frames(error: BaseException) -> None:
        """Remove loopnb's frames from the traceback of *error*."""
        error.__traceback__ = without_any_frames_of(error.__traceback__, is_ours)

    def _as_function(self) -> Callable[..., Any]:
        def method(instance: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return self.call(instance, *args, **kwargs)
            except BaseException as error:
                self.hide_our_frames(error)
                raise  # bare, so that it adds no entry for this frame

        return method


def _takes_only_self(method: Any) -> TypeGuard[FunctionType]:
    if not isinstance(method, FunctionType) or method.__code__.co_freevars:
        return False
    return list(inspect.signature(method).parameters) == ["self"]


def _forward(self: Any) -> Any:
    wrapped: Any = "a _WrappedMethod"
    try:
        return wrapped.call(self)
    except BaseException as error:
        wrapped.hide_our_frames(error)
        raise


def _code_calling(wrapped: _WrappedMethod, name: str) -> CodeType:
    """Return the code of `_forward` with *wrapped* as its constant.

    An import inside the code, as in other replacements, would be simpler. But if a loop is still open when
    Python ends, its finalizer calls `close` after imports have stopped working, and fails with ImportError.
    """
    code = _forward.__code__
    constants = tuple(wrapped if constant == "a _WrappedMethod" else constant for constant in code.co_consts)
    return code.replace(co_name=name, co_consts=constants)


def _wrapped_method(owner: type, name: str) -> _WrappedMethod:
    """Return the method with its wrappers.

    It is the same object each time, so that bound methods kept from earlier call the present wrappers. Only
    if somebody has patched over the method, a new object is made.
    """
    found = _wrapped.get((owner, name))
    if found is None or not found.stands_for(vars(owner).get(name)):
        found = _wrapped[owner, name] = _WrappedMethod(owner, name)
    return found


def _owner_of(kind: type, name: str) -> type:
    """Return the class in which *kind* finds the method, or *kind* itself if that class is written in C."""
    owner = next(base for base in kind.__mro__ if name in vars(base))
    return owner if owner.__flags__ & _HEAP_TYPE else kind


#: Outlives all sessions, since a bound method that somebody has kept may outlive them, too.
_wrapped: dict[tuple[type, str], _WrappedMethod] = {}
#: Held while a wrapper is installed or restored. Process-wide, as the methods are: nesting may be applied in
#: one thread while a session begins in another.
_changing = threading.Lock()


# -- modules that are not imported yet -----------------------------------------------------------


class ImportWatch:
    """Call a function with each wanted module: now, or once it has been imported.

    This is a finder in `sys.meta_path` that finds nothing itself. It asks the finders after it and patches
    the loader that they return for a wanted module. `builtins.__import__` and the modules' `__spec__` stay as
    they are, and the import of any other module costs one dictionary lookup.

    A finder placed before this one may find a wanted module first; pytest's does, for plugins that it
    rewrites. Call `catch_up` for such modules.

    Args:
        wanted: Full name of a module -> the function to call with that module.
    """

    def __init__(self, wanted: Mapping[str, Callable[[ModuleType], None]]) -> None:
        self._wanted = wanted
        self._unreported = set(wanted)
        self._installed = False

    def install(self) -> None:
        """Report the modules that are imported already, and watch for the others."""
        if self._installed:
            return
        self._installed = True
        self._unreported = set(self._wanted)
        sys.meta_path.insert(0, self)
        self.catch_up()

    def restore(self) -> bool:
        """Stop watching. Always returns True."""
        self._installed = False
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        return True

    def catch_up(self) -> None:
        """Report the modules whose import went unseen. Their functions are called in this thread."""
        for name in sorted(self._unreported) if self._installed else ():
            module = sys.modules.get(name)
            # A module whose import is under way is not complete. Its patched loader reports it.
            if module is not None and not is_being_imported(module):
                self._report(module)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a wanted module through the finders that come after this one. Part of the import protocol."""
        if name not in self._wanted:
            return None
        finders = list(sys.meta_path)
        for finder in finders[finders.index(self) + 1 :] if self in finders else ():
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                self._report_when_loaded(spec.loader, name)
                return spec
        return None

    def _report_when_loaded(self, loader: Any, name: str) -> None:
        load = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            patch.restore()
            load(module)
            if self._installed and module.__name__ == name:
                self._report(module)

        patch = Patch(loader, "exec_module", exec_module)
        patch.install()

    def _report(self, module: ModuleType) -> None:
        self._unreported.discard(module.__name__)
        self._wanted[module.__name__](module)


# -- what somebody else's code changes -----------------------------------------------------------


class Difference:
    """Undo the changes that somebody else's function makes to the attributes of some objects.

    Args:
        change: Makes the changes.
        owners: The modules, classes and instances that are compared before and after.

    Attributes:
        kept: After `restore`, the names of the attributes that were left alone because somebody else has
            changed them since.
    """

    def __init__(self, change: Callable[[], object], owners: Iterable[Any]) -> None:
        self.kept: list[str] = []
        self._change = change
        self._owners = list(owners)
        self._seen: list[tuple[Any, dict[str, Any], dict[str, Any]]] = []  # owner, before, after

    def install(self) -> None:
        """Call *change*, and note what it changes. If it raises, undo its changes."""
        if self._seen:
            return
        before = [dict(vars(owner)) for owner in self._owners]
        try:
            self._change()
        except BaseException:
            self._note(before)
            self.restore()
            raise
        self._note(before)

    def restore(self) -> bool:
        """Restore each attribute that is still as *change* left it.

        An attribute that *change* added is removed even if its value has changed since: it may be a counter.

        Returns:
            False if something was changed since; `kept` names it.
        """
        seen, self._seen, self.kept = self._seen, [], []
        added = {name for _owner, old, new in seen for name in new.keys() - old.keys()}
        for owner, old, new in seen:
            for name in sorted(_changed(old, new)):
                if vars(owner).get(name, _ABSENT) is new.get(name, _ABSENT):
                    _set(owner, name, old.get(name, _ABSENT))
                elif name not in added:
                    self.kept.append(_name_of(owner, name))
            # An instance may have got a value of its own for an attribute that was added to its class.
            for name in added & (vars(owner).keys() - old.keys()):
                delattr(owner, name)
        return not self.kept

    def _note(self, before: list[dict[str, Any]]) -> None:
        after = [dict(vars(owner)) for owner in self._owners]
        self._seen = list(zip(self._owners, before, after, strict=True))


def _changed(old: dict[str, Any], new: dict[str, Any]) -> set[str]:
    return {name for name in old.keys() | new.keys() if old.get(name, _ABSENT) is not new.get(name, _ABSENT)}
