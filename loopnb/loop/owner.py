"""Know the one loop on which a notebook's code runs, and get work onto it from each thread."""

from __future__ import annotations

import threading
from concurrent.futures import Future as ThreadFuture
from typing import TYPE_CHECKING, Any, TypeVar

from loopnb.nesting.no_loop import loop_here

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

T = TypeVar("T")


class LoopOwner:
    """Knows the persistent loop and the thread that turns it.

    Args:
        loop: The kernel's loop, or in a terminal the loop that IPython awaits on. Make the object in the
            loop's thread.
        generation: Which of this shell's loops it is. The first is 1.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, generation: int = 1) -> None:
        self.loop = loop
        self.generation = generation
        self._thread_id = threading.get_ident()
        self._owed: set[ThreadFuture[Any]] = set()
        self._has_ended = False

    def is_inside(self) -> bool:
        """Return True if the caller runs inside the loop: in a cell of a kernel, a task, a callback.

        True in `loopnb.noloop()` as well, although the loop is hidden there.
        """
        return loop_here() is self.loop

    def is_home(self) -> bool:
        """Return True if the caller is in the loop's own thread, whether the loop turns or not."""
        return threading.get_ident() == self._thread_id

    def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Call *fn* in the loop's thread and return what it returns.

        Any thread. Outside the loop's own thread it blocks until the loop has called *fn*.

        Raises:
            concurrent.futures.CancelledError: The loop will not turn again (see `end`).
            RuntimeError: The loop is closed, and the caller is not in its thread.
            BaseException: What *fn* raises.
        """
        if self.is_home():
            return fn(*args)
        answer: ThreadFuture[T] = ThreadFuture()

        def answer_it() -> None:
            if not answer.set_running_or_notify_cancel():
                return  # `end` was called meanwhile
            try:
                answer.set_result(fn(*args))
            except BaseException as error:  # noqa: BLE001  raised in the caller's thread
                answer.set_exception(error)

        self.owe(answer)
        self.loop.call_soon_threadsafe(answer_it)
        return answer.result()

    def owe(self, answer: ThreadFuture[Any]) -> None:
        """Note that a thread waits for *answer*, so that `end` can release it. Any thread."""
        self._owed.add(answer)
        answer.add_done_callback(self._owed.discard)
        if self._has_ended:
            answer.cancel()

    def end(self) -> None:
        """Raise CancelledError in the threads that wait for the loop, now or later: it will not turn again.

        That is the CancelledError of `concurrent.futures`.
        Otherwise these threads would wait for ever, and Python would wait for them when it ends.
        """
        self._has_ended = True
        for answer in list(self._owed):
            answer.cancel()

    def begin_again(self) -> None:
        """Let threads wait for the loop again: a program runs it once more after its end."""
        self._has_ended = False
