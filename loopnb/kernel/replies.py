"""Interrupts that come while ipykernel's own code handles a request, before the cell or after it.

While a message is handled, stock ipykernel raises KeyboardInterrupt wherever Python is: its
`pre_handler_hook` puts in Python's own handler, `default_int_handler`. Raised in the kernel's own code it
costs the reply, and front ends wait for that for ever. Raised in the hook itself, or in a frame of the
loop, it ends the kernel.

Here another handler stands in the beginning of a message and in its end. An interrupt in the beginning is
remembered, and ends the cell before its first statement. One in the end is too late, and is forgotten.
While a cell's code runs, Python's own handler stands, since `asyncio.Runner` and trio look for it.

Both stand only while a message is handled. While the kernel is idle, SIGINT is ignored, and so it is by the
child processes that background tasks start then. A handler that stood all the time would have it end those.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from IPython.core.interactiveshell import InteractiveShell

from loopnb.frames import Owner, is_all_by, is_called_by
from loopnb.kernel._ipykernel import is_answering, keep_for_end_of_message
from loopnb.nesting._cpython import HANDLE_RUN_CODE, running_loop
from loopnb.patching import Patch, PatchSet
from loopnb.shell.rejecting import RejectedByInterrupt

if TYPE_CHECKING:
    import ast
    from types import FrameType

#: Seconds between two looks at whether a request was answered.
_GLANCE = 0.01
#: Whose code handles a message before it calls anybody else's. IPython's begins a cell and ends it, too.
_KERNELS = frozenset({Owner.OURS, Owner.STDLIB, Owner.KERNEL})
_KERNELS_OR_SHELLS = _KERNELS | {Owner.SHELL}
_RUN_CELL = InteractiveShell.run_cell_async.__code__


class ReplyGuard:
    """Raises KeyboardInterrupt in what the kernel calls, but not in the kernel itself. The main thread.

    Args:
        shell: The shell of a kernel.
        loop: The kernel's loop.
    """

    def __init__(self, shell: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._kernel = shell.kernel
        self._events = shell.events
        self._loop = loop
        self._stock = shell.kernel.pre_handler_hook
        self._stock_set_parent = shell.kernel.set_parent
        self._patches = PatchSet(
            Patch(shell.kernel, "set_parent", self._set_parent),
            Patch(shell.kernel, "pre_handler_hook", self._begin_message),
        )
        self._handler = self._on_sigint  # each access makes another bound method, and we look for this one
        self._task: ref[asyncio.Task[Any]] | None = None
        self._is_beginning = False  # a cell is to be executed, and its code has not begun
        self._is_remembered = False  # an interrupt has come meanwhile
        self._begun: WeakSet[asyncio.Future[Any]] = WeakSet()  # tasks in which the code of a cell has begun

    def start(self) -> None:
        """Guard from the next message on."""
        self._patches.install()
        self._events.register("pre_execute", self._begin_callback)
        self._events.register("post_execute", self._end_cell)

    def stop(self) -> None:
        """Leave interrupts to the kernel."""
        self._events.unregister("pre_execute", self._begin_callback)
        self._events.unregister("post_execute", self._end_cell)
        self._patches.restore()
        _replace(self._handler, signal.default_int_handler)

    def is_handling(self, task: asyncio.Task[Any]) -> bool:
        """Return True if *task* is the one in which the kernel handles the newest request."""
        return self._task is not None and self._task() is task

    def forget_request(self) -> None:
        """Have nobody wait for the request that the kernel handles now."""
        self._task = None

    async def wait_answered(self, timeout: float) -> None:
        """Wait until the request that the kernel handles now was answered, *timeout* seconds at most.

        Not for requests that come after it. The loop's thread.
        """
        task = None if self._task is None else self._task()
        if task is None:
            return
        deadline = self._loop.time() + timeout
        # ipykernel 7 has a task for each request, and the next one may be handled already. On ipykernel 6 one
        # task handles them all, and never ends.
        while not task.done() and is_answering(self._kernel) and self._loop.time() < deadline:  # noqa: ASYNC110  neither sets an event
            await asyncio.sleep(_GLANCE)

    def remember(self, future: asyncio.Future[Any]) -> bool:
        """Remember an interrupt of *future*, an `await` cell's task. Return False if its code has begun."""
        if future in self._begun or not self._is_beginning:
            return False
        self._is_remembered = True
        return True

    def begin_code(self, _tree: ast.AST) -> None:
        """Let a cell's code be interrupted from now on. It is a check of `Rejections`, the last one.

        Raises:
            RejectedByInterrupt: An interrupt has come already.
        """
        if not self._is_beginning or threading.current_thread() is not threading.main_thread():
            return  # a cell that runs inside a cell, or in a subshell
        if not is_called_by(_RUN_CELL):
            return  # `%%aloop` compiles its body while IPython transforms the cell
        try:
            task = asyncio.current_task() if running_loop() is not None else None
            if task is not None:
                self._begun.add(task)
            self._is_beginning = False
            _replace(self._handler, signal.default_int_handler)
        except KeyboardInterrupt:
            self._is_remembered = True
        if self._is_remembered:
            self._is_remembered = False
            raise RejectedByInterrupt

    def _set_parent(self, ident: Any, parent: Any, channel: str = "shell") -> None:
        """Begin to guard a request for a cell: the kernel says that it is busy right after this."""
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and channel == "shell" and _is_for_cell(parent):
            # Only if the kernel is idle: while a cell waits, its request takes the place of a comm's message.
            if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, self._handler):
                self._is_remembered, self._is_beginning = False, True
            _replace(signal.SIG_IGN, self._handler)
        self._stock_set_parent(ident, parent, channel)

    def _begin_message(self) -> None:
        present = signal.getsignal(signal.SIGINT)
        if present is self._handler:
            present = signal.SIG_IGN  # which it has replaced
        else:
            self._is_remembered, self._is_beginning = False, _is_for_cell(self._kernel.get_parent("shell"))
        if not keep_for_end_of_message(self._kernel, self._stock, present):
            self._stock()
            _replace(signal.default_int_handler, self._handler)
        else:
            signal.signal(
                signal.SIGINT, self._handler
            )  # fails in a subshell's thread, which no signal reaches
        task = asyncio.current_task()
        self._task = None if task is None else ref(task)

    def _begin_callback(self) -> None:
        """Let the callback of a comm be interrupted: before one there is the same event as before a cell."""
        if not is_called_by(_RUN_CELL):
            self._is_beginning = False
            _replace(self._handler, signal.default_int_handler)

    def _end_cell(self) -> None:
        try:
            self._protect()
        except KeyboardInterrupt:  # too late to end the cell
            self._protect()

    def _protect(self) -> None:
        # Counting cells in and out would be simpler. But IPython tells only of the end of a blank cell, and
        # only of the beginning of a comm's callback that fails.
        if is_all_by(inspect.currentframe(), _KERNELS_OR_SHELLS, until=HANDLE_RUN_CODE):
            self._is_beginning = False
            _replace(signal.default_int_handler, self._handler)

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        # IPython's code begins a cell. If a callback or a transformer of the user's hangs there, a second
        # interrupt ends that.
        owners = _KERNELS_OR_SHELLS if self._is_beginning else _KERNELS
        is_again, self._is_remembered = self._is_remembered, self._is_remembered or self._is_beginning
        if self._is_remembered and not is_again:
            return
        # While another loop runs, the user's code is what runs it. Its frame need not be among the callers: a
        # nested run on that loop has a stack of its own.
        if running_loop() is not self._loop or not is_all_by(frame, owners, until=HANDLE_RUN_CODE):
            signal.default_int_handler(signum, frame)


def _is_for_cell(parent: Any) -> bool:
    """Return True if *parent* is a request to execute a cell."""
    header = parent.get("header") if isinstance(parent, dict) else None
    return isinstance(header, dict) and header.get("msg_type") == "execute_request"


def _replace(present: Any, wanted: Any) -> None:
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is present:
        signal.signal(signal.SIGINT, wanted)
