"""Tell what one suspended task waits for: the kind of wait, the object, and the tasks that can end it.

This recognises the functions that wait by package and qualified name, so that it imports nothing. What they
wait for is among their arguments. The garbage collector shows the arguments of a coroutine without a frame
object (`_cpython.held_by`), so this can ask ten thousand tasks.

Everything here runs in the loop's thread, and runs no code of the user's.
"""

from __future__ import annotations

import asyncio
import linecache
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from loopnb._cpython import is_done
from loopnb.frames import package_of
from loopnb.tracking import _cpython, _packages
from loopnb.tracking.suspended import code_of, withs_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_Future = asyncio.Future


class Rule(NamedTuple):
    """What a function waits for.

    Attributes:
        kind: The kind of wait.
        subject: Which of its arguments is what it waits for; the first is 0.
        is_innermost: The rule counts only if nothing inside the function waits instead.
    """

    kind: str
    subject: int
    is_innermost: bool = False


_RULES: dict[tuple[str, str], Rule] = {
    ("asyncio", "sleep"): Rule("sleep", 0),
    ("asyncio", "wait"): Rule("tasks", 0),
    # From 3.12 on, the given coroutine runs inside it.
    ("asyncio", "wait_for"): Rule("wait_for", 0, is_innermost=True),
    ("asyncio", "TaskGroup.__aexit__"): Rule("group", 0),
    ("asyncio", "Queue.get"): Rule("get", 0),
    ("asyncio", "Queue.put"): Rule("put", 0),
    ("asyncio", "Queue.join"): Rule("join", 0),
    ("asyncio", "Lock.acquire"): Rule("lock", 0),
    ("asyncio", "Semaphore.acquire"): Rule("semaphore", 0),
    ("asyncio", "Event.wait"): Rule("event", 0),
    # Once notified, it waits for its lock.
    ("asyncio", "Condition.wait"): Rule("condition", 0, is_innermost=True),
    ("asyncio", "Barrier.wait"): Rule("barrier", 0),
    ("asyncio", "StreamReader.read"): Rule("read", 0),
    ("asyncio", "StreamReader.readline"): Rule("read", 0),
    ("asyncio", "StreamReader.readexactly"): Rule("read", 0),
    ("asyncio", "StreamReader.readuntil"): Rule("read", 0),
    ("asyncio", "StreamReader.__anext__"): Rule("read", 0),
    ("asyncio", "StreamWriter.drain"): Rule("drain", 0),
    ("asyncio", "open_connection"): Rule("connect", 0),
    ("asyncio", "open_unix_connection"): Rule("connect path", 0),
    ("asyncio", "BaseEventLoop.create_connection"): Rule("connect", 2),
    ("asyncio", "BaseEventLoop.getaddrinfo"): Rule("lookup", 1),
    ("asyncio", "BaseSelectorEventLoop.sock_recv"): Rule("receive", 1),
    ("asyncio", "BaseSelectorEventLoop.sock_recv_into"): Rule("receive", 1),
    ("asyncio", "BaseSelectorEventLoop.sock_recvfrom"): Rule("receive", 1),
    ("asyncio", "BaseSelectorEventLoop.sock_sendall"): Rule("send", 1),
    ("asyncio", "BaseSelectorEventLoop.sock_accept"): Rule("accept", 1),
    ("asyncio", "BaseSelectorEventLoop.sock_connect"): Rule("connect address", 2),
    ("asyncio", "Process.wait"): Rule("process", 0),
    ("asyncio", "Process.communicate"): Rule("process", 0),
    ("asyncio", "to_thread"): Rule("to_thread", 0),
    ("asyncio", "Server.serve_forever"): Rule("serve", 0),
    ("anyio", "TaskGroup.__aexit__"): Rule("group", 0),
    ("anyio", "MemoryObjectReceiveStream.receive"): Rule("receive item", 0),
    ("anyio", "MemoryObjectSendStream.send"): Rule("send item", 0),
    ("anyio", "Event.wait"): Rule("event", 0),
    ("anyio", "Lock.acquire"): Rule("lock", 0),
    ("anyio", "Semaphore.acquire"): Rule("semaphore", 0),
    ("anyio", "CapacityLimiter.acquire"): Rule("semaphore", 0),
    ("anyio", "AsyncIOBackend.run_sync_in_worker_thread"): Rule("to_thread", 1),
    ("aiohttp", "ClientResponse.read"): Rule("body", 0),
    ("aiohttp", "StreamReader.read"): Rule("body", 0),
    ("aiohttp", "StreamReader.readline"): Rule("body", 0),
    ("aiohttp", "StreamReader.readany"): Rule("body", 0),
    ("httpx", "AsyncClient.request"): Rule("request", 1),
    ("httpx", "AsyncClient.send"): Rule("send request", 1),
    ("httpx", "Response.aread"): Rule("body", 0),
    **{name: Rule(*rule) for name, rule in (_cpython.PRIVATE_WAITS | _packages.PRIVATE_WAITS).items()},
}


@lru_cache(maxsize=4096)
def rule_of(filename: str, name: str) -> Rule | None:
    """Return what the function with that qualified name waits for; None if no rule says so. Any thread."""
    return _RULES.get((package_of(filename), name))


class Reason(NamedTuple):
    """Why a task does not go on.

    Attributes:
        kind: The kind of wait: that of a `Rule`, or `task`, `gather`, `nested`, `thread`, `shield`, `future`;
            "" if it does not wait.
        subject: What it waits for: a Queue, a Lock, a Future.
        awaited: The futures that it waits for, as far as they are known. Most are tasks.
        is_any: One of them is enough.
        depth: The index of the link that waits for *subject*; -1 if no function of a library's does.
    """

    kind: str
    subject: Any = None
    awaited: tuple[asyncio.Future[Any], ...] = ()
    is_any: bool = False
    depth: int = -1

    @property
    def tasks(self) -> list[asyncio.Task[Any]]:
        """The tasks among `awaited` that have not ended."""
        return [item for item in self.awaited if isinstance(item, asyncio.Task) and not is_done(item)]


_NOTHING = Reason("")


def rule_within(links: list[Any]) -> tuple[int, Rule | None]:
    """Return the index of the link that tells what is waited for, and its rule; -1 and None if none does.

    Of the links inside the user's innermost one, that is the outermost with a rule. So it is the function
    that the user's code has called, not one further inside.
    """
    found: Rule | None = None
    depth = -1
    for index in range(len(links) - 1, -1, -1):
        code = code_of(links[index])
        if not package_of(code.co_filename):
            break
        rule = rule_of(code.co_filename, code.co_qualname)
        if rule is not None and (not rule.is_innermost or index == len(links) - 1):
            found, depth = rule, index
    return depth, found


def reason_of(
    links: list[Any], waited: asyncio.Future[Any] | None, nested: asyncio.Future[Any] | None
) -> Reason:
    """Return why a task does not go on.

    Args:
        links: The links of its chain.
        waited: The future that it waits for.
        nested: What it waits for in a nested run.
    """
    if nested is not None:
        return Reason("nested", nested, (nested,))
    if waited is None:
        return _NOTHING
    depth, rule = rule_within(links)
    if rule is not None:
        reason = _by_rule(links, depth, rule)
        if reason is not None:
            return reason
    return _by_future(waited)


def _by_future(waited: asyncio.Future[Any]) -> Reason:
    if isinstance(waited, asyncio.Task):
        return Reason("task", waited, (waited,))
    if (children := _cpython.gathered(waited)) is not None:
        return Reason("gather", waited, _pending(children))
    if (inner := _cpython.shielded_by(waited)) is not None:
        return Reason("shield", inner, (inner,))
    if (thread_future := _cpython.thread_future_of(waited)) is not None:
        return Reason("thread", thread_future)
    return Reason("future", waited)


def _by_rule(links: list[Any], depth: int, rule: Rule) -> Reason | None:
    held = _cpython.held_by(links[depth])
    if len(held) <= rule.subject:
        return None
    subject = held[rule.subject]
    awaited: Iterable[Any] = ()
    is_any = False
    if rule.kind == "tasks":
        awaited = subject if isinstance(subject, set | frozenset | list | tuple) else ()
        is_any = asyncio.ALL_COMPLETED not in [item for item in held if type(item) is str]
    elif rule.kind == "group":
        awaited = _cpython.tasks_of_group(subject)
    elif rule.kind == "as completed":
        awaited, is_any = _completed_next(links, depth, subject), True
    elif rule.kind == "wait_for":
        if not isinstance(subject, _Future):
            return None
        inner = _by_future(subject)
        return inner._replace(awaited=inner.awaited or (subject,), depth=depth)
    return Reason(rule.kind, subject, _pending(awaited), is_any, depth)


def _completed_next(links: list[Any], depth: int, subject: Any) -> list[Any]:
    """Return the futures for which `as_completed()` waits, until the next of them is done."""
    if not isinstance(subject, asyncio.Queue):
        return _cpython.todo_of(subject)
    # Up to 3.12 `as_completed()` is a generator. It is on the value stack of the code that iterates over it.
    for link in reversed(links[:depth]):
        for item in reversed(_cpython.held_by(link)):
            if getattr(getattr(item, "gi_code", None), "co_qualname", "") == "as_completed":
                return _cpython.todo_of(item)
    return []


def _pending(futures: Iterable[Any]) -> tuple[asyncio.Future[Any], ...]:
    return tuple(item for item in futures if isinstance(item, _Future) and not is_done(item))


# -- when it gives up ----------------------------------------------------------------------------


def due_at(links: list[Any]) -> float | None:
    """Return when a timer ends this wait, on the clock of the loop; None if no such timer is known.

    Such a timer belongs to `sleep()`, `wait()`, `wait_for()`, or an `asyncio.timeout()` that the task is
    inside.
    """
    return min(_timers_in(links), default=None)


def _timers_in(links: list[Any]) -> Iterator[float]:
    for link in links:
        held = _cpython.held_by(link)
        for manager in _cpython.entered_in(held):
            if isinstance(manager, asyncio.Timeout):
                when = manager.when()
                if when is not None:
                    yield when
        if package_of(code_of(link).co_filename) == "asyncio":
            for item in held:
                if type(item) is asyncio.TimerHandle and not item.cancelled():
                    yield item.when()


# -- locks ---------------------------------------------------------------------------------------


def may_hold(links: list[Any]) -> bool:
    """Return False if the code of that chain tells that it is inside no `with` or `async with` block.

    That is also so where a function waits to enter its only block.
    """
    return any(_may_hold(links, index) for index in range(len(links)))


def _may_hold(links: list[Any], index: int) -> bool:
    return withs_in(code_of(links[index])) > _is_entering(links, index)


def _is_entering(links: list[Any], index: int) -> bool:
    return index + 1 < len(links) and code_of(links[index + 1]).co_name == "__aenter__"


def locks_held_in(links: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the locks and semaphores that a chain holds by `async with`, each with the link that holds it.

    A Condition counts as its lock, unless the chain waits to be notified or to get that lock back.
    """
    for index, link in enumerate(links):
        if not _may_hold(links, index):
            continue
        managers = list(_cpython.entered_in(_cpython.held_by(link)))
        if managers and _is_entering(links, index):
            managers.pop()  # it is just being entered
        for manager in managers:
            if isinstance(manager, asyncio.Condition):
                if not _is_waiting_for(links[index + 1 :], manager):
                    yield _cpython.lock_of(manager), link
            elif isinstance(manager, asyncio.Lock | asyncio.Semaphore) or _is_anyios(manager):
                yield manager, link


def _is_waiting_for(links: list[Any], condition: Any) -> bool:
    for link in links:
        code = code_of(link)
        if code.co_qualname == "Condition.wait" and package_of(code.co_filename) == "asyncio":
            held = _cpython.held_by(link)
            if held and held[0] is condition:
                return True
    return False


def _is_anyios(manager: Any) -> bool:
    module = type(manager).__dict__.get("__module__", "")
    return isinstance(module, str) and module.startswith("anyio.")


# -- the user's line -----------------------------------------------------------------------------

#: How much of a line is shown.
_LINE = 80


def source_of_line(filename: str, line: int) -> str:
    """Return the text of that line, shortened; "" if it is not known."""
    source = linecache.getline(filename, line).strip()
    return source if len(source) <= _LINE else source[: _LINE - 1] + "…"
