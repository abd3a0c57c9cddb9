"""Ending everything on the loop in order before the kernel ends, and naming what could not end.

A Jupyter front end gives a kernel 5 s to end in after its request. It sends SIGTERM after half of
them and SIGKILL at the end. So everything here takes at most twice the grace, and a SIGTERM meanwhile
does not cut it short.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import signal
import threading
from typing import TYPE_CHECKING, Any, Protocol

from loopnb.loop._cpython import busy_threads, default_executor, open_generators
from loopnb.nesting._cpython import silence_destroyed_warning
from loopnb.texts import error_text, repr_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable
    from types import FrameType

    Tasks = Iterable[asyncio.Task[Any]]


#: Seconds between two looks at the threads.
_GLANCE = 0.02


class Ending(Protocol):
    """Knows what has to end with a loop. The loop's thread."""

    def live(self) -> Tasks:
        """Return the tasks that are to end and have not ended yet."""

    def is_ending(self, task: asyncio.Task[Any]) -> bool:
        """Return True if *task* was cancelled a moment ago: a second cancel would cut its cleanup short."""

    def grace(self) -> float:
        """Return the seconds that the tasks have, and after them all the rest together. 0 does not wait."""

    def describe(self, task: asyncio.Task[Any]) -> str:
        """Name *task* and its cell, and say where it waits."""

    def describe_thread(self, thread: threading.Thread, frame: FrameType) -> str:
        """Say what *thread*, whose innermost frame is *frame*, is busy with."""

    def place(self, frame: FrameType) -> str:
        """Return what to call the line that *frame* is at."""

    def release(self) -> None:
        """Release the threads that wait for the loop."""

    def log(self, line: str) -> None:
        """Write *line* where people look after the end. Any thread."""


class OrderlyEnd:
    """Ends the tasks, then async generators, clients and the default executor's threads. Once.

    The loop's thread. Nothing here raises for what the user's code does.

    Args:
        ending: Knows what has to end.
    """

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._cancelled: set[asyncio.Task[Any]] = set()  # held: their failures are still to be said
        self._named: set[asyncio.Task[Any]] = set()
        self._sigterm = SigtermShield()

    async def wind_down(self) -> None:
        """End them all, in order and in time, and name in the log what could not end."""
        self._sigterm.raise_()
        loop = asyncio.get_running_loop()
        grace = self._ending.grace()
        await self._end_tasks(grace)
        deadline = loop.time() + grace
        for end in (self._end_tasks, self._end_generators, self._close_clients, self._end_threads):
            try:
                await end(max(0.0, deadline - loop.time()))
            except Exception as error:  # noqa: BLE001  a user's object raised it: the others must end, too
                self._ending.log(f"not all could be ended: {error_text(error)}")

    def check(self) -> None:
        """Name the tasks that are left when Python ends and were not named before. Outside the loop."""
        for task in self._ending.live():
            if task not in self._named:
                self._name(task, "was still there when Python ended")

    def lower_shield(self) -> None:
        """Let SIGTERM end the process again."""
        self._sigterm.lower()

    async def _end_tasks(self, timeout: float) -> None:
        """Cancel the tasks. A second call cancels those that a `finally` has spawned meanwhile."""
        tasks = set(self._ending.live()) - self._cancelled - {asyncio.current_task()}
        if not tasks:
            return
        self._cancelled |= tasks
        for task in tasks:
            if not self._ending.is_ending(task):
                task.cancel()
        for task in (await asyncio.wait(tasks, timeout=timeout))[1]:
            self._name(task, f"did not end within {timeout:.2g} s of being cancelled")

    def _name(self, task: asyncio.Task[Any], fate: str) -> None:
        self._named.add(task)
        silence_destroyed_warning(task)
        self._ending.log(f"{self._ending.describe(task)}, {fate}")

    async def _end_generators(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        generators = open_generators(loop)
        if generators is None:
            await self._end_each([("async generators", loop.shutdown_asyncgens())], timeout)
            return
        endings: list[tuple[str, Awaitable[Any]]] = []
        for one in generators:
            where = f"at {self._ending.place(one.ag_frame)}" if one.ag_frame is not None else ""
            endings.append((f"async generator {one.__qualname__}() {where}", one.aclose()))
        await self._end_each(endings, timeout)

    async def _close_clients(self, timeout: float) -> None:
        clients = open_clients(asyncio.get_running_loop())
        await self._end_each([(f"open {repr_text(one, 100)}", closing) for one, closing in clients], timeout)

    async def _end_each(self, endings: list[tuple[str, Awaitable[Any]]], timeout: float) -> None:
        tasks = {asyncio.create_task(_awaiting(ending)): what for what, ending in endings}
        if not tasks:
            return
        for task in (await asyncio.wait(tasks, timeout=timeout))[1]:
            silence_destroyed_warning(task)
            task.cancel()
            self._ending.log(f"{tasks[task]} did not end within {timeout:.2g} s")
        for task, what in tasks.items():
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                self._ending.log(f"{what} did not end in order: {error_text(error)}")

    async def _end_threads(self, timeout: float) -> None:
        """Wait for threads as Python will do, and name those that are still busy.

        `shutdown_default_executor()` would not do: on 3.11 it blocks the loop when its time is up, and it
        knows of no other threads.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        self._ending.release()
        executor = default_executor(loop)
        if executor is not None:
            executor.shutdown(wait=False)
        while loop.time() < deadline and any(busy_threads(executor)):  # noqa: ASYNC110  threads set no event when they end
            await asyncio.sleep(_GLANCE)
        for thread, frame in busy_threads(executor):
            self.lower_shield()  # a Python that waits for a thread can only be ended by a signal
            self._ending.log(
                f"{self._ending.describe_thread(thread, frame)}, and Python waits for it before it ends"
            )


class SigtermShield:
    """Has SIGTERM do nothing where it would end the process at once, while that ends in order."""

    def raise_(self) -> None:
        """Do nothing on SIGTERM from now on, unless the user has a handler. The main thread."""
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            # Not SIG_IGN: programs that are started from here on would inherit that.
            signal.signal(signal.SIGTERM, _do_nothing)

    def lower(self) -> None:
        """Let SIGTERM end the process again."""
        if signal.getsignal(signal.SIGTERM) is _do_nothing:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _do_nothing(_signum: int, _frame: object) -> None:
    pass


async def _awaiting(ending: Awaitable[Any]) -> None:
    await ending


def open_clients(loop: asyncio.AbstractEventLoop) -> list[tuple[Any, Coroutine[Any, Any, Any]]]:
    """Return the objects of *loop* that only `await` can close, with the coroutine that closes each.

    The wish. A client that a notebook leaves open, such as an aiohttp session, is closed when the
    kernel ends. Its finalizer cannot do it: the loop has gone by then, so all it can do is to complain
    ("Unclosed client session").

    What is done. asyncio ends async generators before the loop stops, and so are these objects here:
    whatever refers to the loop, has a finalizer, and has a coroutine function for its `aclose()` or
    `close()`. No list of libraries is needed.

    What it cannot do. Objects without a finalizer are left alone: they do not complain. So are objects
    that do not refer to the loop themselves.

    It looks at every object that Python knows: some 0.2 s for each million of them.
    """
    closers: dict[type, Callable[[Any], Coroutine[Any, Any, Any]] | None] = {}
    found = []
    for one in gc.get_objects():
        kind = type(one)
        if kind not in closers:
            closers[kind] = _closer(kind)
        close = closers[kind]
        if close is not None and any(value is loop for value in _attributes(one)):
            found.append((one, close(one)))
    return found


def _closer(kind: type) -> Callable[[Any], Coroutine[Any, Any, Any]] | None:
    # Looked up statically: a look must not run the user's code.
    if _static(kind, "__del__") is None:
        return None
    methods = (_static(kind, name) for name in ("aclose", "close"))
    return next((method for method in methods if inspect.iscoroutinefunction(method)), None)


def _static(kind: type, name: str) -> Any:
    return next((vars(owner)[name] for owner in kind.__mro__ if name in vars(owner)), None)


def _attributes(one: object) -> list[Any]:
    try:
        return list(object.__getattribute__(one, "__dict__").values())
    except AttributeError:  # it has slots only
        return []
