"""Interrupts that come while ipykernel's own code handles a request: ahead of the cell, or of its reply.

While a message is handled, SIGINT raises KeyboardInterrupt wherever Python is (`Kernel.pre_handler_hook`
and `post_handler_hook`). In the kernel's own code that costs the reply, and front ends wait for it. Four
interrupts within 10 ms of a cell did so in 1 of 200 cells on a busy machine.

Checked on ipykernel 6.31.0, 7.3.0 and 7.4.0.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from loopnb.internals.patching import Patch

if TYPE_CHECKING:
    from types import FrameType

_OWN_PACKAGES = tuple(name + os.sep for name in ("ipykernel", "jupyter_client", "loopnb", "tornado", "zmq"))
_OWN_FOLDERS = (
    "<frozen ",
    os.path.dirname(os.__file__) + os.sep,
    os.path.dirname(os.path.dirname(__file__)) + os.sep,
)
_HANDLE_RUN = asyncio.Handle._run.__code__


class ReplyGuard:
    """Raises KeyboardInterrupt in what the kernel calls, but not in the kernel.

    In a cell Python's own handler stands, as without us: `asyncio.Runner` and trio look for it.

    Args:
        shell: The shell of a kernel.
    """

    def __init__(self, shell: Any) -> None:
        self._events = shell.events
        self._stock = shell.kernel.pre_handler_hook
        self._patch = Patch(shell.kernel, "pre_handler_hook", self._begin_message)
        self._handler = self._on_sigint  # one object, to be recognized
        self._cells = 0  # a cell may run others

    def start(self) -> None:
        """Guard from the next message on."""
        self._patch.install()
        self._events.register("pre_execute", self._begin_cell)
        self._events.register("post_execute", self._end_cell)
        self._cells = 1  # that of the caller

    def stop(self) -> None:
        """Leave interrupts to the kernel."""
        self._events.unregister("pre_execute", self._begin_cell)
        self._events.unregister("post_execute", self._end_cell)
        self._patch.restore()
        _replace(self._handler, signal.default_int_handler)

    def _begin_message(self) -> None:
        self._stock()
        _replace(signal.default_int_handler, self._handler)

    def _begin_cell(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._cells += 1
            _replace(self._handler, signal.default_int_handler)

    def _end_cell(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._cells = max(0, self._cells - 1)
            if not self._cells:
                _replace(signal.default_int_handler, self._handler)

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        if not _is_kernels_own(frame):
            signal.default_int_handler(signum, frame)


def _replace(present: Any, wanted: Any) -> None:
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is present:
        signal.signal(signal.SIGINT, wanted)


def _is_kernels_own(frame: FrameType | None) -> bool:
    """Say whether nobody has been called by the kernel: neither IPython nor a comm's handler."""
    while frame is not None and frame.f_code is not _HANDLE_RUN:
        _folder, is_installed, path = frame.f_code.co_filename.rpartition(f"site-packages{os.sep}")
        if not path.startswith(_OWN_PACKAGES if is_installed else _OWN_FOLDERS):
            return False
        frame = frame.f_back
    return True
