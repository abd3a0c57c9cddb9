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
from collections import deque
from types import (
    AsyncGeneratorType,
    CellType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
)
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
#: So many attributes and containers in a row lead from a client to what it will close itself.
_CLIENTS_REACH = 4
#: So many lead from a coroutine to an async generator that it has entered by an AsyncExitStack.
_TASKS_REACH = 8
_SUSPENDED = (CoroutineType, GeneratorType, AsyncGeneratorType)
#: Types of what awaits a step of an async generator. Python has no other names for them.
_STEPS = {"async_generator_asend", "async_generator_athrow", "anext_awaitable", "coroutine_wrapper"}
#: Items of a container that are looked at.
_ITEMS = 1_000
#: Nobody looks further from more objects than these, which takes some 50 ms.
_MOST = 100_000


class Ending(Protocol):
    """Knows what has to end with a loop. The loop's thread."""

    def live(self) -> Tasks:
        """Return the tasks that are to end and have not ended yet."""

    def owners(self, tasks: set[asyncio.Task[Any]]) -> dict[asyncio.Task[Any], set[asyncio.Task[Any]]]:
        """Return which of *tasks* have spawned another of them, or hold it in a TaskGroup; by that other."""

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
        # When each was cancelled, in the loop's time. Held: their failures are still to be said.
        self._cancelled: dict[asyncio.Task[Any], float] = {}
        self._named: set[asyncio.Task[Any]] = set()
        self._closed: dict[int, AsyncGeneratorType[Any, Any]] = {}
        self._sigterm = SigtermShield()

    async def wind_down(self) -> None:
        """End them all, in order and in time, and name in the log what could not end."""
        self._sigterm.raise_()
        loop = asyncio.get_running_loop()
        grace = self._ending.grace()
        idle = self._idle_generators(loop)
        await asyncio.gather(self._end_tasks(grace), self._close_generators(idle, grace))
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
        """Cancel the tasks. A second call cancels those that a `finally` has spawned meanwhile.

        Outermost first: the `finally` of a task may need the tasks that it has spawned, and a TaskGroup
        cancels its children itself. All at once, they would be cancelled a second time, in their `finally`.
        So what is below a task is cancelled when that has ended, or half of the time is over.
        """
        loop = asyncio.get_running_loop()
        live = set(self._ending.live()) - self._cancelled.keys() - {asyncio.current_task()}
        owners, due = self._ending.owners(live), set(live)
        now = loop.time()
        halfway, end = now + timeout / 2, now + timeout
        while live:
            is_halfway = now >= halfway
            ready = {one for one in due if is_halfway or owners.get(one, set()).isdisjoint(live)}
            ready = ready or (due if due == live else set())  # each has an owner: they own one another
            self._cancel(ready, now)
            due -= ready
            if not due:
                break
            ended = await asyncio.wait(
                live, timeout=max(0.0, halfway - loop.time()), return_when=asyncio.FIRST_COMPLETED
            )
            live, due, now = ended[1], due & ended[1], loop.time()
        if live:
            live = (await asyncio.wait(live, timeout=max(0.0, end - loop.time())))[1]
        for task in live:
            had = end - self._cancelled[task]
            self._name(task, f"did not end within {had:.2g} s of being cancelled")

    def _cancel(self, tasks: set[asyncio.Task[Any]], now: float) -> None:
        for task in tasks:
            self._cancelled[task] = now
            if not self._ending.is_ending(task):
                task.cancel()

    def _name(self, task: asyncio.Task[Any], fate: str) -> None:
        self._named.add(task)
        silence_destroyed_warning(task)
        self._ending.log(f"{self._ending.describe(task)}, {fate}")

    async def _end_generators(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        if open_generators(loop) is None:
            await self._end_each([("async generators", loop.shutdown_asyncgens())], timeout)
            return
        deadline = loop.time() + timeout
        while generators := self._generators_to_close(loop):  # closed, one may leave what it has used
            left = max(0.0, deadline - loop.time())
            await self._close_generators(_outermost(generators) or generators, left)

    def _idle_generators(self, loop: asyncio.AbstractEventLoop) -> list[AsyncGeneratorType[Any, Any]]:
        """Return the outermost async generators that no task uses: nobody else will end them.

        What a task has entered it will leave itself, in its own order. They are looked at before the tasks
        are cancelled.
        """
        generators = self._generators_to_close(loop)
        if not generators:
            return []
        chains = [_awaiting_in(task.get_coro()) for task in self._ending.live()]
        if any(chain is None for chain in chains):
            return []
        used = _reached_from([one for chain in chains for one in chain or ()], _TASKS_REACH)
        if len(used) > _MOST:
            return []
        return [one for one in _outermost(generators) if id(one) not in used and not one.ag_running]

    def _generators_to_close(self, loop: asyncio.AbstractEventLoop) -> list[AsyncGeneratorType[Any, Any]]:
        return [one for one in open_generators(loop) or () if id(one) not in self._closed]

    async def _close_generators(self, generators: list[AsyncGeneratorType[Any, Any]], timeout: float) -> None:
        endings: list[tuple[str, Awaitable[Any]]] = []
        for one in generators:
            where = f"at {self._ending.place(one.ag_frame)}" if one.ag_frame is not None else ""
            self._closed[id(one)] = one
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
    whatever has a finalizer and a coroutine function for its `aclose()` or `close()`, and refers to the loop
    or, if to no loop at all, to a thread that Python would wait for. No list of libraries is needed. What
    such an object refers to is its own to close: a session closes its connector, and that its resolver.

    What it cannot do. Objects without a finalizer are left alone: they do not complain. So are objects
    that do not refer to the loop themselves.

    It looks at every object that Python knows: some 0.2 s for each million of them.
    """
    closers: dict[type, Callable[[Any], Coroutine[Any, Any, Any]] | None] = {}
    threads = {id(one) for one in threading.enumerate() if not one.daemon} - {id(threading.main_thread())}
    found = []
    for one in gc.get_objects():
        kind = type(one)
        if kind not in closers:
            closers[kind] = _closer(kind)
        if closers[kind] is not None and _is_on(loop, threads, [one, *_attributes(one)]):
            found.append(one)
    below = {id(one): _reached_from([one], _CLIENTS_REACH) for one in found}
    held = {held for one in found for held in below[id(one)] & below.keys() if id(one) not in below[held]}
    closing = [(one, closers[type(one)]) for one in found if id(one) not in held]
    return [(one, close(one)) for one, close in closing if close is not None]


def _is_on(loop: asyncio.AbstractEventLoop, threads: set[int], values: list[Any]) -> bool:
    loops = [value for value in values if issubclass(type(value), asyncio.AbstractEventLoop)]
    return loop in loops if loops else any(id(value) in threads for value in values)


def _awaiting_in(coro: Any) -> list[Any] | None:
    """Return *coro*, what it awaits, what that awaits, and so on; None if that cannot be known.

    The frame of a parked task counts as executing, and does not tell what it has entered.
    """
    found = []
    while type(coro) in _SUSPENDED:
        if getattr(coro, "cr_running", False) or getattr(coro, "gi_running", False):
            return None
        found.append(coro)
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None)
    return [*found, coro]


def _outermost(generators: list[AsyncGeneratorType[Any, Any]]) -> list[AsyncGeneratorType[Any, Any]]:
    """Return those of *generators* that none of the others has entered."""
    below = {id(one): _reached_from([one], _TASKS_REACH) for one in generators}
    used = {id(one) for one in generators for other in below if other != id(one) and id(one) in below[other]}
    return [one for one in generators if id(one) not in used]


def _reached_from(roots: list[Any], steps: int) -> set[int]:
    """Return the ids of what *roots* refer to by so many attributes, variables or containers in a row."""
    level, reached = roots, set[int]()
    seen = set(map(id, roots))
    for _ in range(steps):
        if len(reached) > _MOST:
            break
        values = [value for holder in level for value in _values(holder)]
        reached.update(map(id, values))
        level = list({id(value): value for value in values if id(value) not in seen}.values())
        seen.update(map(id, level))
    return reached


def _values(holder: object) -> list[Any]:
    kind = type(holder)
    if kind in _SUSPENDED or kind in {MethodType, CellType} or kind.__name__ in _STEPS:
        return gc.get_referents(holder)  # with what stands on the stack: `async with` keeps a method there
    if kind is FunctionType:
        return list(holder.__closure__ or ())  # type: ignore[attr-defined]  # it is a function
    if kind is dict and "__builtins__" not in holder:  # type: ignore[operator]  # it is a dict, no namespace
        return list(holder.values())[:_ITEMS]  # type: ignore[attr-defined]  # it is a dict
    if kind in {list, tuple, set, frozenset, deque}:
        items: list[Any] = list(holder)  # type: ignore[call-overload]  # it is iterable
        return items[:_ITEMS]
    if issubclass(kind, dict | type | ModuleType | asyncio.AbstractEventLoop):
        return []  # all things refer to each other there
    return _attributes(holder)


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
