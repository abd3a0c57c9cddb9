"""Keeping the persistent loop open and turning, whatever a cell does to it.

Scripts end with `loop.stop()`, `loop.close()`, signal handlers and a policy of their own. In a
notebook the same lines would end the kernel. Here `stop()` ends the innermost nested run, and
`close()` only warns; the kernel's own stop goes through, and so does everybody's once it ends.
"""

from __future__ import annotations

import asyncio
import signal
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from loopnb.loop.forever import NestedForever
from loopnb.loop.handlers import ExceptionHandlers, SignalHandlers, handler_of
from loopnb.nesting._cpython import running_loop
from loopnb.patching import MethodWrapper, PatchSet

if TYPE_CHECKING:
    from collections.abc import Callable


class Nested(Protocol):
    """A nested run, as much of it as the guard needs."""

    future: Any

    def end(self, error: BaseException) -> None:
        """End it with *error*."""


#: What a handler of SIGTERM does, and the tasks that it spawns: a `stop()` there is meant for the whole.
_on_sigterm: ContextVar[bool] = ContextVar("on_sigterm", default=False)


class LoopGuard:
    """Stands before the methods of the persistent loop that could end it.

    Args:
        loop: The persistent loop.
        is_ending: Says whether the kernel is shutting down.
        wind_down: Ends tasks in order when the kernel stops; its task is awaited before the stop.
        innermost: Returns the wait that a `stop()` ends; None if nothing is nested.
        wait: Parks the calling stack until a future is done.
        warn: Shows a warning at the user's line.
        end_kernel: Shuts the kernel down in order.
        run: Returns the task with whose end the run ends that the caller is part of; None in a cell itself.
        is_background: Says of a task whether another cell than its own executes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        is_ending: Callable[[], bool],
        wind_down: Callable[[], Any],
        innermost: Callable[[], Nested | None],
        wait: Callable[[asyncio.Future[Any]], None],
        warn: Callable[[str], None],
        end_kernel: Callable[[], None],
        run: Callable[[], asyncio.Task[Any] | None],
        is_background: Callable[[asyncio.Task[Any]], bool],
    ) -> None:
        self._loop = loop
        self._is_ending = is_ending
        self._wind_down = wind_down
        self._innermost = innermost
        self._warn = warn
        self._end_kernel = end_kernel
        self._run = run
        self._forever = NestedForever(loop, wait)
        self._winding_down: asyncio.Future[Any] | None = None
        self._signals = SignalHandlers(loop, is_background)
        self._exception_handlers = ExceptionHandlers(loop)
        self.patches = PatchSet(
            MethodWrapper(type(loop), "stop", self.stop, loop),
            MethodWrapper(type(loop), "close", self.close, loop),
            MethodWrapper(type(loop), "run_forever", self.run_forever, loop),
            MethodWrapper(type(loop), "add_signal_handler", self.add_signal_handler, loop),
            MethodWrapper(type(loop), "remove_signal_handler", self.remove_signal_handler, loop),
            self._signals,
            MethodWrapper(type(loop), "set_exception_handler", self.set_exception_handler, loop),
        )

    # Each of these is told first what the loop itself would do.

    def stop(self, stop_loop: Callable[[], None]) -> None:
        """Stop what the caller can have meant: a nested run, else nothing; at the end, the loop."""
        if self._is_ending():
            self._stop_in_order(stop_loop)
            return
        if _on_sigterm.get():
            self._end_kernel()
            return
        wait = self._innermost()
        if wait is None:
            self._forever.stop_next()
            self._warn(
                "loop.stop() was ignored: this is the notebook's loop, and nothing of this cell runs nested "
                "on it. A notebook need not stop its loop."
            )
        elif not self._forever.stop(wait.future):
            wait.end(RuntimeError("Event loop stopped before Future completed."))

    def close(self, close_loop: Callable[[], None]) -> None:
        """Warn that the loop stays open; close it once the kernel has stopped it."""
        if self._is_ending() and not self._loop.is_running():
            close_loop()
        else:
            self._warn(
                "loop.close() was ignored: this is the notebook's loop, and later cells need it. "
                "A notebook need not close its loop."
            )

    def run_forever(self, run_loop: Callable[[], None]) -> None:
        """Run the loop; inside it, wait until `stop()` is called."""
        if running_loop() is self._loop:
            self._forever.run()
        else:
            run_loop()

    def add_signal_handler(
        self, add: Callable[..., None], sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        """Add a handler for as long as the run lasts that adds it; one that a cell itself adds stays."""
        users = (callback, *args)
        if sig == signal.SIGTERM:
            if _is_stop_of(self._loop, callback):
                callback, args = self._end_kernel, ()
            else:
                callback, args = self._terminate, (callback, *args)
        self._signals.add(sig, handler_of(add, sig, users, callback, *args), self._run())

    def remove_signal_handler(self, remove: Callable[[int], bool], sig: int) -> bool:
        """Remove a handler; none that it has replaced comes back."""
        self._signals.forget(sig)
        return remove(sig)

    def set_exception_handler(self, set_handler: Callable[[Any], None], handler: Any) -> None:
        """Set it for as long as the run lasts that sets it; one that a cell itself sets stays."""
        self._exception_handlers.set(set_handler, handler, self._run())

    def after_cell(self) -> None:
        """Forget what the cell that has ended was about to do."""
        self._forever.forget_stop()

    def _terminate(self, callback: Callable[..., object], *args: Any) -> None:
        _on_sigterm.set(True)
        callback(*args)

    async def wind_down(self) -> None:
        """End the user's tasks in order, once; whoever calls again waits for the first."""
        await asyncio.shield(self._begin_to_wind_down())

    def _begin_to_wind_down(self) -> asyncio.Future[Any]:
        if self._winding_down is None:
            self._winding_down = self._loop.create_task(self._wind_down())
            self._forever.stop_all()
        return self._winding_down

    @property
    def is_winding_down(self) -> bool:
        """Whether the end of the tasks has begun: the loop has turned since it was asked for."""
        return self._winding_down is not None

    def _stop_in_order(self, stop_loop: Callable[[], None]) -> None:
        winding_down = self._begin_to_wind_down()
        if winding_down.done():
            stop_loop()
        else:
            winding_down.add_done_callback(lambda _task: stop_loop())


def _is_stop_of(loop: asyncio.AbstractEventLoop, callback: object) -> bool:
    # By name: of uvloop's loops, one that was bound before the guard came is another method.
    return getattr(callback, "__self__", None) is loop and getattr(callback, "__name__", "") == "stop"
