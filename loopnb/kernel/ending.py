"""End tasks before the kernel closes its channels. Log what is left, and what keeps Python from ending."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import inspect
import threading
import time
from typing import TYPE_CHECKING, Any

from loopnb.kernel._cpython import main_frame
from loopnb.nesting._cpython import running_loop
from loopnb.patching import Patch

if TYPE_CHECKING:
    from loopnb.kernel.replies import ReplyGuard
    from loopnb.kernel.subshells import SubshellLoops
    from loopnb.loop.guard import LoopGuard
    from loopnb.shell.ending import ShellsEnd

#: The loop gets at least so many seconds to turn once. It counts as blocked if it has turned neither by then
#: nor within the grace period.
_TURNS_WITHIN = 1.0
#: Seconds that we wait for the control thread to end.
_CONTROL_ENDS_WITHIN = 2.0
#: Seconds that functions registered with `atexit` may take before we log what Python is waiting for.
_EXIT_ENDS_WITHIN = 1.0


class KernelShutdown:
    """End the tasks when a front end asks for a shutdown, and log what is left when Python ends.

    Call `start` and `stop` in the main thread.

    Args:
        kernel: The kernel.
        loop: Its loop.
        guard: The guard of that loop.
        ends: Ends the tasks, and logs what is left.
        replies: Knows the request that the kernel handles.
        subshells: Ends the threads of subshells.
    """

    def __init__(
        self,
        kernel: Any,
        loop: asyncio.AbstractEventLoop,
        guard: LoopGuard,
        ends: ShellsEnd,
        replies: ReplyGuard,
        subshells: SubshellLoops,
    ) -> None:
        self._kernel = kernel
        self._loop = loop
        self._guard = guard
        self._ends = ends
        self._replies = replies
        self._subshells = subshells
        self._stock_do_shutdown = kernel.do_shutdown
        self._patch = Patch(kernel, "do_shutdown", self._do_shutdown)
        self._was_requested = False

    def start(self) -> None:
        """Take part in the shutdown from now on."""
        self._patch.install()
        atexit.register(self._at_exit)

    def stop(self) -> None:
        """Leave the shutdown to the kernel again."""
        atexit.unregister(self._at_exit)
        self._patch.restore()

    async def _do_shutdown(self, restart: bool) -> Any:
        """End the tasks while all channels still work, then call the stock method.

        ipykernel calls it in the control thread when a front end requests a shutdown. If the loop is blocked,
        nothing can end. We log that, and the kernel ends all the same when the time is up.
        """
        self._was_requested = True
        self._ends.end_widgets(restart=restart)
        if running_loop() is self._loop:
            # An old client sent the request on the shell channel. The shutdown must not wait for its own
            # reply.
            self._replies.forget_request()
        grace = self._ends.grace()
        ending = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._guard.wind_down(), self._loop))
        await asyncio.wait([ending], timeout=max(grace, _TURNS_WITHIN))
        if not self._guard.is_winding_down:
            self._ends.say_blocked()
        # The result is ignored: the kernel ends in any case.
        await asyncio.wait([ending], timeout=grace + _TURNS_WITHIN)
        # Call the stock method in the loop's thread: it schedules the loop's stop by a call that a loop in
        # debug mode refuses in other threads. If the loop is blocked, we give the answer that ipykernel would
        # give.
        answering = asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(self._do_stock_shutdown(restart), self._loop)
        )
        await asyncio.wait([answering], timeout=_TURNS_WITHIN)
        return answering.result() if answering.done() else {"status": "ok", "restart": restart}

    async def _do_stock_shutdown(self, restart: bool) -> Any:
        answer = self._stock_do_shutdown(restart)
        return await answer if inspect.isawaitable(answer) else answer

    def _at_exit(self) -> None:
        """Log what is left, and remove the guard: other `atexit` functions may run the loop, and stop it."""
        self._ends.check()
        self._guard.patches.restore()
        control = getattr(self._kernel, "control_thread", None)
        if self._was_requested and control is not None:
            # After a request the control thread ends by itself. But ipykernel does not wait for that before
            # it closes the sockets that the thread writes to. It waits for the thread afterwards: 10 s, or
            # for ever. With ipykernel 7.4 on a busy machine, 1 shutdown in 10 hung in this way.
            control.join(_CONTROL_ENDS_WITHIN)
        self._subshells.end_threads()


class ExitWatch:
    """Log what keeps Python from ending although everything on the loop has ended.

    Args:
        ends: Writes the log.
    """

    def __init__(self, ends: ShellsEnd) -> None:
        self._ends = ends
        self._exits: threading.Event | None = None

    def begin(self) -> None:
        """Watch the functions registered with `atexit` by now. Python calls ours, the newest, first.

        Start the thread now: Python 3.12 lets no thread start in a function of `atexit`.
        """
        self.cancel()
        exits = threading.Event()
        with contextlib.suppress(RuntimeError):  # there are too many threads, or Python ends already
            threading.Thread(target=self._watch, args=(exits,), name="loopnb exit", daemon=True).start()
            self._exits = exits
            atexit.register(self._start)

    def cancel(self) -> None:
        """Watch no more."""
        atexit.unregister(self._start)
        exits, self._exits = self._exits, None
        if exits is not None:
            exits.set()

    def _start(self) -> None:
        if self._exits is not None:
            self._exits.set()

    def _watch(self, exits: threading.Event) -> None:
        exits.wait()
        if self._exits is exits:
            time.sleep(_EXIT_ENDS_WITHIN)  # Python usually ends before this does, and the thread with it
            self._ends.say_not_ended(main_frame())
