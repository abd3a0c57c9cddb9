"""Tell whether code that may still run can get hold of an object.

A task that waits for a Queue goes on when somebody puts something into it. No object knows whose code that
might be. But that code must be able to reach the queue: from its local variables, from what these refer to,
or by a global variable that it names. So we follow references, as the garbage collector does, from everything
that may run: the other tasks, timers, files, threads, widgets.

The answer errs on the safe side: a yes may be wrong. Code that looks objects up by strings counts as if it
reached everything, and so does what takes too long to follow. Of objects in C, we follow the references that
the garbage collector sees.

Everything here runs in the loop's thread. It runs no code of the user's, and keeps nothing alive.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
from functools import lru_cache
from types import (
    AsyncGeneratorType,
    CellType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any
from weakref import ref

from loopnb.frames import Owner, owner_of, package_of
from loopnb.tracking.holders import attributes_of
from loopnb.watch._cpython import CURRENT_TASKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Code that names one of these may look up anything.
_LOOKS_UP = {
    "__import__", CURRENT_TASKS, "all_tasks", "eval", "exec", "f_globals", "f_locals", "get_ipython",
    "get_objects", "get_referents", "get_referrers", "globals", "import_module", "locals", "modules", "vars",
}  # fmt: skip
#: Packages that make widgets. Their code calls only what it finds at its widget, and we follow the attributes
#: of widgets anyway. (The function by which ipywidgets answers a message names `get_ipython`, but only to
#: show an error.)
_WIDGETS = {"anywidget", "comm", "ipywidgets", "traitlets"}
#: Objects of these classes refer to nothing that matters.
_PLAIN = (str, bytes, int, float, bool, complex, type(None), CodeType)


class TooFar(Exception):
    """Raised if the answer takes too long, or cannot be known."""


class Search:
    """Follows references from some objects until it meets one of those that are wanted.

    Args:
        wanted: The ids of the objects that are wanted. They are followed, too.
        ignored: The ids of objects that are not followed.
        most: How many objects are followed. Each takes about 1 us.

    Attributes:
        visits: How many objects were followed so far.
    """

    def __init__(self, wanted: set[int], ignored: set[int], most: int) -> None:
        self._wanted = wanted
        self._most = most
        self._seen: set[int] = set(ignored)
        # What we have seen is kept alive meanwhile, or another object might get its id.
        self._kept: list[Any] = []
        self.visits = 0

    def found_from(self, roots: Iterable[Any]) -> set[int]:
        """Return which of the wanted objects can be reached from *roots*, by id.

        Raises:
            TooFar: That would take too long, or cannot be known.
        """
        found: set[int] = set()
        work = list(roots)
        while work:
            item = work.pop()
            key = id(item)
            if key in self._wanted:
                found.add(key)
            if key in self._seen or isinstance_of(item, _PLAIN):
                continue
            self._seen.add(key)
            self._kept.append(item)
            self.visits += 1
            if self.visits > self._most:
                raise TooFar
            work.extend(_behind(item))
        return found


def isinstance_of(item: Any, classes: tuple[type, ...]) -> bool:
    """Return True if the class of *item* is one of *classes*. Unlike `isinstance`, it asks no `__class__`."""
    return issubclass(type(item), classes)


#: Owners whose objects lead to everything that a notebook has, and wake nobody by themselves.
_OPAQUE = {Owner.OURS, Owner.KERNEL, Owner.SHELL}


def _behind(item: Any) -> Iterator[Any]:
    """Yield what code that has *item* can reach in one step."""
    kind = type(item)
    if kind is FunctionType:
        yield from _behind_function(item)
    elif kind is FrameType:
        yield from list(item.f_locals.values())
        yield from _behind_code(item.f_code, item.f_globals)
    elif issubclass(kind, ref):
        yield item()
    elif issubclass(kind, type):
        if _owner_of(item) not in {*_OPAQUE, Owner.STDLIB}:
            yield from list(item.__dict__.values())
            yield from item.__mro__[1:]
    elif kind is ModuleType or issubclass(kind, asyncio.AbstractEventLoop):
        return  # a loop leads to everything; in a module, only names in code count (`_behind_code`)
    elif issubclass(kind, asyncio.Future) or _owner_of(kind) not in _OPAQUE:
        yield from gc.get_referents(item)


def _behind_function(function: FunctionType) -> Iterator[Any]:
    yield from function.__closure__ or ()
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield from function.__dict__.values()
    yield from _behind_code(function.__code__, function.__globals__)


def _behind_code(code: CodeType, namespace: dict[str, Any]) -> Iterator[Any]:
    """Yield the global variables that *code* names, and what it names of modules."""
    owner = owner_of(code.co_filename)
    if owner is Owner.STDLIB or owner in _OPAQUE or package_of(code.co_filename) in _WIDGETS:
        return  # it reaches objects of the user's only by its arguments
    names = set(_names_in(code))
    if names & _LOOKS_UP:
        raise TooFar
    for name in names:
        value = namespace.get(name)
        if type(value) is ModuleType:
            if owner_of(str(vars(value).get("__file__") or _FROZEN)) is not Owner.STDLIB:
                yield from [vars(value)[other] for other in names if other in vars(value)]
        elif value is not None:
            yield value


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if type(constant) is CodeType:
            yield from _names_in(constant)


#: Waiting code may refer to what it waits for, but does not wake it. (Threads were looked at before.)
_HARMLESS = (CoroutineType, GeneratorType, AsyncGeneratorType, FrameType)


def may_be_called_back(subject: Any) -> bool:
    """Return True if code in C might hold a callback that gets hold of *subject*.

    The answer is no in one case. Only global variables, variables of coroutines and attributes of the user's
    objects refer to *subject*; and all functions that name such a variable or attribute are coroutine
    functions. This looks at every object that the garbage collector knows.
    """
    namespaces: dict[int, set[str]] = {}
    attributes: set[str] = set()
    modules = {id(vars(module)) for module in list(sys.modules.values()) if type(module) is ModuleType}
    referrers = gc.get_referrers(subject)
    for referrer in referrers:
        if isinstance_of(referrer, _HARMLESS) or _is_of_code_that_waits(referrer, referrers):
            continue
        if type(referrer) is dict and id(referrer) in modules:
            names = {name for name, value in referrer.items() if value is subject}
            namespaces[id(referrer)] = names
        elif names := _attributes_with(subject, referrer, referrers):
            attributes |= names
        elif type(referrer) is not CellType:  # the functions that use it are looked at below
            return True
    for function in gc.get_objects():
        if type(function) is not FunctionType or function.__code__.co_flags & _IS_COROUTINE:
            continue
        if any(_contents_of(cell) is subject for cell in function.__closure__ or ()):
            return True
        names = namespaces.get(id(function.__globals__), set())
        if names and not names.isdisjoint(_names_in(function.__code__)):
            return True
        if attributes and _may_use_attribute(function, attributes):
            return True
    return False


#: Methods that make or show an object, and wake nobody.
_MAKE_OR_SHOW = {"__init__", "__post_init__", "__repr__", "__eq__", "__hash__"}


def _may_use_attribute(function: FunctionType, names: set[str]) -> bool:
    """Return True if *function* names one of these attributes, of whatever object."""
    code = function.__code__
    return (
        owner_of(code.co_filename) in {Owner.USER, Owner.LIBRARY}
        and code.co_name not in _MAKE_OR_SHOW
        and not names.isdisjoint(_names_in(code))
    )


def _attributes_with(subject: Any, referrer: Any, referrers: list[Any]) -> set[str]:
    """Return the names of the attributes that hold *subject*, if *referrer* is an object of the user's.

    *referrer* may also be the dictionary of such an object, if nobody else refers to that. Otherwise, and if
    a method that is no coroutine function names such an attribute, return an empty set.
    """
    # In loops, since a comprehension would refer to the dictionary as well.
    owner = referrer
    if type(referrer) is dict:
        for holder in gc.get_referrers(referrer):
            if attributes_of(holder) is referrer:
                owner = holder
    space = attributes_of(owner)
    for holder in gc.get_referrers(space):
        if holder is not owner and holder is not referrers and not isinstance_of(holder, _HARMLESS):
            return set()
    bases = type(owner).__mro__[:-1]
    if not bases or any(_owner_of(base) is not Owner.USER for base in bases):
        return set()
    names = {name for name, value in list(space.items()) if value is subject}
    # `gc.freeze()` hides functions from the collector, but not from their class.
    is_used = any(_may_use_attribute(method, names) for base in bases for method in _methods_of(base))
    return set() if is_used else names


def _methods_of(kind: type) -> Iterator[FunctionType]:
    for value in list(vars(kind).values()):
        functions: tuple[Any, ...] = (value,)
        if type(value) is property:
            functions = (value.fget, value.fset, value.fdel)
        elif type(value) in {classmethod, staticmethod}:
            functions = (value.__func__,)
        for function in functions:
            if type(function) is FunctionType and not function.__code__.co_flags & _IS_COROUTINE:
                yield function


def _is_of_code_that_waits(referrer: Any, referrers: list[Any]) -> bool:
    """Return True for a dictionary to which only code that waits refers.

    Up to Python 3.12, a frame that was asked for its variables keeps such a dictionary. We have asked frames
    for the names of variables.
    """
    return type(referrer) is dict and all(
        holder is referrers or isinstance_of(holder, _HARMLESS) for holder in gc.get_referrers(referrer)
    )


_IS_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def _contents_of(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None


#: Stands for the file of a module that has none: it is built in.
_FROZEN = "<frozen >"


def _owner_of(kind: type) -> Owner:
    """Return who has written a class."""
    module = kind.__dict__.get("__module__")
    if not isinstance(module, str):
        return Owner.STDLIB
    return Owner.USER if module == "__main__" else _owner_of_module(module)


@lru_cache(maxsize=4096)
def _owner_of_module(name: str) -> Owner:
    module = sys.modules.get(name)
    file = vars(module).get("__file__") if type(module) is ModuleType else None
    # A module of the user's may be gone, or an object of the user's may stand in for it.
    is_unknown = module is None or type(module) is not ModuleType
    return Owner.USER if is_unknown else owner_of(file if isinstance(file, str) else _FROZEN)
