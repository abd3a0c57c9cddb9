"""Tell whose code a frame runs, and where a traceback begins for the user.

Every part of loopnb asks this module who owns a frame: the user, a library, the kernel or loopnb. The file
name of the frame's code decides. The rules for folders are in `owner_of`. Hot paths may cache the answers by
code or by namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import sys
from enum import Enum
from functools import lru_cache
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator
    from types import CodeType, FrameType, TracebackType

    F = TypeVar("F", bound="Callable[..., object]")


class Owner(Enum):
    """Who has written the code of a file."""

    OURS = "this package"
    STDLIB = "the standard library, asyncio included"
    KERNEL = "the kernel: ipykernel and what its messages go through"
    SHELL = "IPython and its prompt, which run the user's cells"
    LIBRARY = "any other package that is installed"
    USER = "a cell, a script, a module of the user's"


#: The folder of this package.
PACKAGE = os.path.dirname(__file__) + os.sep
_STDLIB = os.path.dirname(os.__file__) + os.sep
#: Folders of installed packages. Debian's own Python calls it `dist-packages`.
_INSTALLED = (f"site-packages{os.sep}", f"dist-packages{os.sep}")
_PACKAGES = {
    **dict.fromkeys(("ipykernel", "jupyter_client", "pyodide_kernel", "tornado", "zmq"), Owner.KERNEL),
    **dict.fromkeys(("IPython", "prompt_toolkit"), Owner.SHELL),
}
#: Files whose code calls the user's code, and is called by it. `contextlib` enters our context managers.
_LOOPS = (PACKAGE, os.path.dirname(asyncio.__file__) + os.sep, contextlib.__file__)
#: The file name of code that `eval` and `exec` compile, if nobody gives another one.
_TEXT = "<string>"
#: Stands for the file of code that the loop itself has called, such as `loop.call_later(1, loop.stop)`.
NOBODYS = "?"


@lru_cache(maxsize=4096)
def owner_of(filename: str) -> Owner:
    """Return who has written the code of that file. Any thread."""
    if filename.startswith(PACKAGE):
        return Owner.OURS
    for folder in _INSTALLED:
        _before, is_installed, path = filename.rpartition(folder)
        if is_installed:
            return _PACKAGES.get(path.partition(os.sep)[0], Owner.LIBRARY)
    if filename.startswith(("<frozen ", _STDLIB)):
        return Owner.STDLIB
    return Owner.USER


@lru_cache(maxsize=4096)
def package_of(filename: str) -> str:
    """Return the package of that file, such as `asyncio`; "" if the user wrote it. Any thread."""
    owner = owner_of(filename)
    if owner is Owner.USER:
        return ""
    if owner is Owner.OURS:
        return __package__
    for folder in (*_INSTALLED, _STDLIB):
        _before, is_there, path = filename.rpartition(folder)
        if is_there:
            return path.partition(os.sep)[0].removesuffix(".py")
    return ""


def is_ours(filename: str) -> bool:
    """Return True if that file is part of this package."""
    return filename.startswith(PACKAGE)


def is_users(code: CodeType) -> bool:
    """Return True if the user wrote or installed *code*: it is neither the standard library's nor ours."""
    return owner_of(code.co_filename) not in {Owner.OURS, Owner.STDLIB}


def is_loops(filename: str) -> bool:
    """Return True for the files of asyncio and of this package, which run what others have asked for."""
    return filename.startswith(_LOOPS)


#: Code of the coroutine functions that `runs_users_code` marks. It belongs to the process, as they do.
_runs_users_code: set[CodeType] = set()


def runs_users_code(fn: F) -> F:
    """Mark a coroutine function of ours that runs the user's code, so that its tasks are the user's."""
    _runs_users_code.add(fn.__code__)
    return fn


def is_kernels(code: CodeType) -> bool:
    """Return True if a task whose coroutine has *code* belongs to the kernel, the shell or us."""
    owner = owner_of(code.co_filename)
    return owner in {Owner.OURS, Owner.KERNEL, Owner.SHELL} and code not in _runs_users_code


def is_our_callable(fn: object) -> bool:
    """Return True if *fn*, a handler for instance, was defined in this package."""
    return str(getattr(fn, "__module__", "")).partition(".")[0] == __package__


# -- walking outwards -----------------------------------------------------------------------------


def outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield *frame* and its callers, outwards."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def is_called_by(code: CodeType) -> bool:
    """Return True if *code* is running further out on this stack."""
    return any(frame.f_code is code for frame in outwards(inspect.currentframe()))


def is_all_by(
    frame: FrameType | None, owners: Container[Owner], until: CodeType, packages: Container[str] = ()
) -> bool:
    """Return True if *frame* and its callers belong to *owners*, up to the frame that runs *until*.

    Code compiled from a string without a file name, such as a method of a namedtuple, counts as its caller's.

    Args:
        frame: The innermost frame.
        owners: Whose code it may be.
        until: The code where the search ends.
        packages: Libraries whose code counts as its caller's, too.
    """
    for caller in outwards(frame):
        if caller.f_code is until:
            return True
        filename = caller.f_code.co_filename
        if filename != _TEXT and owner_of(filename) not in owners and package_of(filename) not in packages:
            return False
    return True


def frame_outside() -> FrameType | None:
    """Return the innermost frame that is not this package's: the code that called loopnb."""
    return next(
        (frame for frame in outwards(inspect.currentframe()) if not is_ours(frame.f_code.co_filename)), None
    )


def users_place() -> tuple[str, int]:
    """Return file and line of the innermost frame that the user wrote or installed, else `NOBODYS`, 0."""
    for frame in outwards(inspect.currentframe()):
        if is_users(frame.f_code):
            return frame.f_code.co_filename, frame.f_lineno
    return NOBODYS, 0


def loops_namespaces() -> set[int]:
    """Return the ids of the globals of every module of asyncio's and ours that is imported now.

    Comparing `id(frame.f_globals)` is several times faster than comparing file names.
    """
    # By type and by dictionary, since reading an attribute of a lazy module would run its code.
    modules = [item for item in list(sys.modules.values()) if issubclass(type(item), ModuleType)]
    named = {id(vars(module)) for module in modules if is_loops(vars(module).get("__file__") or "")}
    return {*named, id(_BOTTOM)}


# -- the bottom of a stack ------------------------------------------------------------------------


def _bottom(fn: Callable[..., object], *args: object) -> None:
    fn(*args)


#: Global variables of the frame at the bottom. Not those of the user's `__main__`: by these, a frame is known
#: to be ours (`loops_namespaces`).
_BOTTOM: dict[str, object] = {"__name__": "__main__", "__builtins__": __builtins__}

#: Calls a function from a frame that looks like that of a script: `<module>` of `__main__`.
#:
#: Libraries walk a stack outwards to the frame of a `<module>` and rely on finding one: `aiohttp.web.AppKey`,
#: for instance. A new greenlet has none, since its stack begins with it.
call_at_bottom = FunctionType(
    _bottom.__code__.replace(co_name="<module>", co_qualname="<module>"), _BOTTOM, "<module>"
)


# -- tracebacks -----------------------------------------------------------------------------------

_MAY_RESUME = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def without_any_frames_of(tb: TracebackType | None, is_hidden: Callable[[str], bool]) -> TracebackType | None:
    """Return *tb* without any frame whose file *is_hidden*."""
    kept: list[TracebackType] = []
    while tb is not None:
        if is_hidden(tb.tb_frame.f_code.co_filename):
            _clear(tb.tb_frame)
        else:
            kept.append(tb)
        tb = tb.tb_next
    shown: TracebackType | None = None
    for entry in reversed(kept):
        entry.tb_next = shown
        shown = entry
    return shown


def without_frames_of(tb: TracebackType | None, is_hidden: Callable[[str], bool]) -> TracebackType | None:
    """Return *tb* without the outermost frames whose file *is_hidden*."""
    while tb is not None and is_hidden(tb.tb_frame.f_code.co_filename):
        _clear(tb.tb_frame)
        tb = tb.tb_next
    return tb


def without_loops_frames(tb: TracebackType | None) -> TracebackType | None:
    """Return *tb* without its outermost frames of asyncio and of this package."""
    return without_frames_of(tb, is_loops)


def users_frames(tb: TracebackType | None) -> TracebackType | None:
    """Return *tb* without its outermost frames of this package.

    An interrupt may be raised anywhere in our code. If the traceback then holds no frame of the user's, this
    returns None, and the error seems to come from where we were called. It is kept if only frames of the
    standard library follow our outermost ones.
    """
    users = without_frames_of(tb, is_ours)
    frame, has_ours = users, False
    while frame is not None and not is_users(frame.tb_frame.f_code):
        has_ours = has_ours or is_ours(frame.tb_frame.f_code.co_filename)
        frame = frame.tb_next
    return None if frame is None and has_ours else users


def _clear(frame: FrameType) -> None:
    # The frame of a signal handler that has raised refers to the frame that it interrupted. The interrupted
    # frame may keep a stack alive that in turn keeps the error, and the garbage collector looks into stacks
    # only from 3.15 on. We leave a coroutine's frame alone: it may resume, and clearing it would close the
    # coroutine.
    if is_ours(frame.f_code.co_filename) and not frame.f_code.co_flags & _MAY_RESUME:
        with contextlib.suppress(RuntimeError):  # it is still executing
            frame.clear()
