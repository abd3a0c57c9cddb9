"""Other packages that start nested runs, or want to change asyncio so that they can.

`anyio.run()` refuses to run inside a running loop; here it nests, or runs trio while the running loop is set
aside. `uvloop.run()` runs a loop that cannot be nested on; here, too, the running loop is set aside.
`nest_asyncio.apply()` and `nest_asyncio2.apply()` would swap Task and Future for slow ones in the whole
process, and never swap them back; here they only ask for what is there already. All are reached through the
code of the function, so that those who imported it by name follow (`stand_ins.py`).

If one of the latter was applied *before*, its `asyncio.run` and its loop methods are replaced by the stock
ones while nesting is on. The swapped classes stay: there are tasks and futures of them already.
"""

from __future__ import annotations

import asyncio
import sys
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from loopnb.frames import users_place
from loopnb.nesting import _cpython, runners, scope, stand_ins
from loopnb.nesting.other_loops import aside, wrapper_aside
from loopnb.patching import CodePatch, ImportWatch, Patch, looking_like

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from loopnb.patching import Revertible

#: In whose name nested runs are wanted where one of those packages has asked for them.
WHO = "nest_asyncio"

_PATCHERS = ("nest_asyncio", "nest_asyncio2")
_ANYIO = "anyio._core._eventloop"
_ANYIOS_ASYNCIO = "anyio._backends._asyncio"
_UVLOOP = "uvloop"

# What is patched in other packages belongs to the process, as they do.

#: By module, the patch of its function that runs or patches a loop.
_patches: dict[str, CodePatch] = {}
#: Of uvloop's loops, and of anyio's backend and test runner.
_methods: list[Revertible] = []
#: What nest_asyncio had changed before, and has now the stock value again.
_undone: list[Patch] = []
#: The calls of `apply()` that did nothing, once each, in order.
_applied: dict[Applied, None] = {}


class Applied(NamedTuple):
    """A call of `nest_asyncio.apply()` that was not needed."""

    package: str
    filename: str
    line: int


def applied_by() -> tuple[Applied, ...]:
    """Return who has called `apply()` of one of those packages while nesting was on. Any thread."""
    return tuple(_applied)


def applied_before() -> str | None:
    """Return which of those packages had changed asyncio before nesting was on. Any thread."""
    return _cpython.reentrant_package()


# -- what the stand-ins call ---------------------------------------------------------------------


def note_apply(package: str, loop: asyncio.AbstractEventLoop | None) -> None:
    """Do what `apply(loop)` of *package* is called for: have nested runs on that loop.

    Raises:
        NestingError: The loop cannot be nested on; `.reason` says why.
    """
    _applied[Applied(package, *users_place())] = None
    target = loop or _cpython.running_loop()
    if target is not None and not scope.is_wanted(target):
        # No more than that: the rest of `loopnb.nesting.apply` has been done, or nobody would have called us.
        scope.attach_and_pin(target)
        with scope.changing:
            scope.want(WHO, target)


def run_with_anyio(func: Any, args: tuple[Any, ...], backend: str, options: dict[str, Any] | None) -> Any:
    """Do what `anyio.run` is asked for: nested if a loop runs in this thread, or while that is set aside."""
    stock = _patches[_ANYIO].original_function
    running = _cpython.running_loop()
    if running is None:
        return stock(func, *args, backend=backend, backend_options=options)
    if backend != "asyncio":
        with aside(running, None):
            # In a copy of the Context, which trio makes anyway: ours may name the library of an outer run.
            run = partial(stock, func, *args, backend=backend, backend_options=options)
            return copy_context().run(_run_unnamed, run)
    # What `anyio.run` does after its refusal. It runs on `asyncio.Runner`, which nests.
    return stock.__globals__["get_async_backend"](backend).run(func, args, {}, options or {})


def _run_unnamed(run: Callable[[], Any]) -> Any:
    """Return `run()`, after the Context has forgotten which library runs here. `anyio.run` would refuse."""
    sniffio = sys.modules.get("sniffio")  # without it, anyio asks asyncio only
    if sniffio is not None:
        sniffio.current_async_library_cvar.set(None)
    return run()


def run_with_uvloop(main: Any, options: dict[str, Any]) -> Any:
    """Do what `uvloop.run` is asked for: on a loop of its own, the running one set aside."""
    stock = _patches[_UVLOOP].original_function
    running = _cpython.running_loop()
    if running is None:
        return stock(main, **options)
    with aside(running, None):
        return stock(main, **options)


# -- reaching the packages -----------------------------------------------------------------------


def install() -> None:
    """Reach those packages, now or when they are imported. Hold `scope.changing`."""
    _watch.install()
    running = _cpython.running_loop()
    if _undone or _cpython.reentrant_package() is None:
        return
    if running is not None and _cpython.is_nested_by_others(running):
        return  # taken away below a run of its own, it would hang there
    _undone.append(Patch(asyncio, "run", _cpython.run))
    for kind in _cpython.loop_classes():
        _undone.extend(Patch(*changed) for changed in _cpython.reentrant_methods(kind))
    for patch in _undone:
        patch.install()


def catch_up() -> None:
    """Reach those packages that were imported behind our back."""
    _watch.catch_up()


def restore() -> None:
    """Leave those packages, and what they had done, as they were. Hold `scope.changing`."""
    _watch.restore()
    for patch in [*_patches.values(), *_methods, *reversed(_undone)]:
        patch.restore()
    _patches.clear()
    _undone.clear()
    _methods.clear()
    _applied.clear()


def _patch_uvloop(module: ModuleType) -> None:
    """Let uvloop's loops run while another one is set aside, as asyncio's own do."""
    _patch(module, module.run, stand_ins.uvloop_run)
    for name in ("run_until_complete", "run_forever"):
        wrapper = wrapper_aside(module.Loop, name)
        wrapper.install()
        _methods.append(wrapper)


def _patch_anyio(module: ModuleType) -> None:
    _patch(module, module.run, stand_ins.anyio_run)


def _patch_anyios_asyncio(module: ModuleType) -> None:
    _patch_wait_all_tasks_blocked(module.AsyncIOBackend)
    _patch_anyios_tests(module)


def _patch_wait_all_tasks_blocked(backend: Any) -> None:
    """Let `anyio.wait_all_tasks_blocked()` take a parked task for a blocked one.

    It waits until every other task awaits something. A parked one awaits nothing, since its step goes on.
    """
    stock = vars(backend)["wait_all_tasks_blocked"].__func__

    async def wait_all_tasks_blocked(cls: Any) -> None:
        await cls.checkpoint()
        this = asyncio.current_task()
        # No event tells of it.
        while not all(one is this or _is_blocked(one) for one in asyncio.all_tasks()):  # noqa: ASYNC110  see above
            await asyncio.sleep(0.1)  # as long as anyio waits

    replacement = classmethod(looking_like(stock, wait_all_tasks_blocked))
    patch = Patch(backend, "wait_all_tasks_blocked", replacement)
    patch.install()
    _methods.append(patch)


def _is_blocked(task: asyncio.Task[Any]) -> bool:
    engine = scope.engine_of(task.get_loop())
    waited = [wait.future for wait in engine.waits if wait.task is task] if engine is not None else []
    future = waited[0] if waited else _cpython.waited_future(task)
    return future is not None and not future.done()


def _patch_anyios_tests(module: ModuleType) -> None:
    """Let anyio's pytest plugin run async fixtures inside a running loop.

    It takes that for a test that asks for one of its own fixtures, and refuses.
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
        _ANYIOS_ASYNCIO: _patch_anyios_asyncio,
        **dict.fromkeys(_PATCHERS, _patch_patcher),
    }
)
