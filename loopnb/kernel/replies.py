"""Interrupts that come while ipykernel's own code handles a request, before the cell or after it.

While a message is handled, SIGINT raises KeyboardInterrupt wherever Python is. `Kernel.pre_handler_hook` and
`post_handler_hook` see to that (checked on ipykernel 6.31.0, 7.3.0 and 7.4.0). Raised in the kernel's own
code it costs the reply, and front ends wait for that for ever.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
from typing import TYPE_CHECKING, Any
from weakref import ref

from loopnb.frames import Owner, is_all_by
from loopnb.kernel._cpython import code_of_callbacks
from loopnb.kernel._ipykernel import is_answering
from loopnb.nesting._cpython import running_loop
from loopnb.patching import Patch

if TYPE_CHECKING:
    from types import FrameType

#: Seconds between two looks at whether a request was answered.
_GLANCE = 0.01
#: Whose code handles a message before it calls anybody else's. IPython's ends a cell, too.
_KERNELS = frozenset({Owner.OURS, Owner.STDLIB, Owner.KERNEL})
_KERNELS_OR_SHELLS = _KERNELS | {Owner.SHELL}


class ReplyGuard:
    """Raises KeyboardInterrupt in what the kernel calls, but not in the kernel itself.

    While a cell runs, Python's own handler is installed, since `asyncio.Runner` and trio look for it.

    Args:
        shell: The shell of a kernel.
        loop: The kernel's loop.
    """

    def __init__(self, shell: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._kernel = shell.kernel
        self._events = shell.events
        self._loop = loop
        self._stock = shell.kernel.pre_handler_hook
        self._patch = Patch(shell.kernel, "pre_handler_hook", self._begin_message)
        self._handler = self._on_sigint  # each access makes another bound method, and we look for this one
        self._task: ref[asyncio.Task[Any]] | None = None

    def start(self) -> None:
        """Guard from the next message on."""
        self._patch.install()
        self._events.register("pre_execute", self._begin_cell)
        self._events.register("post_execute", self._end_cell)

    def stop(self) -> None:
        """Leave interrupts to the kernel."""
        self._events.unregister("pre_execute", self._begin_cell)
        self._events.unregister("post_execute", self._end_cell)
        self._patch.restore()
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

    def _begin_message(self) -> None:
        self._stock()  # fails in the thread of a subshell, which no interrupt reaches
        _replace(signal.default_int_handler, self._handler)
        task = asyncio.current_task()
        self._task = None if task is None else ref(task)

    def _begin_cell(self) -> None:
        _replace(self._handler, signal.default_int_handler)

    def _end_cell(self) -> None:
        # Counting cells in and out would be simpler. But IPython tells only of the end of a blank cell, and
        # only of the beginning of a comm's callback that fails.
        if is_all_by(inspect.currentframe(), _KERNELS_OR_SHELLS, until=code_of_callbacks()):
            _replace(signal.default_int_handler, self._handler)

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        # While another loop runs, the user's code is what runs it. Its frame need not be among the callers: a
        # nested run on that loop has a stack of its own.
        if running_loop() is not self._loop or not is_all_by(frame, _KERNELS, until=code_of_callbacks()):
            signal.default_int_handler(signum, frame)


def _replace(present: Any, wanted: Any) -> None:
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is present:
        signal.signal(signal.SIGINT, wanted)
