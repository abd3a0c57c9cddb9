"""Other packages that start nested runs, or want to change asyncio so that they can.

`anyio.run()` refuses to run inside a running loop; here it nests. `uvloop.run()` runs a loop that cannot be
nested on; here the running loop is set aside meanwhile. `nest_asyncio.apply()` and `nest_asyncio2.apply()`
would swap Task and Future for slow ones in the whole process, and never swap them back; here they only ask
for what is there already. We replace the code of these functions, so that names imported earlier follow
(`stand_ins.py`).

If nest_asyncio or nest_asyncio2 was applied *before*, we replace its `asyncio.run` and its loop methods by
the stock ones while nesting is on. The swapped classes stay, since tasks and futures of these classes exist
already.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from loopnb.frames import users_place
from loopnb.nesting import _cpython, runners, scope, stand_ins
from loopnb.nesting.other_loops import aside, wrapper_aside
from loopnb.patching import CodePatch, ImportWatch, Patch

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from loopnb.patching import Revertible

#: The name under which nested runs are wanted if one of those packages has asked for them.
WHO = "nest_asyncio"

_PATCHERS = ("nest_asyncio", "nest_asyncio2")
_ANYIO = "anyio._core._eventloop"
_ANYIOS_ASYNCIO = "anyio._backends._asyncio"
_UVLOOP = "uvloop"

# What is patched in other packages belongs to the process, as they do.

#: By module name, the patch of the module's function that runs or patches a loop.
_patches: dict[str, CodePatch] = {}
#: Patches of methods of uvloop's loops and of anyio's test runner.
_methods: list[Revertible] = []
#: Patches that give what nest_asyncio had changed its stock value again.
_undone: list[Patch] = []
#: The calls of `apply()` that did nothing, once each, in order.
_applied: dict[Applied, None] = {}


class Applied(NamedTuple):
    """A call of `nest_asyncio.apply()` that was not needed."""

    package: str
    filename: str
    line: int


def applied_by() -> tuple[Applied, ...]:
    """Return the calls of `apply()` of those packages while nesting was on. Any thread."""
    return tuple(_applied)


def applied_before() -> str | None:
    """Return which of those packages had changed asyncio before nesting was on. Any thread."""
    return _cpython.reentrant_package()


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


def run_with_anyio(func: Any, args: tuple[Any, ...], backend: str, options: dict[str, Any] | None) -> Any:
    """Do what `anyio.run` does, nested if a loop runs in this thread."""
    stock = _patches[_ANYIO].original_function
    if _cpython.running_loop() is None or backend != "asyncio":
        return stock(func, *args, backend=backend, backend_options=options)
    # This is the rest of `anyio.run`, below its check for a running loop. It runs on `asyncio.Runner`, which
    # nests.
    return stock.__globals__["get_async_backend"](backend).run(func, args, {}, options or {})


def run_with_uvloop(main: Any, options: dict[str, Any]) -> Any:
    """Do what `uvloop.run` does, on a loop of its own, while the running loop is set aside."""
    stock = _patches[_UVLOOP].original_function
    running = _cpython.running_loop()
    if running is None:
        return stock(main, **options)
    with aside(running, None):
        return stock(main, **options)


# -- reaching the packages -----------------------------------------------------------------------


def install() -> None:
    """Patch those packages, now or when they are imported. Hold `scope.changing`."""
    _watch.install()
    running = _cpython.running_loop()
    if _undone or _cpython.reentrant_package() is None:
        return
    if running is not None and _cpython.is_nested_by_others(running):
        return  # without its patches, a run of that package that is under way would hang
    _undone.append(Patch(asyncio, "run", _cpython.run))
    for kind in _cpython.loop_classes():
        _undone.extend(Patch(*changed) for changed in _cpython.reentrant_methods(kind))
    for patch in _undone:
        patch.install()


def catch_up() -> None:
    """Patch those packages whose import our finder did not see."""
    _watch.catch_up()


def restore() -> None:
    """Put back those packages, and what they had changed, as they were. Hold `scope.changing`."""
    _watch.restore()
    for patch in [*_patches.values(), *_methods, *reversed(_undone)]:
        patch.restore()
    _patches.clear()
    _undone.clear()
    _methods.clear()
    _applied.clear()


def _patch_uvloop(module: ModuleType) -> None:
    """Let uvloop's loops run inside another loop, which is set aside, as asyncio's own loops do."""
    _patch(module, module.run, stand_ins.uvloop_run)
    for name in ("run_until_complete", "run_forever"):
        wrapper = wrapper_aside(module.Loop, name)
        wrapper.install()
        _methods.append(wrapper)


def _patch_anyio(module: ModuleType) -> None:
    _patch(module, module.run, stand_ins.anyio_run)


def _patch_anyios_tests(module: ModuleType) -> None:
    """Let anyio's pytest plugin run async fixtures inside a running loop.

    The plugin takes a running loop as a sign that a test asks for one of the plugin's own fixtures, and
    refuses.
    """
    if not hasattr(module.TestRunner, "is_running"):  # earlier versions do not ask
        return
    stock = module.TestRunner.is_running

    def is_running(self: Any) -> bool:
        return runners.is_inside() and bool(stock(self))

    patch = Patch(module.TestRunner, "is_running", is_running)
    patch.install()
    _methods.append(patch)


def _patch_patcher(module: ModuleType) -> None:
    _patch(module, module.apply, stand_ins.apply)


def _patch(module: ModuleType, function: Callable[..., Any], replacement: Callable[..., Any]) -> None:
    patch = CodePatch(function, replacement)
    patch.install()
    _patches[module.__name__] = patch


_watch = ImportWatch(
    {
        _UVLOOP: _patch_uvloop,
        _ANYIO: _patch_anyio,
        _ANYIOS_ASYNCIO: _patch_anyios_tests,
        **dict.fromkeys(_PATCHERS, _patch_patcher),
    }
)
