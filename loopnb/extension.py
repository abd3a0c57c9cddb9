"""Loading and unloading: builds the session and hooks it into shell and kernel."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from loopnb import frames
from loopnb.errors import UnsupportedKernelError
from loopnb.kernel import _ipykernel
from loopnb.kernel.guard import guard_kernel
from loopnb.kernel.messages import handle_comms_at_once
from loopnb.kernel.output import route_by_context
from loopnb.kernel.replies import ReplyGuard
from loopnb.loop.closed import ClosedLoops
from loopnb.magics.aloop import Aloop
from loopnb.magics.commands import LoopMagics
from loopnb.magics.display import close_widget
from loopnb.nesting import other_packages
from loopnb.nesting._cpython import is_nested_by_others, running_loop
from loopnb.nesting.entry_points import when_set_aside
from loopnb.session import Session
from loopnb.settings import LoopNB
from loopnb.shell.cells import Cells, Places
from loopnb.shell.error_notes import ErrorNotes
from loopnb.shell.guarding import place_text
from loopnb.shell.interrupts import Interrupts
from loopnb.shell.rejecting import Rejections
from loopnb.shell.reports import Reports
from loopnb.shell.reruns import Reruns
from loopnb.terminal.guard import hook_terminal
from loopnb.tracking.background import is_background

if TYPE_CHECKING:
    import asyncio


_loaded: WeakKeyDictionary[Any, ExitStack] = WeakKeyDictionary()


def load(shell: Any) -> None:
    """Load loopnb into *shell*. Does nothing if it is loaded there already. The loop's thread.

    Raises:
        UnsupportedKernelError: *shell* is no IPython shell, or its kernel cannot be hooked.
    """
    if shell in _loaded:
        return
    _check_supported(shell)
    with ExitStack() as parts:
        _build(shell, parts)
        _loaded[shell] = parts.pop_all()


def unload(shell: Any) -> None:
    """Take back everything `load` did; the user's tasks go on. The loop's thread."""
    parts = _loaded.pop(shell, None)
    if parts is not None:
        parts.close()


def check_loop(shell: Any, what: str) -> None:
    """Raise UnsupportedKernelError if the caller does not run on the loop of *shell*."""
    if _ipykernel.runs_on_other_loop(shell):
        command = "load_ext" if what == "loaded" else "unload_ext"
        raise UnsupportedKernelError(
            "the code that asks for it runs on a loop of its own, which is not the notebook's",
            f"Run '%{command} loopnb' in a plain cell: not below %%aloop --fresh, nor in a subshell.",
            doing=what,
        )


def _check_supported(shell: Any) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    if not isinstance(shell, InteractiveShell):
        raise UnsupportedKernelError(
            "there is no IPython shell here",
            "Use '%load_ext loopnb' in IPython or a notebook; in a script, loopnb.nesting.apply().",
        )
    check_loop(shell, "loaded")
    running = running_loop()
    if running is not None and is_nested_by_others(running):
        raise UnsupportedKernelError(
            "the code that asks for it is in a nested run of nest_asyncio's",
            "Run '%load_ext loopnb' in a cell of its own, outside of asyncio.run().",
        )
    version = _ipykernel.kernel_version() if _ipykernel.kernel_of(shell) is not None else None
    if version is not None and version.startswith("7.0."):
        raise UnsupportedKernelError(
            f"ipykernel {version} loses what threads and widgets send",
            "Run '%pip install -U ipykernel' and restart the kernel.",
        )


def _build(shell: Any, parts: ExitStack) -> None:
    places = Places(shell)
    session = _start_session(shell, places, parts)
    cells = Cells(shell, partial(setattr, session, "cell"), places)
    session.is_executing = cells.is_executing
    replies = ReplyGuard(shell, session.loop) if _ipykernel.kernel_of(shell) is not None else None
    interrupts = _hook_interrupts(shell, session, cells, replies, parts)
    closed, error_notes = _explain_errors(shell, session, parts)
    magics = LoopMagics(shell, session, error_notes)
    magics.runner = Aloop(shell, session, cells, interrupts, magics.parser)
    _register_magics(shell, magics, parts)
    if replies is not None:
        _route_messages(shell, replies, parts)
        cells.after.append(guard_kernel(shell, session, cells, interrupts, error_notes, parts).after_cell)
    else:
        reload = {"load": partial(load, shell), "unload": partial(unload, shell)}
        hook_terminal(shell, session, cells, interrupts, error_notes, parts, closed=closed, **reload)
    cells.after.append(other_packages.catch_up)
    magics.runner.start()
    parts.callback(magics.runner.stop)
    cells.start()
    parts.callback(cells.stop)
    rejections = Rejections(shell)
    reruns = Reruns(shell, session)
    rejections.checks += [reruns.check, magics.runner.check]
    for part in (Reports(shell, session, cells, error_notes), reruns, rejections):
        part.start()
        parts.callback(part.stop)
    cells.begin_loading_cell()


def _start_session(shell: Any, places: Places, parts: ExitStack) -> Session:
    session = Session(
        _ipykernel.loop_of(shell),
        describe=places,
        is_kernels=frames.is_kernels,
        is_service_thread=_ipykernel.is_kernel_thread,
        settings=_offer_settings(shell, parts),
    )
    session.start()
    parts.callback(session.stop)
    parts.callback(close_widget, session)
    return session


def _explain_errors(shell: Any, session: Session, parts: ExitStack) -> tuple[ClosedLoops, ErrorNotes]:
    closed = ClosedLoops(partial(place_text, session.describe))
    error_notes = ErrorNotes(shell, [closed.explain])
    for part in (closed, error_notes):
        part.start()
        parts.callback(part.stop)
    return closed, error_notes


def _route_messages(shell: Any, replies: ReplyGuard, parts: ExitStack) -> None:
    """Have what tasks display go to their cells, comm messages come meanwhile, and replies go out."""
    for patches in (route_by_context(shell), handle_comms_at_once(shell.kernel)):
        patches.install()
        parts.callback(patches.restore)
    replies.start()
    parts.callback(replies.stop)


def _offer_settings(shell: Any, parts: ExitStack) -> LoopNB:
    """Make the settings, as configured, and have `%config` know them."""
    settings = LoopNB(parent=shell)
    shell.configurables.append(settings)
    parts.callback(shell.configurables.remove, settings)
    return settings


def _hook_interrupts(
    shell: Any, session: Session, cells: Cells, replies: ReplyGuard | None, parts: ExitStack
) -> Interrupts:
    def is_cells(task: asyncio.Task[Any]) -> bool:
        return cells.is_foreground(task) or (replies is not None and replies.is_handling(task))

    def interrupt_wait() -> bool:
        engine = session.engine
        return engine is not None and engine.interrupt()

    interrupts = Interrupts(
        session.loop,
        interrupt_wait,
        is_cells=is_cells,
        is_foreign=lambda task: (
            is_background(task) or session.tracker.origin_of(task).cell != cells.current()
        ),
        is_kernels=session.tracker.is_kernels_own,
        is_cell_file=lambda filename: shell.compile.format_code_name(filename) is not None,
    )

    session.nesting.prepare = interrupts.prepare
    if session.engine is not None:
        interrupts.prepare(session.engine)
    when_set_aside.append(interrupts.raise_if_asked)
    parts.callback(when_set_aside.remove, interrupts.raise_if_asked)
    kernel = _ipykernel.kernel_of(shell)
    patch = kernel and _ipykernel.patch_cancel_on_sigint(kernel, interrupts.cancel_on_sigint)
    if patch:
        patch.install()
        parts.callback(patch.restore)
    return interrupts


def _register_magics(shell: Any, magics: LoopMagics, parts: ExitStack) -> None:
    """Register the magics, and put back on unload what stood under their names before."""
    manager = shell.magics_manager
    tables = [(manager.registry, type(magics).__name__)]
    for kind in ("line", "cell"):
        tables += [(manager.magics[kind], name) for name in magics.magics[kind]]
    for table, name in tables:
        parts.callback(_put_back, table, name, table.get(name))
    shell.register_magics(magics)
    # Every Magics object enters itself for `%config` when it is made.
    parts.callback(shell.configurables.remove, magics)


def _put_back(table: dict[str, Any], name: str, before: Any) -> None:
    if before is None:
        table.pop(name, None)
    else:
        table[name] = before
