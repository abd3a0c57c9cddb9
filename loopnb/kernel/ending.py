"""The kernel's end: tasks end before its channels close, and what is left is named."""

from __future__ import annotations

import asyncio
import atexit
import inspect
from typing import TYPE_CHECKING, Any

from loopnb.patching import Patch

if TYPE_CHECKING:
    from loopnb.loop.guard import LoopGuard
    from loopnb.session import Session
    from loopnb.shell.ending import ShellsEnd


#: Seconds that the control thread has to end in.
_CONTROL_ENDS_WITHIN = 2.0


class FinalCheck:
    """Looks, when Python ends, at what is left, and lets go of the loop: there is nothing to guard.

    Args:
        kernel: The kernel.
        ending: Names what is left.
        guard: The guard of the loop; other `atexit` functions may have to run and stop it.
    """

    def __init__(self, kernel: Any, ending: ShellsEnd, guard: LoopGuard) -> None:
        self._kernel = kernel
        self._ending = ending
        self._guard = guard

    def start(self) -> None:
        """Have it done."""
        atexit.register(self._check)

    def stop(self) -> None:
        """Have it done no more."""
        atexit.unregister(self._check)

    def _check(self) -> None:
        self._ending.check()
        self._guard.patches.restore()
        control = getattr(self._kernel, "control_thread", None)
        if self._ending.was_requested and control is not None:
            # It ends by itself after the request. ipykernel closes what it writes to without waiting
            # for that, and then waits for it: for 10 s, or for ever (7.4; 1 in 10 on a busy machine).
            control.join(_CONTROL_ENDS_WITHIN)


#: Seconds in which the loop must have turned once; else something blocks it.
_TURNS_WITHIN = 1.0


def patch_do_shutdown(kernel: Any, session: Session, guard: LoopGuard, end: ShellsEnd) -> Patch:
    """Return the patch for a `Kernel.do_shutdown` that first ends the tasks: all channels still work.

    It is called in the control thread. A loop that is blocked cannot end anything; that is said, and
    the kernel goes all the same when the time is up.
    """
    stock = kernel.do_shutdown

    async def do_shutdown(restart: bool) -> Any:
        end.was_requested = True
        grace = float(session.settings.shutdown_grace)
        ending = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(guard.wind_down(), session.loop))
        await asyncio.wait([ending], timeout=max(grace, _TURNS_WITHIN))
        if not guard.is_winding_down:
            end.say_blocked()
        # Whatever comes out of it, the kernel ends.
        await asyncio.wait([ending], timeout=grace + _TURNS_WITHIN)
        answer = stock(restart)
        return await answer if inspect.isawaitable(answer) else answer

    return Patch(kernel, "do_shutdown", do_shutdown)
