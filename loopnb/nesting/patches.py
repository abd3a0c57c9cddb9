"""Patch asyncio and other packages for nested runs, and restore them.

In functions that run a loop we replace the code, so that names imported earlier follow (`stand_ins.py`). That
code must not import this module: only `loopnb.nesting`, the choice of an engine and the extension do.

If nest_asyncio (nest-asyncio or anest-asyncio) or nest_asyncio2 was applied before, the stock functions take
the place of its `asyncio.run` and of its loop methods while nesting is on. The classes that it swapped stay,
since tasks and futures of these classes exist already. reloop is reverted meanwhile, by its own function, and
applied again afterwards.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from loopnb.nesting import (
    _cpython,
    _packages,
    entry_points,
    no_loop,
    other_packages,
    runners,
    scope,
    stand_ins,
)
from loopnb.nesting.engine import once_for_each_event
from loopnb.nesting.other_loops import wrapper_aside
from loopnb.patching import CodePatch, ImportWatch, MethodWrapper, Patch, PatchSet, looking_like

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from loopnb.patching import Revertible

# All of this is process-wide, as the patched names are.


def install() -> None:
    """Patch asyncio now, and other packages once they are imported. Any thread; hold `scope.changing`."""
    other_packages.revert_reloop()
    _asyncios.install()
    _submit.install()
    _watch.install()
    _undo_others()


def restore() -> None:
    """Restore what `install` has patched, and nest_asyncio's functions. Any thread; hold `scope.changing`."""
    _watch.restore()
    for patch in [*_others, *reversed(_undone)]:
        patch.restore()
    _others.clear()
    _undone.clear()
    other_packages.forget()
    runners.forget_all()
    _asyncios.restore()
    other_packages.apply_reloop()
    if not _guarding:
        _submit.restore()


def guard_submitted(who: str) -> None:
    """Refuse to wait for a result that cannot come, also while nesting is off, until `unguard_submitted`.

    Any thread may call it, in the name of *who*. It does not block.
    """
    with scope.changing:
        _guarding.add(who)
        _submit.install()


def unguard_submitted(who: str) -> None:
    """Take `guard_submitted` back. Any thread; does not block."""
    with scope.changing:
        _guarding.discard(who)
        if not _guarding and not scope.is_wanted():
            _submit.restore()


def catch_up() -> None:
    """Patch the packages whose import went unseen. Any thread; does not block."""
    _watch.catch_up()


# -- asyncio -------------------------------------------------------------------------------------


def _runner_lazy_init(self: asyncio.Runner) -> None:
    if entry_points.runner_lazy_init(self):
        catch_up()  # it may be the runner of anyio's tests, whose plugin pytest has imported


def _replaced(kind: type, name: str, replacement: Callable[..., Any]) -> Patch:
    return Patch(kind, name, looking_like(getattr(kind, name), replacement))


#: The names of asyncio that are patched while anybody wants nested runs.
_asyncios = PatchSet(
    CodePatch(
        _cpython.run, stand_ins.asyncio_run_311 if sys.version_info < (3, 12) else stand_ins.asyncio_run
    ),
    _replaced(_cpython.Runner, "run", entry_points.runner_run),
    _cpython.patch_lazy_init(looking_like(_cpython.stock_lazy_init, _runner_lazy_init)),
    _replaced(_cpython.Runner, "get_loop", entry_points.runner_get_loop),
    _replaced(_cpython.Runner, "close", entry_points.runner_close),
    _replaced(_cpython.BaseEventLoop, "run_until_complete", entry_points.run_until_complete),
    once_for_each_event(),
    MethodWrapper(_cpython.BaseEventLoop, "run_forever", entry_points.run_forever),
    MethodWrapper(_cpython.BaseEventLoop, "is_running", no_loop.is_running),
    MethodWrapper(_cpython.BaseEventLoop, "call_exception_handler", no_loop.call_exception_handler),
    *(MethodWrapper(kind, "close", entry_points.close) for kind in _cpython.loop_classes()),
)

#: Patched while anybody wants nested runs, and while anybody is in `_guarding`.
_submit = CodePatch(asyncio.run_coroutine_threadsafe, stand_ins.run_coroutine_threadsafe)
_guarding: set[str] = set()

#: Put stock functions in place of those of nest_asyncio for now.
_undone: list[Patch] = []


def _undo_others() -> None:
    """If nest_asyncio was applied before, put asyncio's stock functions back in place of its own."""
    running = _cpython.running_loop()
    if _undone or _cpython.reentrant_package() is None:
        return
    if running is not None and _cpython.is_nested_by_others(running):
        return  # we are in a run of nest_asyncio's, which would hang without its functions
    _undone.append(Patch(asyncio, "run", _cpython.run))
    for kind in _cpython.loop_classes():
        _undone.extend(Patch(*changed) for changed in _cpython.reentrant_methods(kind))
    for patch in _undone:
        patch.install()


# -- other packages ------------------------------------------------------------------------------

#: The patches in other packages, oldest first.
_others: list[Revertible] = []


def _patch_uvloop(module: ModuleType) -> None:
    """Let uvloop's loops run while another loop is set aside, as asyncio's loops do."""
    _patch_code(module, module.run, stand_ins.uvloop_run)
    for name in ("run_until_complete", "run_forever"):
        _patch(wrapper_aside(module.Loop, name))


def _patch_anyio(module: ModuleType) -> None:
    _patch_code(module, module.run, stand_ins.anyio_run)


def _patch_anyios_asyncio(module: ModuleType) -> None:
    _patch_wait_all_tasks_blocked(module.AsyncIOBackend)
    _patch_anyios_tests(module)


def _patch_wait_all_tasks_blocked(backend: Any) -> None:
    """Make `anyio.wait_all_tasks_blocked()` treat a parked task as blocked.

    It waits until every other task awaits something. A parked task awaits nothing: it is still in its step.
    """
    stock = vars(backend)["wait_all_tasks_blocked"].__func__

    async def wait_all_tasks_blocked(cls: Any) -> None:
        await cls.checkpoint()
        this = asyncio.current_task()
        while not all(task is this or _is_blocked(task) for task in asyncio.all_tasks()):  # noqa: ASYNC110  no event
            await asyncio.sleep(0.1)  # as long as anyio waits

    replacement = classmethod(looking_like(stock, wait_all_tasks_blocked))
    _patch(Patch(backend, "wait_all_tasks_blocked", replacement))


def _is_blocked(task: asyncio.Task[Any]) -> bool:
    engine = scope.engine_of(task.get_loop())
    waited = [wait.future for wait in engine.waits if wait.task is task] if engine is not None else []
    future = waited[0] if waited else _cpython.waited_future(task)
    return future is not None and not future.done()


def _patch_anyios_tests(module: ModuleType) -> None:
    """Let anyio's pytest plugin run async fixtures inside a running loop.

    It mistakes that for a test that requests a fixture from inside the runner, and refuses.
    """
    if not hasattr(module.TestRunner, "is_running"):  # earlier versions do not ask
        return
    stock = module.TestRunner.is_running

    def is_running(self: Any) -> bool:
        return runners.is_inside() and bool(stock(self))

    _patch(Patch(module.TestRunner, "is_running", is_running))


def _patch_patcher(module: ModuleType) -> None:
    _patch_code(module, module.apply, stand_ins.apply)


def _patch_reloop(module: ModuleType) -> None:
    _patch_code(module, module.apply, stand_ins.apply_everywhere)


def _patch_code(module: ModuleType, function: Callable[..., Any], replacement: Callable[..., Any]) -> None:
    patch = CodePatch(function, replacement)
    other_packages.note_stock(module.__name__, patch.original_function)
    _patch(patch)


def _patch(patch: Revertible) -> None:
    patch.install()
    _others.append(patch)


_watch = ImportWatch(
    {
        other_packages.UVLOOP: _patch_uvloop,
        _packages.ANYIO: _patch_anyio,
        _packages.ANYIO_ASYNCIO: _patch_anyios_asyncio,
        "nest_asyncio": _patch_patcher,
        "nest_asyncio2": _patch_patcher,
        _packages.RELOOP: _patch_reloop,
    }
)
