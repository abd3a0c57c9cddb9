"""Keep the persistent loop open and turning, whatever a cell does to it.

Scripts end with `loop.stop()` and `loop.close()`, and set handlers of their own. In a notebook the same lines
would end the kernel, or leave the handlers to all later cells. Here `stop()` ends the innermost nested run,
`close()` only warns, and a handler is removed when the run that set it ends. Only the kernel itself, and a
program that embeds it, can stop the loop. Once the kernel is ending, anybody can.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol

from loopnb.loop.forever import NestedForever, is_tornados_start
from loopnb.loop.handlers import ExceptionHandlers
from loopnb.loop.signals import SignalHost, Signals, is_handling_sigterm
from loopnb.nesting.no_loop import lifted, loop_here
from loopnb.patching import MethodWrapper, PatchSet

if TYPE_CHECKING:
    from collections.abc import Callable


class Nested(Protocol):
    """The part of a nested run that the guard needs."""

    future: Any

    def end(self, error: BaseException) -> None:
        """End it with *error*."""


class Host(SignalHost, Protocol):
    """What the guard needs from the kernel or terminal whose loop it guards. Called in the loop's thread."""

    def is_ending(self) -> bool:
        """Return True if the host is shutting down: code may then stop and close the loop."""

    async def wind_down(self) -> None:
        """End the user's tasks in order. The loop stops after this."""

    def warn(self, text: str) -> None:
        """Show a warning at the user's line."""

    def innermost_run(self) -> Nested | None:
        """Return the nested run that a `stop()` of the caller ends; None if there is none."""

    def park(self, future: asyncio.Future[Any]) -> None:
        """Park the calling stack until *future* is done."""

    def is_own_stop(self) -> bool:
        """Return True if `stop()` is being called by the host itself, not by user code."""

    def is_programs_stop(self) -> bool:
        """Return True if `stop()` is being called by a program that the host is embedded in. Any thread."""

    def begin_again(self) -> None:
        """Prepare for the loop to run again, after everything on it has ended. Outside the loop."""


class LoopGuard:
    """Wrap the methods of the persistent loop that could end it. Call in the loop's thread.

    Args:
        loop: The persistent loop.
        host: The kernel or terminal that the loop belongs to.

    Attributes:
        patches: The wrappers, to be installed and restored.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, host: Host) -> None:
        self._loop = loop
        self._host = host
        self._forever = NestedForever(loop, host.park)
        self._winding_down: asyncio.Future[Any] | None = None
        self._signals = Signals(loop, host)
        self._exceptions = ExceptionHandlers(loop)
        self.patches = PatchSet(
            MethodWrapper(type(loop), "stop", self.stop, loop),
            MethodWrapper(type(loop), "close", self.close, loop),
            MethodWrapper(type(loop), "run_forever", self.run_forever, loop),
            self._signals,
            MethodWrapper(type(loop), "set_exception_handler", self.set_exception_handler, loop),
        )

    # The first argument of each wrapper is the loop's own method.

    def stop(self, stop_loop: Callable[[], None]) -> None:
        """End the innermost nested run, or warn if there is none. Stop the loop only at the host's end.

        A call in a handler of SIGTERM, or by a program that the host is embedded in, begins that end.
        """
        if self._host.is_own_stop():
            stop_loop()
            return
        if self._host.is_ending():
            self._stop_in_order(stop_loop)
            return
        if is_handling_sigterm():  # the handler means the kernel or terminal
            self._host.end()
            return
        if self._host.is_programs_stop():
            self._loop.call_soon_threadsafe(self._host.end, context=Context())
            return
        run = self._host.innermost_run()
        if run is None:
            self._forever.stop_next()
            self._host.warn(
                "loop.stop() was ignored: this is the notebook's loop, and this cell has no nested run that "
                "it could end. A notebook need not stop its loop."
            )
        elif not self._forever.stop(run.future):
            run.end(RuntimeError("Event loop stopped before Future completed."))

    def close(self, close_loop: Callable[[], None]) -> None:
        """Warn that the loop stays open. Close it only if the host has stopped it at its end."""
        if self._host.is_ending() and not self._loop.is_running():
            close_loop()
        else:
            self._host.warn(
                "loop.close() was ignored: this is the notebook's loop, and later cells need it. "
                "A notebook need not close its loop."
            )

    def run_forever(self, run_loop: Callable[[], None]) -> None:
        """Run the loop, or wait for `stop()` if it runs here. Tornado's own call fails, as without loopnb."""
        if loop_here() is self._loop and not is_tornados_start():
            with lifted():
                self._forever.run()
            return
        if self._winding_down is not None and self._winding_down.done() and not self._host.is_ending():
            self._winding_down = None  # a program starts its kernel again
            self._host.begin_again()
        run_loop()

    def set_exception_handler(self, set_handler: Callable[[Any], None], handler: Any) -> None:
        """Set a handler until the caller's run ends. Outside of any run, the handler stays."""
        self._exceptions.set(set_handler, handler, self._host.run_of_caller())

    def after_cell(self) -> None:
        """Forget a pending `stop()` of the cell that has ended, and put the signal handlers in order.

        Its handlers of SIGINT are removed. Others come back if another loop has removed them.
        """
        self._forever.forget_stop()
        self._signals.end_of_cell()

    async def wind_down(self) -> None:
        """End the user's tasks in order, once. Further calls wait for the first to end."""
        await asyncio.shield(self._begin_to_wind_down())

    def _begin_to_wind_down(self) -> asyncio.Future[Any]:
        if self._winding_down is None:
            self._winding_down = self._loop.create_task(self._host.wind_down())
            self._forever.stop_all()
        return self._winding_down

    @property
    def is_winding_down(self) -> bool:
        """True as soon as winding down has begun. Any thread."""
        return self._winding_down is not None

    def _stop_in_order(self, stop_loop: Callable[[], None]) -> None:
        winding_down = self._begin_to_wind_down()
        if winding_down.done():
            stop_loop()
        else:
            winding_down.add_done_callback(lambda _task: stop_loop())
