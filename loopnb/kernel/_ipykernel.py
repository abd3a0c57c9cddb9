"""Private names of ipykernel and of tornado below it, and those of IPython that loading uses.

Checked on ipykernel 6.31.0, 7.3.0 and 7.4.0 and IPython 9.18.1. Unless it says otherwise, call a function in
the thread of the shell that it is about; none blocks.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

from loopnb.frames import frame_outside
from loopnb.nesting.no_loop import loop_here
from loopnb.patching import MethodWrapper, Patch, PatchSet

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from contextlib import AbstractContextManager


def kernel_of(shell: Any) -> Any | None:
    """Return the ipykernel that *shell* belongs to; None in a terminal, and in a kernel of another kind."""
    kernel = getattr(shell, "kernel", None)
    base = getattr(sys.modules.get("ipykernel.kernelbase"), "Kernel", None)
    return kernel if base is not None and isinstance(kernel, base) else None


def is_run_by_program(shell: Any) -> bool:
    """Return True if nobody sees the executing cell: nbclient runs it, for nbconvert or papermill.

    nbclient sends no id of the cell, and answers no `input()`. Voila runs notebooks by nbclient, too, and
    shows them. It sets an environment variable.
    """
    kernel = kernel_of(shell)
    if kernel is None or "voila" in os.environ.get("SERVER_SOFTWARE", ""):
        return False
    request = kernel.get_parent("shell") or {}
    has_id = "cellId" in request.get("metadata", {})
    return not has_id and request.get("content", {}).get("allow_stdin") is False


def foreign_kernel(shell: Any) -> str | None:
    """Name the class of the kernel that *shell* belongs to, if that is none of ipykernel's.

    async-kernel and xeus-python, for instance, have shells with an attribute `kernel`, too.
    """
    kernel = getattr(shell, "kernel", None)
    if kernel is None or kernel_of(shell) is not None:
        return None
    return f"{type(kernel).__module__}.{type(kernel).__qualname__}"


def kernel_version() -> str | None:
    """Return the version of ipykernel; None if it is not imported."""
    module = sys.modules.get("ipykernel")
    return getattr(module, "__version__", None)


def loop_of(shell: Any) -> asyncio.AbstractEventLoop:
    """Return the loop that runs, or will run, the cells of *shell*.

    While extensions are loaded from a configuration file, the kernel's loop does not run yet. In a terminal
    it is the loop that IPython awaits on, `get_asyncio_loop()`.
    """
    running = loop_here()
    if running is not None:
        return running
    if kernel_of(shell) is not None:
        from tornado.ioloop import IOLoop

        io_loop: Any = IOLoop.current()
        return io_loop.asyncio_loop  # type: ignore[no-any-return]  # tornado is untyped here
    from IPython.core.async_helpers import get_asyncio_loop

    return get_asyncio_loop()  # type: ignore[no-any-return]  # untyped


def runs_on_other_loop(shell: Any) -> bool:
    """Return True if the loop of *shell* runs, but is not the running loop here.

    It runs in another thread, or further out on this stack, around the loop that runs here.

    The kernel's loop is `kernel.io_loop`, once it has been started. The terminal's is
    `IPython.core.async_helpers._asyncio_event_loop`, once IPython has made one. Without either, the
    running loop is the shell's.
    """
    running = loop_here()
    kernel = kernel_of(shell)
    if kernel is not None:
        own: Any = getattr(getattr(kernel, "io_loop", None), "asyncio_loop", None)
    else:
        own = getattr(sys.modules.get("IPython.core.async_helpers"), "_asyncio_event_loop", None)
    return own is not None and own is not running and own.is_running()


def is_kernel_thread() -> bool:
    """Return True if the calling thread is one of ipykernel's own, such as a subshell's. Any thread.

    `ipykernel.thread.BaseThread` from ipykernel 7 on; 6 runs no user code in its threads.
    """
    return _is_kernels(threading.current_thread())


def _is_kernels(thread: threading.Thread) -> bool:
    base = getattr(sys.modules.get("ipykernel.thread"), "BaseThread", None)
    return base is not None and isinstance(thread, base)


def is_kernel_threads_loop(loop: asyncio.AbstractEventLoop) -> bool:
    """Return True if *loop* is that of one of ipykernel's own threads (`BaseThread.io_loop`). Any thread."""
    return any(_loop_of(thread) is loop for thread in threading.enumerate() if _is_kernels(thread))


@dataclass(frozen=True)
class Subshell:
    """A subshell of ipykernel 7.

    Attributes:
        name: The name of its thread.
        loop: Its loop.
        is_busy: Returns True while it handles a request, the reply included. Any thread.
    """

    name: str
    loop: asyncio.AbstractEventLoop
    is_busy: Callable[[], bool]


def subshells() -> list[Subshell]:
    """Return the subshells: threads with a lock that each request holds (`asyncio_lock`, from 7.1 on).

    The shell channel's thread has such a lock, too, and is among them.
    """
    found = []
    for thread in _subshell_threads():
        loop = _loop_of(thread)
        if loop is not None:
            found.append(Subshell(thread.name, loop, thread.asyncio_lock.locked))
    return found


def _subshell_threads() -> list[Any]:
    # The shell channel's thread holds its lock while it passes a message on. No stack is ever parked there.
    return [item for item in threading.enumerate() if _is_kernels(item) and hasattr(item, "asyncio_lock")]


def join_subshells(timeout: float) -> None:
    """Stop the threads of subshells, which must be idle, and join them for at most *timeout* seconds in all.

    Call in the shell channel's thread, as ipykernel calls `SubshellManager.close` (7.1.0 to 7.4.0): at their
    end the threads close sockets of that thread. We do not call `close`, since it holds a lock meanwhile. A
    thread that still has a message to handle waits for that lock, and both would wait for ever.
    """
    deadline = time.monotonic() + timeout
    threads = [item for item in _subshell_threads() if item is not threading.current_thread()]
    for thread in threads:
        thread.stop()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def is_shell_channels(kernel: Any, loop: asyncio.AbstractEventLoop) -> bool:
    """Return True if *loop* is that of the shell channel's thread (`Kernel.shell_channel_thread`, 7)."""
    channel = getattr(kernel, "shell_channel_thread", None)
    return channel is not None and _loop_of(channel) is loop


def end_shell_channel(kernel: Any, timeout: float) -> None:
    """End the shell channel's thread, and join it for at most *timeout* seconds. Call in the main thread."""
    channel = getattr(kernel, "shell_channel_thread", None)
    if channel is not None and channel.is_alive():
        channel.stop()
        channel.join(timeout)


def _loop_of(thread: Any) -> asyncio.AbstractEventLoop | None:
    return getattr(getattr(thread, "io_loop", None), "asyncio_loop", None)


def patch_aborting(kernel: Any) -> Patch | None:
    """Return the patch that has a subshell abort its queue by itself when its cell fails.

    Use it at the end of a kernel. `Kernel._abort_queues` (7.1.0 to 7.4.0) takes a lock of the shell channel's
    thread, and has that thread send the subshell a message. But at the end that thread holds the lock while
    it joins the subshells, and both would wait for ever. Returns None where there are no subshells.
    """
    if getattr(kernel, "shell_channel_thread", None) is None or not hasattr(kernel, "_abort_queues"):
        return None
    stock = kernel._abort_queues

    def abort_queues(subshell_id: str | None = None) -> None:
        thread: Any = threading.current_thread()
        if subshell_id is None or not hasattr(thread, "aborting"):
            stock(subshell_id)
        else:
            thread.aborting = True  # as ipykernel does, but for good, since the kernel ends

    return Patch(kernel, "_abort_queues", abort_queues)


def is_stopped_by_kernel() -> bool:
    """Return True if the kernel itself is calling the `stop()` of a loop, from a tornado callback.

    `BaseThread.stop` schedules it: `IOLoop._run_callback` calls
    `tornado.platform.asyncio.BaseAsyncIOLoop.stop` (6.4 to 6.6).
    """
    tornado: Any = sys.modules.get("tornado.platform.asyncio")
    frame = frame_outside()
    if tornado is None or frame is None or frame.f_code is not tornado.BaseAsyncIOLoop.stop.__code__:
        return False
    caller = frame.f_back
    return caller is not None and caller.f_code is tornado.IOLoop._run_callback.__code__


def patch_cancel_on_sigint(
    kernel: Any, replacement: Callable[[asyncio.Future[Any]], AbstractContextManager[None]]
) -> Patch | None:
    """Return the patch that has *replacement* handle SIGINT while a cell awaits.

    `IPythonKernel._cancel_on_sigint(future)`, a context manager. Its handler does not wake the selector,
    so an interrupt may take effect only when the await ends (ipykernel #881). Returns None where the
    kernel has no such method.
    """
    if not hasattr(kernel, "_cancel_on_sigint"):
        return None
    return Patch(kernel, "_cancel_on_sigint", replacement)


def keep_for_end_of_message(kernel: Any, stock: Callable[[], object], handler: Any) -> bool:
    """Store *handler*, so that `Kernel.post_handler_hook` restores it as the handler of SIGINT.

    The stock `pre_handler_hook` stores the handler in `saved_sigint_handler`, too, and installs
    `default_int_handler` (6.31.0, 7.3.0 and 7.4.0). A kernel of another class may do more.

    Args:
        kernel: The kernel.
        stock: Its `pre_handler_hook`.
        handler: The handler.

    Returns:
        False if that hook is not the stock one: then call it.
    """
    base = getattr(sys.modules.get("ipykernel.kernelbase"), "Kernel", None)
    if getattr(stock, "__func__", None) is not getattr(base, "pre_handler_hook", kernel):
        return False
    kernel.saved_sigint_handler = handler
    return True


def is_called_by_kernel(kernel: Any) -> bool:
    """Return True if `do_execute`, which makes a task of a cell, has called the caller of this function.

    `IPythonKernel.do_execute`, 6.29.5 to 7.4.0. False if the method has another name, or is not the direct
    caller.
    """
    code = sys._getframe(2).f_code
    methods = (vars(kind).get("do_execute") for kind in type(kernel).__mro__)
    return any(getattr(method, "__code__", None) is code for method in methods)


# -- messages, and the requests that output belongs to ---------------------------------------------


def message_handler(kernel: Any) -> FunctionType | None:
    """Return the function that takes each message off the shell channel; None in an unknown kernel.

    `Kernel.shell_main` (7.1.0 to 7.4.0), where each shell has a lock, or `Kernel.schedule_dispatch` (6.29.5
    and 6.31.0), where there is one queue.
    """
    for name in ("shell_main", "schedule_dispatch"):
        function = getattr(type(kernel), name, None)
        if isinstance(function, FunctionType):
            return function
    return None


def shell_lock(kernel: Any, subshell_id: str | None) -> asyncio.Lock:
    """Return the lock that each request to a shell holds (`Kernel._main_asyncio_lock`, 7.1.0 to 7.4.0)."""
    lock: asyncio.Lock
    if subshell_id is None:
        lock = kernel._main_asyncio_lock
    else:
        lock = kernel.shell_channel_thread.manager.get_subshell_asyncio_lock(subshell_id)
    return lock


def is_queue_busy(kernel: Any) -> bool:
    """Return True if a request is being handled, or is about to be (6.29.5 and 6.31.0).

    `tornado.queues.Queue._getters` of `Kernel.msg_queue`: the kernel waits there for the next request.
    """
    return all(getter.done() for getter in kernel.msg_queue._getters)


def is_answering(kernel: Any) -> bool:
    """Return True while a request to the main shell is being handled, its reply included.

    `Kernel._main_asyncio_lock` (7.1.0 to 7.4.0), or the queue (6.29.5 and 6.31.0).
    """
    lock = getattr(kernel, "_main_asyncio_lock", None)
    return lock.locked() if lock is not None else is_queue_busy(kernel)


def shell_descriptor(kernel: Any) -> int | None:
    """Return the file descriptor that is readable while messages wait for the main shell; None if unknown.

    A thread hands them over by `SubshellManager.get_shell_channel_to_subshell_pair` (7.1.0 to 7.4.0). We
    don't ask that socket for its events: it resets the descriptor, and the loop would not be woken for them.
    """
    manager = getattr(getattr(kernel, "shell_channel_thread", None), "manager", None)
    pair_of = getattr(manager, "get_shell_channel_to_subshell_pair", None)
    socket = None if pair_of is None else pair_of(None).to_socket
    if socket is None or socket.closed:
        return None
    descriptor: int = socket.FD
    return descriptor


def stream_has_messages(kernel: Any) -> bool:
    """Return True if messages wait in `Kernel.shell_stream` (before 7). The loop's thread.

    Sending a reply resets the descriptor of the socket, so only the socket itself knows. Asking the socket
    resets the descriptor, too. Then nothing would wake the loop for messages that have come, so this tells it
    to read.
    """
    from zmq import POLLIN

    stream = getattr(kernel, "shell_stream", None)
    if stream is None or getattr(kernel, "shell_channel_thread", None) is not None:
        return False  # from 7 on the stream is that thread's
    if stream.closed() or not stream.socket.events & POLLIN:
        return False
    stream.io_loop.add_callback(stream.flush, POLLIN)
    return True


def shell_parent(kernel: Any) -> tuple[Any, Any]:
    """Return sender and message of the request the shell handles (`Kernel._parent_ident`, all versions)."""
    return kernel._parent_ident["shell"], kernel.get_parent("shell")


def publish_status(kernel: Any, status: str, *parent: Any) -> None:
    """Tell the front ends that the shell is busy or idle (`Kernel._publish_status`, all versions).

    Args:
        kernel: The kernel.
        status: `busy` or `idle`.
        parent: The request that the status is about; if left out, that of the calling Context.
    """
    kernel._publish_status(status, "shell", *parent)


def single_buffer_streams() -> type | None:
    """Return the class of the kernel's standard output if its streams have one buffer each (before 6.29).

    `ipykernel.iostream.OutStream`. From 6.29 on its `parent_header` is a property, and it has a buffer for
    each request.
    """
    kind: Any = getattr(sys.modules.get("ipykernel.iostream"), "OutStream", None)
    if kind is None or hasattr(kind, "parent_header") or not hasattr(kind, "_flush_buffer"):
        return None
    found: type = kind
    return found


def buffer_lock(stream: Any) -> AbstractContextManager[Any]:
    """Return the lock of a stream's buffer, an RLock (`OutStream._buffer_lock`)."""
    lock: AbstractContextManager[Any] = stream._buffer_lock
    return lock


def take_buffer(stream: Any) -> str:
    """Empty a stream's buffer, and return what it held (`OutStream._flush_buffer`, before 6.29)."""
    text: str = stream._flush_buffer()
    return text


def forget_own_write(stream: Any) -> None:
    """Remove a stream's own attribute `write` if it is a method of its class.

    `InteractiveShell._tee` (IPython 9) sets that attribute while a cell runs that does not await, and then
    sets it to what it was: to the method that the class had when the cell began. It would hide one that the
    class gets later.
    """
    if getattr(vars(stream).get("write"), "__self__", None) is stream:
        del vars(stream)["write"]


def wrap_streams(
    kind: type,
    header: object,
    write: Callable[..., Any],
    flush: Callable[..., Any],
    take: Callable[..., Any],
) -> PatchSet:
    """Return the patches for streams with one buffer (`OutStream`, before 6.29).

    Args:
        kind: Their class.
        header: Stands in for the attribute `parent_header`: a data descriptor.
        write: Wraps `write(text)`.
        flush: Wraps `_flush()`, which sends the buffer from the thread of iopub.
        take: Wraps `_flush_buffer()`, which empties the buffer.
    """
    return PatchSet(
        Patch(kind, "parent_header", header),
        MethodWrapper(kind, "write", write),
        MethodWrapper(kind, "_flush", flush),
        MethodWrapper(kind, "_flush_buffer", take),
    )


def patch_parents(kernel: Any, replace: Callable[[dict[str, Any]], dict[str, Any]]) -> Patch | None:
    """Return the patch for the kernel's record of the newest request of each channel (`Kernel._parents`).

    It is a dictionary in 6.29.5 and 6.31.0. Returns None from 7.0 on, where there is no such record.

    Args:
        kernel: The kernel.
        replace: Returns the replacement for the dictionary.
    """
    parents = getattr(kernel, "_parents", None)
    return Patch(kernel, "_parents", replace(parents)) if isinstance(parents, dict) else None
