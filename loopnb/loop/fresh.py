"""Run one task on a fresh event loop, and close that loop in order afterwards.

`asyncio.Runner` comes close, but has two faults. An interrupt does not end its wait for a task that swallows
cancellation or, up to Python 3.11, for a busy executor thread. And it does not name the tasks and threads
that it could not end.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from loopnb._cpython import held_finished_tasks, live_tasks, unseen_error
from loopnb.nesting._cpython import silence_destroyed_warning
from loopnb.nesting.fatal import is_fatal
from loopnb.texts import error_text, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

#: Seconds that idle executor threads get to end.
_MOMENT = 0.1


class FreshLoop:
    """A new event loop that runs one task to its end, in the caller's thread.

    Tasks, generators and threads that do not end are named on standard error. No other loop may run in the
    thread meanwhile: the caller sets the running loop aside first.

    Args:
        loop: The loop. This object owns it from now on, and closes it.
        interruptible: Given a future, returns a context manager. Inside it, an interrupt cancels the future.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interruptible: Callable[[asyncio.Future[Any]], AbstractContextManager[None]],
    ) -> None:
        self._loop = loop
        self._interruptible = interruptible
        self._fatal: BaseException | None = None
        # Not the loop's default executor: on Python 3.11 an interrupt does not end asyncio's wait for its
        # threads.
        self._executor = ThreadPoolExecutor(thread_name_prefix="asyncio")

    def run(self, task: asyncio.Task[Any]) -> None:
        """Turn the loop until *task* has ended. Blocks the thread.

        Raises:
            KeyboardInterrupt, SystemExit: Raised in a step of another task, or in a callback.
            KeyboardInterrupt: An interrupt came while a step blocked the loop.
        """
        self._loop.set_default_executor(self._executor)
        with self._interruptible(task):
            self._loop.run_until_complete(self._end_of([task]))

    def close(self, grace: float) -> BaseException | None:
        """End the tasks, then async generators, then the executor; close the loop. Blocks the thread.

        It waits until tasks and generators have ended, or until an interrupt. What has not ended by then is
        named. Threads cannot be cancelled, so it waits for them no longer than *grace*.

        Args:
            grace: Seconds that busy executor threads get to end.

        Returns:
            The KeyboardInterrupt or SystemExit that came meanwhile, or None.
        """
        try:
            self._end_tasks()
            self._end_generators()
            self._end_executor(grace)
            self._say_what_nobody_saw()
        finally:
            self._loop.close()
        return self._fatal

    def _end_tasks(self) -> None:
        # More than once, since a task that cleans up may spawn another.
        while self._fatal is None and (left := self._live()):
            for task in left:
                task.cancel()
            self._wait_for(left)
        for task in self._live():
            silence_destroyed_warning(task)  # we name it ourselves
            say(f"task {task.get_name()!r} of the fresh loop was cancelled and did not end.")

    def _live(self) -> list[asyncio.Task[Any]]:
        # Not `asyncio.all_tasks`: with loopnb it leaves out tasks that look like the kernel's own, and a
        # client of another kernel looks like that.
        return live_tasks(self._loop)

    def _say_what_nobody_saw(self) -> None:
        """Report tasks that failed unseen. asyncio would do that later, in whichever cell runs by then."""
        for task in held_finished_tasks(self._loop):
            error = unseen_error(task)
            if error is not None and not is_fatal(error):
                task.exception()  # marks it as retrieved: asyncio need not report it again
                say(
                    f"task {task.get_name()!r} of the fresh loop failed, and nobody awaited it: "
                    f"{error_text(error)}"
                )

    def _end_generators(self) -> None:
        ending = self._loop.create_task(self._loop.shutdown_asyncgens())
        self._wait_for([ending])
        if not ending.done():
            silence_destroyed_warning(ending)
            say("async generators of the fresh loop did not end.")

    def _end_executor(self, grace: float) -> None:
        ended = self._loop.create_future()

        def set_ended() -> None:
            if not ended.done():
                ended.set_result(None)

        def end() -> None:
            self._executor.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                self._loop.call_soon_threadsafe(set_ended)

        # In a thread, because an interrupt cannot end the wait in `shutdown()`.
        threading.Thread(target=end, name="loopnb-fresh-executor", daemon=True).start()
        timer = self._loop.call_later(_MOMENT if self._fatal else max(grace, _MOMENT), ended.cancel)
        self._wait_for([ended])
        timer.cancel()
        if ended.cancelled() or not ended.done():
            say(
                "a thread of the fresh loop's executor is still working. It goes on, and nobody waits for it."
            )

    def _wait_for(self, futures: Iterable[asyncio.Future[Any]]) -> None:
        """Turn the loop until all *futures* are done or an interrupt comes. Blocks the thread."""
        waiting = self._end_of(futures)
        with contextlib.suppress(asyncio.CancelledError):
            while not waiting.done():
                try:
                    with self._interruptible(waiting):
                        self._loop.run_until_complete(waiting)
                except (KeyboardInterrupt, SystemExit) as error:
                    self._fatal = error
                    if isinstance(error, KeyboardInterrupt):
                        return  # a SystemExit, which a task has raised, does not end the wait for the others
        # Only an interrupt cancels this future.
        if waiting.cancelled() and self._fatal is None:
            self._fatal = KeyboardInterrupt()

    def _end_of(self, futures: Iterable[asyncio.Future[Any]]) -> asyncio.Future[None]:
        """Return a future that is done when all *futures* are.

        Not `asyncio.wait`: it needs a task to run in, and user code that lists tasks would see that task.
        """
        pending = set(futures)
        ended = self._loop.create_future()

        def note(future: asyncio.Future[Any]) -> None:
            pending.discard(future)
            if not pending and not ended.done():
                ended.set_result(None)

        for future in list(pending):
            future.add_done_callback(note)
        return ended
