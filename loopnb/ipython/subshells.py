"""Keeping the loops of a kernel's subshells turning, whatever a cell does to the one it runs on.

JupyterLab runs the callbacks of widgets in a subshell. Once its loop has been stopped, that is gone,
and whatever waits for an answer of it waits for ever.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from loopnb.internals.asyncio_state import running_loop
from loopnb.internals.kernel import is_stopped_by_kernel, loop_of_kernel_thread
from loopnb.internals.layers import MethodLayer
from loopnb.internals.patching import PatchSet
from loopnb.internals.runners import loop_classes
from loopnb.loop.forever import NestedForever
from loopnb.nesting.scope import engine_for, engine_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from loopnb.nesting.handoff import Handoff


#: Seconds that a cell has to end in whose `run_forever()` has been ended, before its loop stops.
_CELL_ENDS_WITHIN = 1.0


class SubshellLoops:
    """Stands before `stop()`, `close()` and `run_forever()` of the loops of subshells.

    Args:
        warn: Shows a warning at the user's line.
        tasks_of: Returns the tasks of a loop that are not done, the kernel's own, too.
    """

    def __init__(
        self,
        warn: Callable[[str], None],
        tasks_of: Callable[[asyncio.AbstractEventLoop], set[asyncio.Task[Any]]],
    ) -> None:
        self._warn = warn
        self._tasks_of = tasks_of
        self._forever: WeakKeyDictionary[asyncio.AbstractEventLoop, NestedForever] = WeakKeyDictionary()
        self.patches = PatchSet(
            MethodLayer(asyncio.BaseEventLoop, "stop", self._stop),
            MethodLayer(asyncio.BaseEventLoop, "run_forever", self._run_forever),
            *(MethodLayer(kind, "close", self._close) for kind in loop_classes()),
        )

    def _stop(self, stop_loop: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        if not _is_subshells(loop):
            stop_loop()
            return
        forever = self._forever.get(loop)
        if is_stopped_by_kernel():
            if forever is not None and forever.stop_all():
                loop.create_task(self._stop_after_cell(stop_loop, loop))
            else:
                stop_loop()
        elif forever is None or not forever.stop_innermost():
            self._stop_nested(engine_of(loop))

    async def _stop_after_cell(self, stop_loop: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        others = self._tasks_of(loop) - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=_CELL_ENDS_WITHIN)
        stop_loop()

    def _stop_nested(self, engine: Handoff | None) -> None:
        wait = next(reversed(engine.waits), None) if engine is not None else None
        if wait is not None:
            wait.end(RuntimeError("Event loop stopped before Future completed."))
            return
        self._warn(
            "loop.stop() was ignored: this is the loop of a kernel subshell, and nothing nested runs on it. "
            "A notebook need not stop its loops."
        )

    def _close(self, close_loop: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        if _is_subshells(loop):
            self._warn(
                "loop.close() was ignored: this is the loop of a kernel subshell, and later cells need it. "
                "A notebook need not close its loops."
            )
        else:
            close_loop()

    def _run_forever(self, run_loop: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        if not _is_subshells(loop):
            run_loop()
            return
        if loop not in self._forever:
            self._forever[loop] = NestedForever(loop, _wait)
        self._forever[loop].run()


def _is_subshells(loop: asyncio.AbstractEventLoop) -> bool:
    return running_loop() is loop and loop_of_kernel_thread() is loop


def _wait(future: asyncio.Future[Any]) -> None:
    engine_for(future.get_loop(), "run_forever()").wait(future, owned=True)
