"""Load and unload loopnb: make its parts, and hook them into shell and kernel."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from loopnb import frames
from loopnb.errors import UnsupportedKernelError
from loopnb.kernel import _ipykernel
from loopnb.kernel.contexts import share_context
from loopnb.kernel.guard import guard_kernel
from loopnb.kernel.messages import ShellQueue, handle_comms_at_once
from loopnb.kernel.output import route_by_context
from loopnb.kernel.replies import ReplyGuard
from loopnb.loop.closed import ClosedLoops
from loopnb.loop.healing import Healer
from loopnb.loop.owner import LoopOwner
from loopnb.magics.aloop import Aloop
from loopnb.magics.commands import COMMANDS, PARSER, LoopMagics
from loopnb.magics.completion import Completion
from loopnb.magics.display import make_widget
from loopnb.magics.failing import Failing
from loopnb.magics.progress import Progress
from loopnb.magics.timers import Timers
from loopnb.magics.waiting import Waiting
from loopnb.nesting import patches as nesting_patches
from loopnb.nesting import stack_switching
from loopnb.nesting._cpython import is_nested_by_others, reentrant_package
from loopnb.nesting.no_loop import loop_here
from loopnb.nesting.second_engine import NestingChoice
from loopnb.pyodide.hooks import hook_pyodide, is_pyodides
from loopnb.session import Session, current
from loopnb.settings import LoopNB
from loopnb.shell.asyncio_errors import AsyncioErrors
from loopnb.shell.cells import Cells
from loopnb.shell.error_notes import ErrorNotes
from loopnb.shell.hung_cells import HungCells
from loopnb.shell.interrupts import Interrupts, ShellTasks
from loopnb.shell.library_errors import explain_library_error
from loopnb.shell.never_awaited import NeverAwaited
from loopnb.shell.notebook import ShellNotebook
from loopnb.shell.rejecting import Rejections
from loopnb.shell.reports import Reports
from loopnb.shell.reruns import Reruns
from loopnb.shell.wakeups import Wakeups
from loopnb.terminal._ipython import is_too_old
from loopnb.terminal.guard import hook_terminal
from loopnb.tracking.tracker import Tracker
from loopnb.watch.watch import Watch

#: Held while loopnb is loaded or unloaded. Two threads may try at once, and a function that is patched twice
#: would call itself for ever.
_changing = threading.RLock()
#: Shell -> its session, and what unloads loopnb from it. Kept here since `%unload_ext` passes only the shell.
_loaded: WeakKeyDictionary[Any, tuple[Session, ExitStack]] = WeakKeyDictionary()


class _Part(Protocol):
    """A part that is started on load and stopped on unload."""

    def start(self) -> object: ...

    def stop(self) -> object: ...


def load(shell: Any, generation: int = 1) -> None:
    """Load loopnb into *shell*. Does nothing if it is loaded there already.

    Call in the loop's thread. Blocks while another thread loads or unloads loopnb.

    Args:
        shell: The shell.
        generation: Which of this shell's loops to load it on. The first is 1.

    Raises:
        UnsupportedKernelError: *shell* is no IPython shell, or its kernel cannot be hooked.
    """
    with _changing:
        if shell in _loaded:
            return
        _check_supported(shell)
        with ExitStack() as parts:
            _build(shell, generation, parts)
            _loaded[shell] = current(), parts.pop_all()  # the session that has just been started


def unload(shell: Any) -> None:
    """Undo everything that `load` did. The user's tasks go on. Call in the loop's thread."""
    with _changing:
        loaded = _loaded.pop(shell, None)
        if loaded is not None:
            loaded[1].close()


def check_can_unload(shell: Any) -> None:
    """Raise an error if loopnb cannot be unloaded from *shell* by the code that calls this.

    Raises:
        UnsupportedKernelError: The caller does not run on the loop of *shell*.
        NestingError: Something runs nested that cannot end without loopnb.
    """
    _check_loop(shell, "unloaded")
    loaded = _loaded.get(shell)
    if loaded is not None:
        loaded[0].nesting.check_can_leave("unload loopnb", "%unload_ext loopnb")


def _check_loop(shell: Any, what: str) -> None:
    """Raise UnsupportedKernelError if the caller does not run on the loop of *shell*."""
    if _ipykernel.runs_on_other_loop(shell):
        command = "load_ext" if what == "loaded" else "unload_ext"
        raise UnsupportedKernelError(
            "the code that asks for it runs in another thread than the notebook's loop, or on another loop",
            f"Run '%{command} loopnb' in a plain cell, not below %%aloop --fresh, in a subshell or a thread.",
            doing=what,
        )


def _check_supported(shell: Any) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    if not isinstance(shell, InteractiveShell):
        raise UnsupportedKernelError(
            "there is no IPython shell here",
            "Use '%load_ext loopnb' in IPython or a notebook; in a script, loopnb.nesting.apply().",
        )
    foreign = _ipykernel.foreign_kernel(shell)
    if foreign is not None and not is_pyodides(shell):
        raise UnsupportedKernelError(
            f"this kernel is not ipykernel's: its class is {foreign}",
            "Choose the kernel 'Python 3 (ipykernel)', or call loopnb.nesting.apply(), which needs none.",
        )
    if _ipykernel.kernel_of(shell) is None and is_too_old(shell):
        raise UnsupportedKernelError(
            "the terminal of this IPython has no loop that cells and prompt could share",
            "Run 'pip install -U ipython' and restart IPython.",
        )
    _check_loop(shell, "loaded")
    running = loop_here()
    if running is not None and is_nested_by_others(running):
        raise UnsupportedKernelError(
            f"the code that asks for it is in a nested run of {reentrant_package()}'s",
            "Run '%load_ext loopnb' in a cell of its own, outside of asyncio.run().",
        )
    version = _ipykernel.kernel_version() if _ipykernel.kernel_of(shell) is not None else None
    if version is not None and version.startswith("7.0."):
        raise UnsupportedKernelError(
            f"ipykernel {version} loses what threads and widgets send",
            "Run '%pip install -U ipykernel' and restart the kernel.",
        )


class _Reload:
    """The `Extension` by which the terminal reloads loopnb when its loop has ended."""

    def load(self, shell: Any, generation: int) -> None:
        """Load loopnb into *shell*, on the loop of that generation."""
        load(shell, generation)

    def unload(self, shell: Any) -> None:
        """Undo everything that loading did."""
        unload(shell)


def _build(shell: Any, generation: int, parts: ExitStack) -> None:
    """Make the parts, each after those that it needs, and start them."""
    loop, kernel, cells = _ipykernel.loop_of(shell), _ipykernel.kernel_of(shell), Cells(shell)
    tracker = Tracker(loop, describe=cells.places, is_kernels=frames.is_kernels)
    replies = ReplyGuard(shell, loop) if kernel is not None else None
    wakeups = Wakeups(lambda: cells.executing is not None)
    interrupts = Interrupts(loop, ShellTasks(loop, cells, tracker, replies, wakeups))
    watch = Watch(loop, tracker, cells, None if kernel is None else ShellQueue(kernel))
    closed, healer = ClosedLoops(cells.places.of_closing), Healer(loop)
    session = Session(
        LoopOwner(loop, generation),
        tracker=tracker,
        nesting=NestingChoice(loop, who="loopnb", foreground=interrupts),
        healer=healer,
        watch=watch,
        cells=cells,
        settings=_offer_settings(shell, parts),
        notebook=ShellNotebook(shell, closed, healer),
        is_service_thread=_ipykernel.is_kernel_thread,
        make_widget=make_widget,
    )
    error_notes, progress = _error_notes(shell, session, cells, closed), Progress(shell, session, cells)
    aloop = Aloop(shell, session, cells, interrupts, PARSER, progress)
    _start(parts, session, closed, error_notes, NeverAwaited(cells.places), wakeups)
    _wake_before_code(shell, watch, parts)
    waiting, failing = Waiting(shell, session, cells), Failing(shell, session, cells)
    _register_magics(shell, LoopMagics(shell, session, aloop, error_notes, waiting, failing), parts)
    if replies is not None:
        _hook_kernel(shell, session, interrupts, replies, parts)
        guard_kernel(shell, session, cells, interrupts, error_notes, replies, parts)
    elif is_pyodides(shell):
        hook_pyodide(shell, session, parts)
    else:
        hook_terminal(shell, session, cells, interrupts, error_notes, closed, _Reload(), parts)
    parts.callback(cells.call_after(nesting_patches.catch_up))
    reruns, late = Reruns(shell, session, cells), (HungCells(shell, session, cells), progress)
    last = () if replies is None else (replies.begin_code,)
    rejections = Rejections(shell, (reruns.check, aloop.check, *last))
    _start(parts, Completion(shell, session, COMMANDS, PARSER), Timers(shell), aloop)
    # `Cells` before the parts that ask it which cell has begun.
    _start(parts, cells, Reports(shell, session, cells, error_notes), reruns, failing, rejections, *late)
    cells.begin_loading_cell()


def _wake_before_code(shell: Any, watch: Watch, parts: ExitStack) -> None:
    """Wake *watch* before code of the user's runs: a cell, or the callback of a comm."""
    shell.events.register("pre_execute", watch.wake)
    parts.callback(shell.events.unregister, "pre_execute", watch.wake)


def _error_notes(shell: Any, session: Session, cells: Cells, closed: ClosedLoops) -> ErrorNotes:
    """Make what explains the errors that the shell shows."""
    errors = AsyncioErrors(session.loop, closed, session.nesting, cells.places)
    return ErrorNotes(shell, [errors.explain, stack_switching.explain, explain_library_error])


def _start(parts: ExitStack, *starting: _Part) -> None:
    """Start the parts in order, and have *parts* stop them in reverse order."""
    for part in starting:
        part.start()
        parts.callback(part.stop)


def _hook_kernel(
    shell: Any, session: Session, interrupts: Interrupts, replies: ReplyGuard, parts: ExitStack
) -> None:
    """Hook into the kernel.

    Route the output of tasks to their cells, handle interrupts and comm messages while a cell waits, guard
    replies, and let all cells share one Context.
    """
    sigint = _ipykernel.patch_cancel_on_sigint(shell.kernel, interrupts.cancel_on_sigint)
    contexts = share_context(shell, session.nesting)
    for patches in (sigint, route_by_context(shell), handle_comms_at_once(shell.kernel), contexts):
        if patches is not None:
            patches.install()
            parts.callback(patches.restore)
    _start(parts, replies)


def _offer_settings(shell: Any, parts: ExitStack) -> LoopNB:
    """Make the settings as configured, and show them to `%config`."""
    settings = LoopNB(parent=shell)
    shell.configurables.append(settings)
    parts.callback(shell.configurables.remove, settings)
    return settings


def _register_magics(shell: Any, magics: LoopMagics, parts: ExitStack) -> None:
    """Register the magics, and restore on unload any others of the same names."""
    manager = shell.magics_manager
    tables = [(manager.registry, type(magics).__name__)]
    for kind in ("line", "cell"):
        tables += [(manager.magics[kind], name) for name in magics.magics[kind]]
    for table, name in tables:
        parts.callback(_put_back, table, name, table.get(name))
    shell.register_magics(magics)
    # Every Magics object adds itself to `shell.configurables` when it is made.
    parts.callback(shell.configurables.remove, magics)


def _put_back(table: dict[str, Any], name: str, before: Any) -> None:
    if before is None:
        table.pop(name, None)
    else:
        table[name] = before
