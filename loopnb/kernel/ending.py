"""The kernel's end: tasks end before its channels close, and what is left is named."""

from __future__ import annotations

import asyncio
import atexit
import inspect
from typing import TYPE_CHECKING, Any

from loopnb.nesting._cpython import running_loop
from loopnb.patching import Patch

if TYPE_CHECKING:
    from loopnb.kernel.replies import ReplyGuard
    from loopnb.loop.guard import LoopGuard
    from loopnb.shell.ending import ShellsEnd

#: Seconds in which the loop must have turned once, or else something blocks it.
_TURNS_WITHIN = 1.0
#: Seconds that the control thread has to end in.
_CONTROL_ENDS_WITHIN = 2.0


class KernelShutdown:
    """Ends the tasks when a front end asks for the kernel's end, and names what is left when Python ends.

    Args:
        kernel: The kernel.
        loop: Its loop.
        guard: The guard of that loop.
        ends: Ends the tasks, and names what is left.
        replies: Knows the request that the kernel handles.
    """

    def __init__(
        self,
        kernel: Any,
        loop: asyncio.AbstractEventLoop,
        guard: LoopGuard,
        ends: ShellsEnd,
        replies: ReplyGuard,
    ) -> None:
        self._kernel = kernel
        self._loop = loop
        self._guard = guard
        self._ends = ends
        self._replies = replies
        self._stock_do_shutdown = kernel.do_shutdown
        self._patch = Patch(kernel, "do_shutdown", self._do_shutdown)
        self._was_requested = False

    def start(self) -> None:
        """Do so from now on."""
        self._patch.install()
        atexit.register(self._at_exit)

    def stop(self) -> None:
        """Leave the kernel's end to the kernel."""
        atexit.unregister(self._at_exit)
        self._patch.restore()

    async def _do_shutdown(self, restart: bool) -> Any:
        """End the tasks while all channels still work, then do what the kernel does.

        ipykernel calls it in the control thread, on a request of a front end. A blocked loop can end
        nothing. That is said, and the kernel ends all the same when the time is up.
        """
        self._was_requested = True
        if running_loop() is self._loop:
            # An old client has sent the request on the shell channel. It must not wait for its own reply.
            self._replies.forget_request()
        grace = self._ends.grace()
        ending = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._guard.wind_down(), self._loop))
        await asyncio.wait([ending], timeout=max(grace, _TURNS_WITHIN))
        if not self._guard.is_winding_down:
            self._ends.say_blocked()
        # Nobody looks at its result: whatever it is, the kernel ends.
        await asyncio.wait([ending], timeout=grace + _TURNS_WITHIN)
        # In the loop's thread: the kernel's own code schedules the stop by a call that a loop in debug mode
        # refuses in others. The answer is what ipykernel's own would be, should the loop be blocked.
        answering = asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(self._do_stock_shutdown(restart), self._loop)
        )
        await asyncio.wait([answering], timeout=_TURNS_WITHIN)
        return answering.result() if answering.done() else {"status": "ok", "restart": restart}

    async def _do_stock_shutdown(self, restart: bool) -> Any:
        answer = self._stock_do_shutdown(restart)
        return await answer if inspect.isawaitable(answer) else answer

    def _at_exit(self) -> None:
        """Name what is left, and let go of the loop: other `atexit` functions may run and stop it."""
        self._ends.check()
        self._guard.patches.restore()
        control = getattr(self._kernel, "control_thread", None)
        if self._was_requested and control is not None:
            # The control thread ends by itself after a request. But ipykernel closes the sockets that
            # the thread writes to without waiting for that, and then waits for the thread: for 10 s, or
            # for ever (7.4; 1 in 10 on a busy machine).
            control.join(_CONTROL_ENDS_WITHIN)
