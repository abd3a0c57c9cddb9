"""Keep interrupts out of ipykernel's own code, which runs before and after a cell.

The problem. While a message is handled, stock ipykernel raises KeyboardInterrupt wherever Python is: its
`pre_handler_hook` installs Python's default handler, `default_int_handler`. In the kernel's own code the
error prevents the reply, and front ends wait for that for ever. In the hook itself, or in a frame of the
loop, the error ends the kernel.

The solution. We install another handler at the beginning and at the end of a message. An interrupt at the
beginning is remembered, and ends the cell before its first statement. An interrupt at the end is too late,
and is forgotten. The end includes the `__str__` of the cell's error, which the kernel calls for the reply.

While a cell's code runs, Python's default handler is installed, since `asyncio.Runner` and trio look for it.

These handlers are installed only while a message is handled. While the kernel is idle, SIGINT is ignored.
Child processes that background tasks start then inherit that, so interrupts do not end them.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from IPython.core.interactiveshell import InteractiveShell

from loopnb.frames import Owner, is_all_by, is_called_by, outwards, owner_of
from loopnb.kernel._ipykernel import is_answering, keep_for_end_of_message
from loopnb.kernel._ipython import patch_run_cell, result_of_interrupted
from loopnb.nesting._cpython import HANDLE_RUN_CODE, running_loop
from loopnb.patching import Patch, PatchSet
from loopnb.shell.rejecting import RejectedByInterrupt

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable
    from types import FrameType

#: Seconds between two checks that a request has been answered.
_GLANCE = 0.01
#: The owners of the code that runs before and after a cell while a message is handled, without IPython.
_KERNELS = frozenset({Owner.OURS, Owner.STDLIB, Owner.KERNEL})
#: The same, with IPython.
_KERNELS_OR_SHELLS = _KERNELS | {Owner.SHELL}
#: The library that reads and sets the attributes of kernel and shell.
_ATTRIBUTES = ("traitlets",)
_RUN_CELL = InteractiveShell.run_cell_async.__code__


class ReplyGuard:
    """Raise KeyboardInterrupt in code that the kernel calls, but not in the kernel itself. Main thread only.

    Args:
        shell: The shell of a kernel.
        loop: The kernel's loop.
    """

    def __init__(self, shell: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._shell = shell
        self._kernel = shell.kernel
        self._events = shell.events
        self._loop = loop
        self._stock = shell.kernel.pre_handler_hook
        self._stock_set_parent = shell.kernel.set_parent
        self._patches = PatchSet(
            Patch(shell.kernel, "set_parent", self._set_parent),
            Patch(shell.kernel, "pre_handler_hook", self._begin_message),
            patch_run_cell(shell, self._run_cell),
        )
        self._handler = self._on_sigint  # kept, since each access makes a new object and we compare with `is`
        self._task: ref[asyncio.Task[Any]] | None = None
        self._is_beginning = False  # a cell is to be executed, and its code has not begun
        self._is_remembered = False  # an interrupt came during the beginning
        self._is_over = False  # the cell has ended, and its reply is due
        self._begun: WeakSet[asyncio.Future[Any]] = WeakSet()  # tasks in which the code of a cell has begun

    def start(self) -> None:
        """Guard from the next message on."""
        self._patches.install()
        self._events.register("pre_execute", self._begin_callback)
        self._events.register("post_execute", self._end_cell)
        callbacks = self._events.callbacks["post_execute"]
        callbacks.insert(0, callbacks.pop())  # first: the other callbacks are part of the cell's end, too

    def stop(self) -> None:
        """Leave interrupts to the kernel again."""
        self._events.unregister("pre_execute", self._begin_callback)
        self._events.unregister("post_execute", self._end_cell)
        self._patches.restore()
        _replace(self._handler, signal.default_int_handler)

    def is_handling(self, task: asyncio.Task[Any]) -> bool:
        """Return True if *task* is the one in which the kernel handles the newest request."""
        return self._task is not None and self._task() is task

    def forget_request(self) -> None:
        """Make `wait_answered` ignore the request that the kernel handles now."""
        self._task = None

    async def wait_answered(self, timeout: float) -> None:
        """Wait until the request that the kernel handles now is answered, but at most *timeout* seconds.

        Does not wait for requests that come after it. Call in the loop's thread.
        """
        task = None if self._task is None else self._task()
        if task is None:
            return
        deadline = self._loop.time() + timeout
        # ipykernel 7 has a task for each request, and may handle the next one already. ipykernel 6 has one
        # task for all requests, which never ends.
        while not task.done() and is_answering(self._kernel) and self._loop.time() < deadline:  # noqa: ASYNC110  neither sets an event
            await asyncio.sleep(_GLANCE)

    def remember(self, future: asyncio.Future[Any]) -> bool:
        """Remember an interrupt of *future*, an `await` cell's task. Return False if its code has begun.

        Call in the handler of SIGINT.

        Raises:
            RejectedByInterrupt: This is the second, and a callback of the user's hangs.
        """
        if future in self._begun or not self._is_beginning:
            return False
        is_again, self._is_remembered = self._is_remembered, True
        # Raise only in the task's own step: in a frame of the loop, the error would end the kernel.
        if is_again and _running_task() is future:
            frame = inspect.currentframe()
            if not is_all_by(frame, _KERNELS_OR_SHELLS, HANDLE_RUN_CODE, _ATTRIBUTES):
                raise RejectedByInterrupt
        return True

    def begin_code(self, _tree: ast.AST) -> None:
        """Let a cell's code be interrupted from now on. Called by `Rejections` as its last check.

        Raises:
            RejectedByInterrupt: An interrupt has come already.
        """
        if not self._is_beginning or not _is_main_thread():
            return  # a cell inside a cell, or in a subshell
        if not is_called_by(_RUN_CELL):
            return  # `%%aloop` compiles its body while IPython transforms the cell
        try:
            task = _running_task()
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
        """Start guarding a request for a cell. Right after this, the kernel publishes that it is busy."""
        if _is_main_thread() and channel == "shell" and _is_for_cell(parent):
            # Reset only if the kernel was idle. While a cell waits, `set_parent` also puts the cell's request
            # back after a comm message.
            if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, self._handler):
                self._reset(is_for_cell=True)
            _replace(signal.SIG_IGN, self._handler)
        self._stock_set_parent(ident, parent, channel)

    def _begin_message(self) -> None:
        if not _is_main_thread():  # a subshell's, which no signal reaches: the stock hook fails there
            self._stock()
            return
        present = signal.getsignal(signal.SIGINT)
        if present is self._handler:
            present = signal.SIG_IGN  # the handler that ours has replaced
        else:
            self._reset(is_for_cell=_is_for_cell(self._kernel.get_parent("shell")))
        if not keep_for_end_of_message(self._kernel, self._stock, present):
            self._stock()
            _replace(signal.default_int_handler, self._handler)
        else:
            signal.signal(signal.SIGINT, self._handler)
        task = asyncio.current_task()
        self._task = None if task is None else ref(task)

    def _reset(self, *, is_for_cell: bool) -> None:
        self._is_remembered, self._is_over, self._is_beginning = False, False, is_for_cell

    def _begin_callback(self) -> None:
        """Let a comm's callback be interrupted. The package comm fires `pre_execute` for that, too."""
        if not is_called_by(_RUN_CELL):
            self._is_beginning = False
            _replace(self._handler, signal.default_int_handler)

    def _run_cell(self, stock: Callable[..., Any], raw_cell: str, *args: Any, **options: Any) -> Any:
        """Run a cell that does not await. Guard the kernel before IPython fires the events of its end.

        Between the cell and `_end_cell`, for microseconds, Python's default handler is still installed. The
        error that it may raise there becomes the cell's. Otherwise it would reach the kernel, and the
        callbacks of the end would get None instead of a result.
        """
        if not _is_at_kernels_level():  # a cell inside a cell
            return stock(raw_cell, *args, **options)
        earlier = self._shell.last_execution_result
        try:
            try:
                return stock(raw_cell, *args, **options)
            finally:
                self._end_cell()
        except (KeyboardInterrupt, UnboundLocalError) as error:
            # UnboundLocalError comes if a second interrupt hits IPython where it makes a result of the first
            # (9.18).
            self._end_cell()
            interrupt = error if isinstance(error, KeyboardInterrupt) else KeyboardInterrupt()
            return result_of_interrupted(self._shell, raw_cell, earlier, interrupt)

    def _end_cell(self) -> None:
        while True:
            try:
                self._protect()
            except KeyboardInterrupt:  # too late: the cell has ended
                continue
            return

    def _protect(self) -> None:
        # Counting begun and ended cells would be simpler. But a blank cell fires no event of the beginning,
        # and a comm's callback that fails none of the end.
        if _is_at_kernels_level():
            self._is_beginning, self._is_over = False, True
            _replace(signal.default_int_handler, self._handler)

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        # At the beginning and at the end, IPython's code counts as the kernel's. If a callback or transformer
        # of the user's hangs at the beginning, a second interrupt ends it.
        owners = _KERNELS_OR_SHELLS if self._is_beginning or self._is_over else _KERNELS
        is_again, self._is_remembered = self._is_remembered, self._is_remembered or self._is_beginning
        if self._is_remembered and not is_again:
            return
        # If another loop runs, user code runs it. No frame of that code need be on this stack: a nested run
        # on that loop has a stack of its own.
        if running_loop() is not self._loop or not (
            is_all_by(frame, owners, HANDLE_RUN_CODE, _ATTRIBUTES)
            or (self._is_over and _is_kernels_call(frame))
        ):
            if self._is_beginning:  # in a transformer, any other KeyboardInterrupt would cost the reply
                raise RejectedByInterrupt
            signal.default_int_handler(signum, frame)


def _is_at_kernels_level() -> bool:
    """Return True if the caller runs in the main thread, and no code of the user's has called it."""
    return _is_main_thread() and is_all_by(inspect.currentframe(), _KERNELS_OR_SHELLS, until=HANDLE_RUN_CODE)


def _running_task() -> asyncio.Task[Any] | None:
    return asyncio.current_task() if running_loop() is not None else None


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _is_kernels_call(frame: FrameType | None) -> bool:
    """Return True if the kernel, and not IPython, has called what runs in *frame*.

    At the end of a cell that is code of libraries, and the `__str__` of the cell's error.
    """
    for caller in outwards(frame):
        owner = owner_of(caller.f_code.co_filename)
        if owner in {Owner.KERNEL, Owner.SHELL}:
            return owner is Owner.KERNEL
    return False


def _is_for_cell(parent: Any) -> bool:
    """Return True if *parent* is a request to execute a cell."""
    header = parent.get("header") if isinstance(parent, dict) else None
    return isinstance(header, dict) and header.get("msg_type") == "execute_request"


def _replace(present: Any, wanted: Any) -> None:
    if _is_main_thread() and signal.getsignal(signal.SIGINT) is present:
        signal.signal(signal.SIGINT, wanted)
