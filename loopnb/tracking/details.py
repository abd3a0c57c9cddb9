"""Say what one task waits for, with names and numbers: "Queue.get of jobs (empty, 3 others wait)".

This is for one task at a time, since it looks at frames. `chains.waits_for` makes the shorter words that a
list shows.

Everything here runs in the loop's thread. The only code of the user's that it runs is methods of their own
streams and transports, and the `repr` of their own hosts, addresses and URLs.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from loopnb._cpython import is_done, loop_of_task, name_of
from loopnb.frames import package_of
from loopnb.records import WaitDetail
from loopnb.texts import repr_text
from loopnb.tracking import _cpython, _packages, waits
from loopnb.tracking.cells import line_of
from loopnb.tracking.chains import LOCKS, chain_of, reason_of, waits_for
from loopnb.tracking.graph import chains_of
from loopnb.tracking.holders import attributes_of, holders_of
from loopnb.tracking.suspended import code_of, frame_of, instruction_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    from loopnb.tracking.chains import Chain
    from loopnb.tracking.holders import Holder
    from loopnb.tracking.tracker import Tracker
    from loopnb.tracking.waits import Reason


def detail_of(
    tracker: Tracker, task: asyncio.Task[Any], holders: Iterable[asyncio.Task[Any]] | None = None
) -> WaitDetail:
    """Return what *task* waits for.

    Takes 0.1 ms; if it waits for a lock whose holder is not known, 5 us more for each live task.

    Args:
        tracker: Knows the tasks.
        task: The task.
        holders: If it waits for a lock or a semaphore, the tasks that may hold it; None if any task may.
    """
    chain = chain_of(task)
    reason = reason_of(chain)
    detail = _Describer(tracker, task, chain, reason, holders).detail()
    due_at = waits.due_at(chain.links)
    return detail._replace(due_at=due_at, line=users_line(tracker, task, chain))


def users_line(tracker: Tracker, task: asyncio.Task[Any], chain: Chain) -> str:
    """Return the user's own innermost line and its text: `In[4], line 3: await r.read()`, else ""."""
    index = tracker.codes.index_shown(chain.links)
    if index < 0:
        return ""
    link = chain.links[index]
    code, instruction = code_of(link), instruction_of(link)
    place = tracker.place(code, instruction, tracker.origin_of(task).cell)
    source = waits.source_of_line(code.co_filename, line_of(code, instruction))
    return f"{place}: {source}" if source else place


class _Describer:
    """Describes one wait.

    Args:
        tracker: Knows the tasks.
        task: The task that waits.
        chain: Its chain.
        reason: Why it waits.
        holders: As for `detail_of`.
    """

    def __init__(
        self,
        tracker: Tracker,
        task: asyncio.Task[Any],
        chain: Chain,
        reason: Reason,
        holders: Iterable[asyncio.Task[Any]] | None,
    ) -> None:
        self._tracker = tracker
        self._may_hold = holders
        self._task = task
        self._chain = chain
        self._reason = reason

    def detail(self) -> WaitDetail:
        """Return what it waits for; the text is "" if it does not wait."""
        kind, subject = self._reason.kind, self._reason.subject
        if not kind:
            return WaitDetail("")
        describe = _BY_KIND.get(kind)
        if describe is not None:
            return describe(self, subject)
        return WaitDetail(chains_words(self._tracker, self._chain))

    # -- tasks ------------------------------------------------------------------------------------

    def task(self, subject: asyncio.Task[Any]) -> WaitDetail:
        return WaitDetail(self._task_text(subject))

    def wait_for(self, subject: Any) -> WaitDetail:
        return self.task(subject) if isinstance(subject, asyncio.Task) else self.future(subject)

    def shield(self, subject: Any) -> WaitDetail:
        what = self._task_text(subject) if isinstance(subject, asyncio.Task) else "a future"
        return WaitDetail(f"{what}, shielded")

    def nested(self, subject: Any) -> WaitDetail:
        if isinstance(subject, asyncio.Task):
            return WaitDetail(f"{self._task_text(subject)}, in a nested run")
        return WaitDetail("a nested run")

    def gather(self, subject: Any) -> WaitDetail:
        children = _cpython.gathered(subject) or []
        pending = sum(not is_done(child) for child in children)
        return WaitDetail("gather()", f"{pending} of {len(children)} pending")

    def tasks(self, _subject: Any) -> WaitDetail:
        pending = len(self._reason.awaited)
        text = "the first of some tasks" if self._reason.is_any else "some tasks"
        return WaitDetail(text, f"{pending} pending")

    def group(self, _subject: Any) -> WaitDetail:
        return WaitDetail("the tasks of its group", f"{len(self._reason.awaited)} pending")

    def as_completed(self, _subject: Any) -> WaitDetail:
        return WaitDetail("the next of as_completed()", f"{len(self._reason.awaited)} pending")

    def _task_text(self, task: asyncio.Task[Any]) -> str:
        return f"task {name_of(task)}"

    # -- what tasks share -------------------------------------------------------------------------

    def get(self, queue: Any) -> WaitDetail:
        others = max(_cpython.getters_of(queue) - 1, 0)
        return WaitDetail(f"Queue.get{self._of(queue)}", _joined("empty", _others(others)))

    def put(self, queue: Any) -> WaitDetail:
        others = max(_cpython.putters_of(queue) - 1, 0)
        return WaitDetail(
            f"Queue.put{self._of(queue)}", _joined(f"full with {queue.maxsize}", _others(others))
        )

    def join(self, queue: Any) -> WaitDetail:
        return WaitDetail(f"Queue.join{self._of(queue)}", f"{_cpython.unfinished_in(queue)} items not done")

    def event(self, event: Any) -> WaitDetail:
        return WaitDetail(f"Event.wait{self._of(event)}", _joined("not set", self._other_waiters(event)))

    def condition(self, condition: Any) -> WaitDetail:
        return WaitDetail(f"Condition.wait{self._of(condition)}", self._other_waiters(condition))

    def barrier(self, barrier: Any) -> WaitDetail:
        here = f"{barrier.n_waiting} of {barrier.parties} are here"
        return WaitDetail(f"Barrier.wait{self._of(barrier)}", here)

    def lock(self, lock: Any) -> WaitDetail:
        """Describe a lock or semaphore, and who holds it."""
        what = f"{type(lock).__name__}{self._of(lock, ' ')}"
        holders = self._holders(lock)
        if not holders:
            return WaitDetail(what, _joined("nobody is seen to hold it", self._other_waiters(lock)))
        holder, *others = holders
        name = "itself" if holder.task is self._task else name_of(holder.task)
        place = self._tracker.place(
            holder.code, holder.instruction, self._tracker.origin_of(holder.task).cell
        )
        more = f" and {len(others)} more" if others else ""
        since = self._tracker.record(holder.task).waiting_since
        text = f"{what} held by {name} ({place}){more}"
        return WaitDetail(text, self._other_waiters(lock), since=since)

    def _holders(self, lock: Any) -> list[Holder]:
        tasks = self._tracker.live(kernels=True) if self._may_hold is None else self._may_hold
        found = holders_of({id(lock): lock}, chains_of(tasks))
        return [holder for _lock, holder in found]

    def _other_waiters(self, primitive: Any) -> str:
        return _others(max(_cpython.waiters_of(primitive) - 1, 0))

    def receive_item(self, stream: Any) -> WaitDetail:
        return WaitDetail(
            f"receive{self._of(stream)}", _stream_state(stream, "empty", "tasks_waiting_receive")
        )

    def send_item(self, stream: Any) -> WaitDetail:
        return WaitDetail(f"send{self._of(stream)}", _stream_state(stream, "full", "tasks_waiting_send"))

    # -- time, threads, processes, network ---------------------------------------------------------

    def sleep(self, _subject: Any) -> WaitDetail:
        return WaitDetail("sleep")

    def thread(self, thread_future: Any) -> WaitDetail:
        """Describe a call in a thread, or a task of another loop."""
        executor = _cpython.default_executor_of(loop_of_task(self._task))
        is_queued = _cpython.is_queued_in(executor, thread_future)
        what = self._called_in_thread() or "a call in a thread"
        if is_queued or thread_future.running():
            state = _load_text(executor)
            return WaitDetail(f"{what}, queued for a thread" if is_queued else what, state)
        return WaitDetail("a task of another thread")

    def to_thread(self, _subject: Any) -> WaitDetail:
        waited = self._chain.waited
        found = None if waited is None else _cpython.thread_future_of(waited)
        return self.thread(found) if found is not None else WaitDetail(self._called_in_thread() or "a thread")

    def _called_in_thread(self) -> str:
        if self._reason.kind != "to_thread":
            return ""
        name = getattr(self._reason.subject, "__qualname__", "")
        return f"{name}() in a thread" if isinstance(name, str) and name else ""

    def read(self, reader: Any) -> WaitDetail:
        return WaitDetail(f"bytes from {self._peer_of(reader)}")

    def drain(self, writer: Any) -> WaitDetail:
        return WaitDetail(f"room to send to {self._peer_of(writer)}")

    def _peer_of(self, stream: Any) -> str:
        peer = _peer_of(_cpython.transport_of(stream))
        return peer or name_in(self._chain, stream) or "a stream"

    def receive(self, sock: Any) -> WaitDetail:
        return WaitDetail(f"bytes from {_remote(sock)}")

    def send(self, sock: Any) -> WaitDetail:
        return WaitDetail(f"room to send to {_remote(sock)}")

    def accept(self, sock: Any) -> WaitDetail:
        return WaitDetail(f"a connection to {_local(sock)}")

    def connect(self, host: Any) -> WaitDetail:
        port = self._argument(1)
        return WaitDetail(f"connection to {_plain(host)}:{_plain(port)}")

    def connect_path(self, path: Any) -> WaitDetail:
        return WaitDetail(f"connection to {_plain(path)}")

    def connect_address(self, address: Any) -> WaitDetail:
        return WaitDetail(f"connection to {_address(address)}")

    def lookup(self, host: Any) -> WaitDetail:
        return WaitDetail(f"address of {_plain(host)}")

    def process(self, process: Any) -> WaitDetail:
        return WaitDetail(f"process {attributes_of(process).get('pid', '?')} to end")

    def request(self, method: Any) -> WaitDetail:
        return WaitDetail(
            f"HTTP response of {_plain(method)} {_path_of(self._argument(1))} ({self._package()})"
        )

    def send_request(self, request: Any) -> WaitDetail:
        method, url = (attributes_of(request).get(name) for name in ("method", "url"))
        return WaitDetail(f"HTTP response of {_plain(method)} {_path_of(url)} ({self._package()})")

    def body(self, response: Any) -> WaitDetail:
        attributes = attributes_of(response)
        request = attributes.get(_packages.REQUEST_OF_RESPONSE)
        url = attributes.get(_packages.URL_OF_RESPONSE) or attributes_of(request).get("url")
        of = f" of {_path_of(url)}" if url is not None else ""
        return WaitDetail(f"HTTP body{of} ({self._package()})")

    def future(self, future: Any) -> WaitDetail:
        name = self._of(future, " ")
        if name:
            return WaitDetail(f"future{name}")
        return WaitDetail(chains_words(self._tracker, self._chain), self._database())

    def _database(self) -> str:
        """Return the address of the database that answers a call of asyncpg's; "" if it is no such call."""
        for link in self._chain.links:
            if package_of(code_of(link).co_filename) == "asyncpg":
                address = _packages.address_of_database(next(iter(_cpython.held_by(link)), None))
                if address is not None:
                    return _address(address)
        return ""

    # -- names ------------------------------------------------------------------------------------

    def _argument(self, further: int) -> Any:
        """Return the argument *further* places after the awaited one; None if there is none."""
        link = self._chain.links[self._reason.depth]
        code = code_of(link)
        rule = waits.rule_of(code.co_filename, code.co_qualname)
        held = _cpython.held_by(link)
        index = further + (0 if rule is None else rule.subject)
        return held[index] if index < len(held) else None

    def _package(self) -> str:
        return package_of(code_of(self._chain.links[self._reason.depth]).co_filename)

    def _of(self, value: object, word: str = " of ") -> str:
        """Return *word* and the name by which the user's code knows *value*; "" if it has none."""
        name = name_in(self._chain, value)
        return f"{word}{name}" if name else ""


def chains_words(tracker: Tracker, chain: Chain) -> str:
    """Return what a list of tasks says of that wait."""
    return waits_for(chain, tracker.codes).text


def name_in(chain: Chain, value: object) -> str:
    """Return the variable or attribute that holds *value*: `self.jobs`; "" if the waiting frames know none.

    This asks the user's innermost frame first. A global variable counts if the code of the frame names it.
    """
    for link in reversed(chain.links):
        code = code_of(link)
        if package_of(code.co_filename):
            continue
        frame = frame_of(link)
        name = "" if frame is None else _name_in_frame(frame, value)
        if name:
            return name
    return ""


def _name_in_frame(frame: FrameType, value: object) -> str:
    local_names = dict(frame.f_locals)
    named = {name: frame.f_globals[name] for name in frame.f_code.co_names if name in frame.f_globals}
    for names in (local_names, named):
        for name, item in names.items():
            if item is value:
                return name
    for names in (local_names, named):
        for name, item in names.items():
            for attribute, inner in attributes_of(item).items():
                if inner is value:
                    # The lock of a Condition has no name of its own.
                    return name if isinstance(item, asyncio.Condition) else f"{name}.{attribute}"
    return ""


# -- small texts ---------------------------------------------------------------------------------


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _others(count: int) -> str:
    return "" if count == 0 else "1 other waits" if count == 1 else f"{count} others wait"


def _load_text(executor: Any) -> str:
    load = _cpython.load_of(executor)
    if load is None:
        return ""
    busy, most, queued = load
    return f"thread pool: {busy} of {most} busy, {queued} queued"


def _stream_state(stream: Any, word: str, waiting: str) -> str:
    """Return the state of an anyio memory stream. It runs anyio's code."""
    try:
        statistics = stream.statistics()
        ends = statistics.open_send_streams if word == "empty" else statistics.open_receive_streams
        others = _others(max(getattr(statistics, waiting) - 1, 0))
    except Exception:  # noqa: BLE001  another version of anyio, or a stream of the user's own
        return word
    what = "senders" if word == "empty" else "receivers"
    return _joined(word, "" if ends else f"no {what} left", others)


def _peer_of(transport: Any) -> str:
    """Return the address at the other end of a stream; "" if it has none, as a pipe has none."""
    try:
        address = transport.get_extra_info("peername")
    except Exception:  # noqa: BLE001  a transport of somebody else's, or none
        return ""
    return _address(address) if address else ""


def _remote(sock: Any) -> str:
    try:
        return _address(sock.getpeername())
    except Exception:  # noqa: BLE001  it is not connected, or no socket
        return "a socket"


def _local(sock: Any) -> str:
    try:
        return _address(sock.getsockname())
    except Exception:  # noqa: BLE001  it is closed, or no socket
        return "a socket"


def _address(address: Any) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    return _plain(address) or "a socket"


def _plain(value: Any) -> str:
    """Return a string or number as it is, and the repr of anything else."""
    return str(value) if type(value) in (str, int) else repr_text(value, 60)


def _path_of(url: Any) -> str:
    """Return path and query of a URL, without user, password and host."""
    text = url if type(url) is str else repr_text(url, 200) if url is not None else ""
    text = text.partition("(")[2].rstrip(")").strip("'\"") if text.startswith("URL(") else text
    _scheme, has_host, rest = text.partition("://")
    if not has_host:
        return text or "?"
    _host, slash, path = rest.partition("/")
    return f"/{path}" if slash else "/"


_BY_KIND: dict[str, Callable[[_Describer, Any], WaitDetail]] = {
    "task": _Describer.task,
    "wait_for": _Describer.wait_for,
    "shield": _Describer.shield,
    "nested": _Describer.nested,
    "gather": _Describer.gather,
    "tasks": _Describer.tasks,
    "group": _Describer.group,
    "as completed": _Describer.as_completed,
    "get": _Describer.get,
    "put": _Describer.put,
    "join": _Describer.join,
    "event": _Describer.event,
    "condition": _Describer.condition,
    "barrier": _Describer.barrier,
    **dict.fromkeys(LOCKS, _Describer.lock),
    "receive item": _Describer.receive_item,
    "send item": _Describer.send_item,
    "sleep": _Describer.sleep,
    "thread": _Describer.thread,
    "to_thread": _Describer.to_thread,
    "read": _Describer.read,
    "drain": _Describer.drain,
    "receive": _Describer.receive,
    "send": _Describer.send,
    "accept": _Describer.accept,
    "connect": _Describer.connect,
    "connect path": _Describer.connect_path,
    "connect address": _Describer.connect_address,
    "lookup": _Describer.lookup,
    "process": _Describer.process,
    "request": _Describer.request,
    "send request": _Describer.send_request,
    "body": _Describer.body,
    "future": _Describer.future,
}
