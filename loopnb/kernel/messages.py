"""Comm messages that come while a cell waits: handled at once, and answered for.

A cell that awaits or nests may be waiting for just such a message, the click of a widget. But the
kernel handles one message at a time: it keeps comm messages until the cell has ended. ipykernel
7.4 does not, but it sends no status for those that it handles at once, and then a widget's front
end sends no more changes for the rest of its life, since it still waits for the end of the last.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from contextvars import Context, copy_context
from types import FunctionType
from typing import TYPE_CHECKING, Any

from loopnb.patching import CodePatch, PatchSet

if TYPE_CHECKING:
    from collections.abc import Callable

_COMM_TYPES = {"comm_open", "comm_msg", "comm_close"}

#: The originals. They stay when the patches go: a message may be under way, in any thread.
_stock: dict[str, Callable[..., Any]] = {}
#: asyncio holds its tasks weakly.
_handling: set[asyncio.Task[None]] = set()


def handle_comms_at_once(kernel: Any) -> PatchSet:
    """Return the patch that keeps comm messages from waiting for the end of a cell.

    The kernel has handed bound methods to its sockets, so it is the code of these that is
    replaced: ``Kernel.shell_main`` (ipykernel 7.1.0 to 7.4.0), where each shell has a lock, and
    ``Kernel.schedule_dispatch`` (6.29.5 and 6.31.0), where there is one queue. Other private
    names: ``_main_asyncio_lock``, ``_publish_status``, ``_parent_ident`` of the kernel,
    ``asyncio.Lock._waiters``, ``tornado.queues.Queue._getters``. Other kernels are left alone.
    """
    for name, replacement in (("shell_main", _shell_main), ("schedule_dispatch", _schedule_dispatch)):
        function = getattr(type(kernel), name, None)
        if isinstance(function, FunctionType):
            patch = CodePatch(function, replacement)
            _stock[name] = patch.original_function
            return PatchSet(patch)
    return PatchSet()


async def _shell_main(self: Any, subshell_id: str | None, msg: Any) -> None:
    # Runs with the globals of ipykernel.kernelbase, and so does the next.
    from loopnb.kernel.messages import shell_main

    await shell_main(self, subshell_id, msg)


def _schedule_dispatch(self: Any, dispatch: Any, *args: Any) -> None:
    from loopnb.kernel.messages import schedule_dispatch

    schedule_dispatch(self, dispatch, *args)


async def shell_main(kernel: Any, subshell_id: str | None, frames: Any) -> None:
    """Handle a message to a shell of ipykernel 7: a comm's at once, others when it is their turn."""
    if subshell_id is None:
        lock = kernel._main_asyncio_lock
    else:
        lock = kernel.shell_channel_thread.manager.get_subshell_asyncio_lock(subshell_id)

    def is_busy() -> bool:
        # Between two cells nobody holds the lock, but the next one's turn has come.
        return lock.locked() or bool(lock._waiters)

    message = _read_comm_message(kernel, frames) if is_busy() else None
    if message is None:
        await _stock["shell_main"](kernel, subshell_id, frames)
    else:
        await asyncio.create_task(_handle(kernel, *message, is_busy), context=copy_context())


def schedule_dispatch(kernel: Any, dispatch: Any, *args: Any) -> None:
    """Handle a message to ipykernel 6: a comm's at once, others when it is their turn."""

    def is_busy() -> bool:
        return all(getter.done() for getter in kernel.msg_queue._getters)

    is_message = dispatch == kernel.dispatch_shell
    message = _read_comm_message(kernel, *args) if is_message and is_busy() else None
    if message is None:
        _stock["schedule_dispatch"](kernel, dispatch, *args)
        return
    # The socket's own Context is a copy of whosever used it last; in a new one the newest cell counts.
    task = asyncio.create_task(_handle(kernel, *message, is_busy), context=Context())
    _handling.add(task)
    task.add_done_callback(_handling.discard)


def _read_comm_message(kernel: Any, frames: Any) -> tuple[Any, Any] | None:
    """Return sender and message if it is a comm's; None of any other, or of none that can be read."""
    try:
        idents, frames = kernel.session.feed_identities(frames, copy=False)
        header = kernel.session.deserialize(frames, content=False, copy=False)["header"]
        if header["msg_type"] in _COMM_TYPES:
            return idents, kernel.session.deserialize(frames, content=True, copy=False)
    except Exception:  # noqa: BLE001  ipykernel meets it too, and says what is wrong
        return None
    return None


async def _handle(kernel: Any, idents: Any, message: Any, is_busy: Callable[[], bool]) -> None:
    """Do what `Kernel.dispatch_shell` does, but leave SIGINT to the cell that waits.

    In a Context of its own. What the kernel keeps outside Contexts, for threads, stays the cell's.
    """
    cells_context = copy_context()
    cells = kernel._parent_ident["shell"], kernel.get_parent("shell")
    kernel.set_parent(idents, message, channel="shell")
    cells_context.run(kernel.set_parent, *cells, channel="shell")
    kernel._publish_status("busy", "shell")
    try:
        result = kernel.shell_handlers[message["header"]["msg_type"]](kernel.shell_stream, idents, message)
        if inspect.isawaitable(result):
            await result
    except Exception:
        kernel.log.exception("Exception in message handler:")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kernel._publish_status("idle", "shell")
    if is_busy():  # front ends show the status that came last
        kernel._publish_status("busy", "shell", cells[1])
