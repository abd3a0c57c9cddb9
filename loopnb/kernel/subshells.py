"""Keep the loops of a kernel's subshells, and of its other threads, turning, whatever a cell does to them.

JupyterLab runs the callbacks of widgets in a subshell. Stopping a subshell's loop kills the subshell. Code
that waits for its answer then waits for ever.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import Context
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from loopnb.kernel._ipykernel import (
    end_shell_channel,
    is_kernel_threads_loop,
    is_shell_channels,
    is_stopped_by_kernel,
    join_subshells,
    patch_aborting,
    subshells,
)
from loopnb.loop.forever import NestedForever
from loopnb.nesting._cpython import loop_classes, running_loop
from loopnb.nesting.no_loop import lifted, loop_here
from loopnb.nesting.scope import engine_for, engine_of
from loopnb.patching import MethodWrapper, PatchSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from loopnb.kernel._ipykernel import Subshell


#: Seconds between two checks that the subshells are done.
_GLANCE = 0.01
#: Seconds that a cell gets to end after we have ended its nested runs. Then its loop stops. When the kernel
#: ends, the threads of subshells get as many to end.
_CELL_ENDS_WITHIN = 1.0
#: Seconds that the cells of all subshells get to end when the kernel ends. Front ends wait that long before
#: they kill a kernel.
_ALL_CELLS_END_WITHIN = 5.0


class SubshellLoops:
    """Wraps `stop()`, `close()` and `run_forever()` of the loops of the kernel's own threads. Any thread.

    Most of these are the loops of subshells.

    Args:
        kernel: The kernel.
        warn: Shows a warning at the user's line.
        tasks_of: Returns the tasks of a loop that are not done, the kernel's own included.
    """

    def __init__(
        self,
        kernel: Any,
        warn: Callable[[str], None],
        tasks_of: Callable[[asyncio.AbstractEventLoop], set[asyncio.Task[Any]]],
    ) -> None:
        self._kernel = kernel
        self._aborting = patch_aborting(kernel)  # installed when the kernel ends
        self._cancelled: list[Subshell] = []
        self._ended: WeakSet[asyncio.Future[Any]] = WeakSet()  # a second cancel would cut a cleanup short
        self._is_ending = False
        self._warn = warn
        self._tasks_of = tasks_of
        self._forever: WeakKeyDictionary[asyncio.AbstractEventLoop, NestedForever] = WeakKeyDictionary()
        self._patches = PatchSet(
            MethodWrapper(asyncio.BaseEventLoop, "stop", self._on_stop),
            MethodWrapper(asyncio.BaseEventLoop, "run_forever", self._on_run_forever),
            *(MethodWrapper(kind, "close", self._on_close) for kind in loop_classes()),
        )

    def start(self) -> None:
        """Guard the loops of subshells from now on."""
        self._patches.install()

    def stop(self) -> None:
        """Let code stop and close these loops again."""
        self._patches.restore()
        if self._aborting is not None:
            self._aborting.restore()

    def _on_stop(self, stop_loop: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        if not is_kernel_threads_loop(loop):
            stop_loop()
        elif is_stopped_by_kernel():
            if is_shell_channels(self._kernel, loop):
                if not self._is_ending:
                    self._is_ending = True
                    loop.create_task(self._stop_after_subshells(stop_loop))
            elif _has_parked(loop):
                self._end_waits(loop)
                loop.create_task(self._stop_after_cell(stop_loop, loop))
            else:
                stop_loop()
        elif running_loop() is loop:
            self._stop_nested(loop)
        else:  # called from another thread: nested runs can be ended only in the loop's own thread
            loop.call_soon_threadsafe(self._stop_nested, loop)

    async def _stop_after_cell(self, stop_loop: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        others = self._tasks_of(loop) - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=_CELL_ENDS_WITHIN)
        stop_loop()

    def _stop_nested(self, loop: asyncio.AbstractEventLoop) -> None:
        engine = engine_of(loop)
        wait = next(reversed(engine.waits), None) if engine is not None else None
        if wait is None:
            self._of(loop).stop_next()
            self._warn(
                "loop.stop() was ignored: this is the loop of one of the kernel's own threads, and it has no "
                "nested run to end. A notebook need not stop its loops."
            )
        elif not self._of(loop).stop(wait.future):
            wait.end(RuntimeError("Event loop stopped before Future completed."))

    def _of(self, loop: asyncio.AbstractEventLoop) -> NestedForever:
        return self._forever.setdefault(loop, NestedForever(loop, _park))

    async def end(self, timeout: float, log: Callable[[str], None]) -> None:
        """Cancel what is parked on these loops, and wait until their cells and callbacks have ended.

        Args:
            timeout: Seconds to wait at most.
            log: Called with a line that names the subshells which are still busy by then.
        """
        parked = self._cancel_parked()
        deadline = asyncio.get_running_loop().time() + timeout
        while busy := [subshell for subshell in parked if _is_busy(subshell)]:
            if asyncio.get_running_loop().time() > deadline:
                names = ", ".join(subshell.name for subshell in busy)
                log(f"what runs in {names} did not end within {timeout:.2g} s of being cancelled")
                return
            await asyncio.sleep(_GLANCE)

    def end_threads(self) -> None:
        """End the threads of subshells, and that of the shell channel. Blocks for some seconds at most.

        ipykernel would end them only after it has closed the channel for output. A cell that still prints
        after that would wait for ever, or abort the process. Call in the main thread when its loop has ended.
        """
        end_shell_channel(self._kernel, _ALL_CELLS_END_WITHIN + 2 * _CELL_ENDS_WITHIN)

    async def _stop_after_subshells(self, stop_loop: Callable[[], None]) -> None:
        """Stop the shell channel's loop when the cells of subshells have ended, and their threads.

        After a request to shut down, ipykernel would stop that loop at once, although it forwards the
        replies.
        """
        self._cancel_parked()
        deadline = time.monotonic() + _ALL_CELLS_END_WITHIN
        while any(map(_is_busy, self._cancelled)) and time.monotonic() < deadline:  # noqa: ASYNC110  subshells set no event
            await asyncio.sleep(_GLANCE)
        await asyncio.sleep(_GLANCE)  # for the last replies
        join_subshells(_CELL_ENDS_WITHIN)
        stop_loop()

    def _cancel_parked(self) -> list[Subshell]:
        """Cancel what is parked on the loops of subshells. Return the subshells that had anything parked."""
        if self._aborting is not None:
            # A cancelled cell fails, perhaps only while its thread is being joined. Stock ipykernel would
            # then deadlock, see `patch_aborting`.
            self._aborting.install()
        parked = [subshell for subshell in subshells() if _has_parked(subshell.loop)]
        self._cancelled += parked
        for subshell in parked:
            subshell.loop.call_soon_threadsafe(self._end_waits, subshell.loop, context=Context())
        return parked

    def _end_waits(self, loop: asyncio.AbstractEventLoop) -> None:
        engine = engine_of(loop)
        for wait in reversed(list(engine.waits) if engine is not None else []):
            if wait.future in self._ended:
                continue
            self._ended.add(wait.future)
            if not self._of(loop).stop(wait.future):
                wait.cancel(None)

    def _on_close(self, close_loop: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        if loop.is_running() and is_kernel_threads_loop(loop):
            self._warn(
                "loop.close() was ignored: this is the loop of one of the kernel's own threads, which needs "
                "it. A notebook need not close its loops."
            )
        else:
            close_loop()

    def _on_run_forever(self, run_loop: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        if loop_here() is loop and is_kernel_threads_loop(loop):
            with lifted():
                self._of(loop).run()
        else:
            run_loop()


def _is_busy(subshell: Subshell) -> bool:
    return subshell.is_busy() or _has_parked(subshell.loop)


def _has_parked(loop: asyncio.AbstractEventLoop) -> bool:
    engine = engine_of(loop)
    return engine is not None and bool(engine.waits)


def _park(future: asyncio.Future[Any]) -> None:
    engine_for(future.get_loop(), "run_forever()").wait(future, owned=True)
