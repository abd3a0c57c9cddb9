"""Handle comm messages at once while a cell waits, and publish a status for each.

The wish. A cell that awaits or nests may be waiting for a comm message, such as a click on a widget. The
message should arrive while the cell waits.

What does not work. The kernel handles one message at a time, and keeps comm messages until the cell has
ended. ipykernel 7.4 handles some of them at once, but publishes no status for them. A widget's front end
waits for the status of each message, so it never sends another change.

The solution. We replace the function that takes messages off the channel. While a cell is busy, ours handles
comm messages in tasks of their own, and publishes a status for each. All other messages go to the stock
function. Our function is called in the thread of the shell that the message is for, and does not block it.
"""

from __future__ import annotations

import asyncio
import inspect
import select
import sys
import threading
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from loopnb.kernel._cpython import is_wanted
from loopnb.kernel._ipykernel import (
    is_queue_busy,
    message_handler,
    publish_status,
    shell_descriptor,
    shell_lock,
    shell_parent,
    stream_has_messages,
)
from loopnb.patching import CodePatch, PatchSet

if TYPE_CHECKING:
    from collections.abc import Callable

_COMM_TYPES = {"comm_open", "comm_msg", "comm_close"}

#: The stock functions. They outlive the patches, since some thread may still be handling a message.
_stock: dict[str, Callable[..., Any]] = {}
#: The tasks that handle comm messages. asyncio refers to them only weakly. They outlive the patches, too.
_handling: set[asyncio.Task[None]] = set()


class _Requests:
    """The requests to the main shell, and what other threads say of them.

    A front end shows the status that came last, of whatever shell. So when a subshell has answered, its
    thread says again that a cell is busy. It may find the cell running, and say so when the cell's "idle" is
    out already: the front end would stay Busy until the next request. So if a thread has said it, "idle" is
    said again after the request. Under the lock, no thread says it later than that.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: Those that have not ended, the one that is handled now first.
        self._open: list[dict[str, Any]] = []
        #: The one for which a thread has said "busy" again.
        self._said: dict[str, Any] | None = None

    def begin(self, request: dict[str, Any]) -> None:
        """Note a request that has come. The main shell's thread."""
        self._open.append(request)

    def end(self, kernel: Any, request: dict[str, Any]) -> None:
        """Note that a request has been handled. The main shell's thread."""
        with self._lock:
            self._open.remove(request)
            was_said = self._said is request
            if was_said:
                self._said = None
        if was_said:
            publish_status(kernel, "idle", request)

    def say_busy_again(self, kernel: Any) -> None:
        """Say again that the main shell is busy, if it is. Any thread."""
        with self._lock:
            if self._open and shell_lock(kernel, None).locked():
                self._said = self._open[0]
                publish_status(kernel, "busy", self._said)


#: It outlives the patches, too.
_requests = _Requests()


def handle_comms_at_once(kernel: Any) -> PatchSet:
    """Return the patch that keeps comm messages from waiting for the end of a cell.

    The kernel's sockets hold bound methods, which assigning an attribute would not reach. So we replace the
    code inside the function. An unknown kernel is left as it is.
    """
    function = message_handler(kernel)
    if function is None:
        return PatchSet()
    replacements: dict[str, Callable[..., Any]] = {
        "shell_main": _shell_main,
        "schedule_dispatch": _schedule_dispatch,
    }
    patch = CodePatch(function, replacements[function.__name__])
    _stock[function.__name__] = patch.original_function
    return PatchSet(patch)


async def _shell_main(self: Any, subshell_id: str | None, msg: Any) -> None:
    # The patch puts the code of this function, or of the next, into ipykernel's. There it runs with the
    # globals of `ipykernel.kernelbase`, so it imports what it calls.
    from loopnb.kernel.messages import shell_main

    await shell_main(self, subshell_id, msg)


def _schedule_dispatch(self: Any, dispatch: Any, *args: Any) -> None:
    from loopnb.kernel.messages import schedule_dispatch

    schedule_dispatch(self, dispatch, *args)


async def shell_main(kernel: Any, subshell_id: str | None, frames: Any) -> None:
    """Handle a message to a shell of ipykernel 7: comm messages at once, others in their turn."""
    lock = shell_lock(kernel, subshell_id)

    def is_busy() -> bool:
        # Between two cells nobody holds the lock, but the next cell is about to get it.
        return lock.locked() or is_wanted(lock)

    message = _read_comm_message(kernel, frames) if is_busy() else None
    if message is not None:
        await asyncio.create_task(_handle(kernel, *message, is_busy), context=copy_context())
    elif subshell_id is None:
        request = _read_request(kernel, frames)
        _requests.begin(request)
        try:
            await _stock["shell_main"](kernel, subshell_id, frames)
        finally:
            _requests.end(kernel, request)
    else:
        await _stock["shell_main"](kernel, subshell_id, frames)
    if subshell_id is not None:
        _requests.say_busy_again(kernel)


def schedule_dispatch(kernel: Any, dispatch: Any, *args: Any) -> None:
    """Handle a message to ipykernel 6: comm messages at once, others in their turn."""

    def is_busy() -> bool:
        return is_queue_busy(kernel)

    is_message = dispatch == kernel.dispatch_shell
    message = _read_comm_message(kernel, *args) if is_message and is_busy() else None
    if message is None:
        _stock["schedule_dispatch"](kernel, dispatch, *args)
        return
    # Use an empty Context. In it, the kernel's request is that of the newest cell, which `_handle` restores.
    # The current Context is a copy from whichever cell used the socket last.
    task = asyncio.create_task(_handle(kernel, *message, is_busy), context=Context())
    _handling.add(task)
    task.add_done_callback(_handling.discard)


def _read_request(kernel: Any, frames: Any) -> dict[str, Any]:
    """Return the part of a message that a status about it needs: its header. {} if it is unreadable."""
    try:
        _idents, frames = kernel.session.feed_identities(frames, copy=False)
        return {"header": kernel.session.unpack(frames[1].bytes)}
    except Exception:  # noqa: BLE001  ipykernel will read it, too, and say what is wrong
        return {}


def _read_comm_message(kernel: Any, frames: Any) -> tuple[Any, Any] | None:
    """Return sender and message of a comm message. None for other messages and for unreadable ones."""
    try:
        idents, frames = kernel.session.feed_identities(frames, copy=False)
        header = kernel.session.deserialize(frames, content=False, copy=False)["header"]
        if header["msg_type"] in _COMM_TYPES:
            return idents, kernel.session.deserialize(frames, content=True, copy=False)
    except Exception:  # noqa: BLE001  ipykernel will read it, too, and say what is wrong
        return None
    return None


async def _handle(kernel: Any, idents: Any, message: Any, is_busy: Callable[[], bool]) -> None:
    """Do what `Kernel.dispatch_shell` does, but leave SIGINT to the cell that waits.

    Call it in a Context of its own, so that the cell's Context keeps the cell's parent request. The kernel
    also keeps the newest request outside of Contexts, for threads. We reset that one to the cell's request at
    once.
    """
    cells_context = copy_context()
    cells_parent = shell_parent(kernel)
    kernel.set_parent(idents, message, channel="shell")
    cells_context.run(kernel.set_parent, *cells_parent, channel="shell")
    publish_status(kernel, "busy")
    try:
        result = kernel.shell_handlers[message["header"]["msg_type"]](kernel.shell_stream, idents, message)
        if inspect.isawaitable(result):
            await result
    except Exception:
        kernel.log.exception("Exception in message handler:")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    publish_status(kernel, "idle")
    # Front ends show the status that came last. The cell's own "idle" comes from this thread, not in between.
    if is_busy():
        publish_status(kernel, "busy", cells_parent[1])


class ShellQueue:
    """Knows whether messages wait for the main shell of a kernel.

    Args:
        kernel: The kernel.
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def has_messages(self) -> bool:
        """Return True if messages have come that the loop has not read. The loop's thread."""
        descriptor = shell_descriptor(self._kernel)
        if descriptor is None:
            return stream_has_messages(self._kernel)
        try:
            readable, _, _ = select.select([descriptor], [], [], 0)
        except ValueError:  # too high a number for `select`
            return False
        return bool(readable)
