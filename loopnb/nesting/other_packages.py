"""Serve other packages that start nested runs, or that change asyncio to make them possible.

`anyio.run()` refuses to run inside a running loop; here it nests, or runs trio while the running loop is set
aside. `uvloop.run()` runs a loop that cannot be nested on; here, too, the running loop is set aside.
`apply()` of nest_asyncio (nest-asyncio or anest-asyncio), nest_asyncio2 and reloop would swap Task and Future
for slow ones in the whole process. Here it changes no class. It only asks for nested runs, which are mostly
on already. `patches.py` makes the functions of these packages call this module.
"""

from __future__ import annotations

import sys
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from loopnb.frames import users_place
from loopnb.nesting import _cpython, scope
from loopnb.nesting._packages import ANYIO, RELOOP
from loopnb.nesting.other_loops import aside

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

#: The name under which nested runs are wanted when one of those packages asks for them.
WHO = "nest_asyncio"

UVLOOP = "uvloop"

# All of these belong to the process, as those packages do.

#: Module -> its function that runs or patches a loop, without our patch.
_stock: dict[str, Callable[..., Any]] = {}
#: The calls of `apply()` that loopnb has answered in the packages' place, once each, in order.
_applied: dict[Applied, None] = {}
#: The module of reloop, if it was applied before and is reverted for now.
_reverted: list[Any] = []


class Applied(NamedTuple):
    """A call of `apply()` of one of those packages that loopnb has answered in its place."""

    package: str
    filename: str
    line: int


def applied_by() -> tuple[Applied, ...]:
    """Return the calls of `apply()` of those packages since nesting was switched on. Any thread."""
    return tuple(_applied)


def applied_before() -> str | None:
    """Return which of those packages had changed asyncio before nesting was on. Any thread."""
    return "reloop" if _reverted else _cpython.reentrant_package()


def revert_reloop() -> None:
    """If reloop was applied before, take that back: it patches the same methods as we do.

    In a nested run of reloop's this does nothing. That run would not end without its functions. Hold
    `scope.changing`.
    """
    running = _cpython.running_loop()
    if _cpython.reentrant_package() == "reloop" and not (running and _cpython.is_nested_by_others(running)):
        module = sys.modules[RELOOP]
        module.revert()
        _reverted.append(module)


def apply_reloop() -> None:
    """Apply reloop again, if `revert_reloop` has reverted it. Hold `scope.changing`."""
    while _reverted:
        _reverted.pop().apply()


def note_stock(module: str, function: Callable[..., Any]) -> None:
    """Note the function of *module* as it is without our patch. Any thread."""
    _stock[module] = function


def forget() -> None:
    """Forget the stock functions and the noted calls: our patches of those packages are off.

    Hold `scope.changing`.
    """
    _stock.clear()
    _applied.clear()


# -- what the stand-ins call ---------------------------------------------------------------------


def note_apply(package: str, loop: asyncio.AbstractEventLoop | None) -> None:
    """Do what `apply(loop)` of *package* is for: allow nested runs on that loop.

    Raises:
        NestingError: The loop cannot be nested on; `.reason` says why.
    """
    _applied[Applied(package, *users_place())] = None
    target = loop or _cpython.running_loop()
    if target is not None and not scope.is_wanted(target):
        # The rest of `loopnb.nesting.apply` has been done already, or this function would not have been
        # called.
        scope.attach_and_pin(target)
        with scope.changing:
            scope.want(WHO, target)


def note_apply_everywhere(package: str) -> None:
    """Do what `apply()` of *package* is for: allow nested runs on every loop.

    Raises:
        NestingError: The running loop cannot be nested on; `.reason` says why.
    """
    _applied[Applied(package, *users_place())] = None
    running = _cpython.running_loop()
    if running is not None:
        scope.attach_and_pin(running)
    with scope.changing:
        scope.want(WHO, None)


def run_with_anyio(func: Any, args: tuple[Any, ...], backend: str, options: dict[str, Any] | None) -> Any:
    """Do what `anyio.run` is asked for. If a loop runs here, asyncio nests on it, and trio sets it aside."""
    stock: Any = _stock[ANYIO]
    running = _cpython.running_loop()
    if running is None:
        return stock(func, *args, backend=backend, backend_options=options)
    if backend != "asyncio":
        with aside(running, None):
            # Run it in a copy of the calling Context, which may name the library of an outer run. trio makes
            # a copy, too.
            run = partial(stock, func, *args, backend=backend, backend_options=options)
            return copy_context().run(_run_unnamed, run)
    # Do what `anyio.run` does after the point where it refuses. It runs on `asyncio.Runner`, which nests.
    return stock.__globals__["get_async_backend"](backend).run(func, args, {}, options or {})


def _run_unnamed(run: Callable[[], Any]) -> Any:
    """Return `run()`, after the Context has forgotten which library runs here.

    Otherwise `anyio.run` would refuse.
    """
    sniffio = sys.modules.get("sniffio")  # without it, anyio asks asyncio only
    if sniffio is not None:
        sniffio.current_async_library_cvar.set(None)
    return run()


def run_with_uvloop(main: Any, options: dict[str, Any]) -> Any:
    """Do what `uvloop.run` is asked for: on a loop of its own, the running one set aside."""
    stock = _stock[UVLOOP]
    running = _cpython.running_loop()
    if running is None:
        return stock(main, **options)
    with aside(running, None):
        return stock(main, **options)
