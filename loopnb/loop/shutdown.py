"""End everything on the loop in order before the kernel ends, and name what could not end.

After a shutdown request, a Jupyter front end gives the kernel 5 s. It sends SIGTERM after half of that time
and SIGKILL at the end. So everything here takes at most twice the grace period, and SIGTERM does not cut it
short.
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


#: Seconds between two checks of the threads.
_GLANCE = 0.02
#: How many references we follow from a client to find the objects that it closes itself.
_CLIENTS_REACH = 4
#: How many references we follow from a coroutine to find the async generators that it has entered by an
#: AsyncExitStack.
_TASKS_REACH = 8
_SUSPENDED = (CoroutineType, GeneratorType, AsyncGeneratorType)
#: Type names of the awaitables that step an async generator, or a coroutine (`coro.__await__()`). Python
#: exports no such types.
_STEPS = {"async_generator_asend", "async_generator_athrow", "anext_awaitable", "coroutine_wrapper"}
#: How many items of a container we look at.
_ITEMS = 1_000
#: We stop following references once so many objects are found, which takes some 50 ms.
_MOST = 100_000


class Ending(Protocol):
    """Knows what has to end with a loop. The loop's thread."""

    def live(self) -> Tasks:
        """Return the tasks that are to end and have not ended yet."""

    def owners(self, tasks: set[asyncio.Task[Any]]) -> dict[asyncio.Task[Any], set[asyncio.Task[Any]]]:
        """Map each task to those others of *tasks* that spawned it, or whose TaskGroup it is in."""

    def is_ending(self, task: asyncio.Task[Any]) -> bool:
        """Return True if *task* was cancelled a moment ago: a second cancel would cut its cleanup short."""

    def is_of_other_task(self, error: BaseException) -> bool:
        """Return True if *error* says that a block was left in another task than the one that entered it."""

    def grace(self) -> float:
        """Return how many seconds the tasks get to end. The rest then gets as many again. 0 does not wait."""

    def describe(self, task: asyncio.Task[Any]) -> str:
        """Name *task* and its cell, and say where it waits."""

    def describe_thread(self, thread: threading.Thread, frame: FrameType) -> str:
        """Say what *thread*, whose innermost frame is *frame*, is busy with."""

    def place(self, frame: FrameType) -> str:
        """Return the name to show for the line that *frame* is at."""

    def release(self) -> None:
        """Release the threads that wait for the loop."""

    def log(self, line: str) -> None:
        """Write *line* to a log that people can read after the end. Any thread."""


class OrderlyEnd:
    """End the tasks, then async generators, clients and the default executor's threads. Use it once.

    Call in the loop's thread. Errors in user code are logged, not raised.

    Args:
        ending: Knows what has to end.
    """

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        # Task -> when it was cancelled, in the loop's time. Keeps the tasks alive until their failures are
        # logged.
        self._cancelled: dict[asyncio.Task[Any], float] = {}
        # Task -> how often it had been cancelled when this began to end it.
        self._counts: dict[asyncio.Task[Any], int] = {}
        self._named: set[asyncio.Task[Any]] = set()
        self._closed: dict[int, AsyncGeneratorType[Any, Any]] = {}
        self._sigterm = SigtermShield()

    async def wind_down(self) -> None:
        """End everything, in order and in time. Log what could not end."""
        self._sigterm.raise_()
        loop = asyncio.get_running_loop()
        grace = self._ending.grace()
        idle = self._idle_generators(loop)
        await asyncio.gather(self._end_tasks(grace), self._close_generators(idle, grace))
        deadline = loop.time() + grace
        for end in (self._end_tasks, self._end_generators, self._close_clients, self._end_threads):
            try:
                await end(max(0.0, deadline - loop.time()))
            except Exception as error:  # noqa: BLE001  from a user's object: the others must still end
                self._ending.log(f"something could not be ended in order: {error_text(error)}")

    def check(self) -> None:
        """Log the tasks that are left when Python ends, unless logged before. Call it outside the loop."""
        for task in self._ending.live():
            if task not in self._named:
                self._name(task, "was still there when Python ended")

    def lower_shield(self) -> None:
        """Let SIGTERM end the process again."""
        self._sigterm.lower()

    async def _end_tasks(self, timeout: float) -> None:
        """Cancel the tasks. A second call cancels the tasks that a `finally` has spawned in the meantime.

        The outermost come first: the `finally` of a task may need the tasks that it spawned, and a TaskGroup
        cancels its children itself. If we cancelled all at once, the children would be cancelled a second
        time, in their own `finally`. So a task is cancelled once its owners have ended, or when half of the
        time is over, and only if nobody else has cancelled it by then.
        """
        loop = asyncio.get_running_loop()
        live = set(self._ending.live()) - self._cancelled.keys() - {asyncio.current_task()}
        owners, due = self._ending.owners(live), set(live)
        self._counts.update((task, task.cancelling()) for task in live)
        now = loop.time()
        halfway, end = now + timeout / 2, now + timeout
        while live:
            is_halfway = now >= halfway
            ready = {task for task in due if is_halfway or owners.get(task, set()).isdisjoint(live)}
            ready = ready or (due if due == live else set())  # each has an owner: a cycle
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
            # Halfway, a TaskGroup may have cancelled it already.
            if not self._ending.is_ending(task) and task.cancelling() <= self._counts[task]:
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
        while generators := self._generators_to_close(loop):  # closing one may free those it used
            left = max(0.0, deadline - loop.time())
            await self._close_generators(_outermost(generators) or generators, left)

    def _idle_generators(self, loop: asyncio.AbstractEventLoop) -> list[AsyncGeneratorType[Any, Any]]:
        """Return the outermost async generators that no task uses: nobody else will close them.

        A task closes the generators that it has entered itself, in its own order. If we cannot know which
        those are, this returns none. Call it before the tasks are cancelled.
        """
        generators = self._generators_to_close(loop)
        if not generators:
            return []
        chains = [_awaiting_in(task.get_coro()) for task in self._ending.live()]
        if any(chain is None for chain in chains):
            return []
        used = _reached_from([awaited for chain in chains for awaited in chain or ()], _TASKS_REACH)
        if len(used) > _MOST:
            return []
        return [gen for gen in _outermost(generators) if id(gen) not in used and not gen.ag_running]

    def _generators_to_close(self, loop: asyncio.AbstractEventLoop) -> list[AsyncGeneratorType[Any, Any]]:
        return [gen for gen in open_generators(loop) or () if id(gen) not in self._closed]

    async def _close_generators(self, generators: list[AsyncGeneratorType[Any, Any]], timeout: float) -> None:
        endings: list[tuple[str, Awaitable[Any]]] = []
        for gen in generators:
            where = f"at {self._ending.place(gen.ag_frame)}" if gen.ag_frame is not None else ""
            self._closed[id(gen)] = gen
            endings.append((f"async generator {gen.__qualname__}() {where}", gen.aclose()))
        await self._end_each(endings, timeout)

    async def _close_clients(self, timeout: float) -> None:
        clients = open_clients(asyncio.get_running_loop())
        await self._end_each(
            [(f"open {repr_text(client, 100)}", closing) for client, closing in clients], timeout
        )

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
                # The task that entered the block is gone. The block has cleaned up before it raised this.
                if self._ending.is_of_other_task(error):
                    continue
                self._ending.log(f"{what} did not end in order: {error_text(error)}")

    async def _end_threads(self, timeout: float) -> None:
        """Wait for the threads that Python waits for at exit, and log those that are still busy.

        Before that, release the threads that wait for the loop, and let the executor take no more calls.

        `shutdown_default_executor()` is not enough: on 3.11 it takes no timeout, and blocks the loop when
        it is cancelled. And it knows no other threads.
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
            self.lower_shield()  # while Python waits for a thread, only a signal can end it
            self._ending.log(
                f"{self._ending.describe_thread(thread, frame)}, and Python waits for it before it ends"
            )


class SigtermShield:
    """Ignore SIGTERM while the process ends in order, instead of dying from it at once."""

    def raise_(self) -> None:
        """Have SIGTERM do nothing from now on, unless the user has a handler. Only in the main thread."""
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            # Not SIG_IGN: child processes started from here on would inherit it.
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

    The wish. A client that a notebook leaves open, such as an aiohttp session, is closed when the kernel
    ends. Its finalizer cannot close it: by then the loop is gone, and all it can do is complain ("Unclosed
    client session").

    The solution. Close such objects before the loop stops, as asyncio does with async generators. An object
    counts as a client if it has a finalizer, if its `aclose()` or `close()` is a coroutine function, and if
    it refers to the loop or, when it refers to no loop, to a thread that Python would wait for. No list of
    libraries is needed. We skip the objects that another client refers to, since that one closes them: a
    session closes its connector, and the connector its resolver.

    What it cannot do. Objects without a finalizer are left alone: they do not complain. So are objects that
    refer neither to the loop nor to such a thread themselves.

    It looks at every object that the garbage collector tracks: some 0.2 s per million.
    """
    closers: dict[type, Callable[[Any], Coroutine[Any, Any, Any]] | None] = {}
    threads = {id(item) for item in threading.enumerate() if not item.daemon} - {id(threading.main_thread())}
    found = []
    for candidate in gc.get_objects():
        kind = type(candidate)
        if kind not in closers:
            closers[kind] = _closer(kind)
        if closers[kind] is not None and _is_on(loop, threads, [candidate, *_attributes(candidate)]):
            found.append(candidate)
    below = {id(client): _reached_from([client], _CLIENTS_REACH) for client in found}
    held = {
        held for client in found for held in below[id(client)] & below.keys() if id(client) not in below[held]
    }
    closing = [(client, closers[type(client)]) for client in found if id(client) not in held]
    return [(client, close(client)) for client, close in closing if close is not None]


def _is_on(loop: asyncio.AbstractEventLoop, threads: set[int], values: list[Any]) -> bool:
    loops = [value for value in values if issubclass(type(value), asyncio.AbstractEventLoop)]
    return loop in loops if loops else any(id(value) in threads for value in values)


def _awaiting_in(coro: Any) -> list[Any] | None:
    """Return *coro*, what it awaits, what that awaits, and so on. None if that cannot be known.

    It is unknown for a parked task: its frame counts as executing, and does not show what it has entered.
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
    below = {id(gen): _reached_from([gen], _TASKS_REACH) for gen in generators}
    used = {id(gen) for gen in generators for other in below if other != id(gen) and id(gen) in below[other]}
    return [gen for gen in generators if id(gen) not in used]


def _reached_from(roots: list[Any], steps: int) -> set[int]:
    """Return the ids of the objects within *steps* references of *roots*."""
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
        return gc.get_referents(holder)  # includes the value stack, on which `async with` keeps a method
    if kind is FunctionType:
        return list(holder.__closure__ or ())  # type: ignore[attr-defined]  # it is a function
    if kind is dict and "__builtins__" not in holder:  # type: ignore[operator]  # it is a dict, no namespace
        return list(holder.values())[:_ITEMS]  # type: ignore[attr-defined]  # it is a dict
    if kind in {list, tuple, set, frozenset, deque}:
        items: list[Any] = list(holder)  # type: ignore[call-overload]  # it is iterable
        return items[:_ITEMS]
    if issubclass(kind, dict | type | ModuleType | asyncio.AbstractEventLoop):
        return []  # through these, everything refers to everything
    return _attributes(holder)


def _closer(kind: type) -> Callable[[Any], Coroutine[Any, Any, Any]] | None:
    # Looked up statically: getattr() might run user code.
    if _static(kind, "__del__") is None:
        return None
    methods = (_static(kind, name) for name in ("aclose", "close"))
    return next((method for method in methods if inspect.iscoroutinefunction(method)), None)


def _static(kind: type, name: str) -> Any:
    return next((vars(owner)[name] for owner in kind.__mro__ if name in vars(owner)), None)


def _attributes(holder: object) -> list[Any]:
    try:
        return list(object.__getattribute__(holder, "__dict__").values())
    except AttributeError:  # it has slots only
        return []
