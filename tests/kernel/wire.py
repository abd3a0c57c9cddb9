"""The wire to one kernel process: sockets, the one thread that owns them, and all that was read."""

from __future__ import annotations

import socket
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import zmq
from jupyter_client.session import Session

from tests.processes import WaitTimedOutError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Channel = Literal["shell", "control", "stdin", "iopub"]
T = TypeVar("T")

# How long we wait for a message before we look whether the process is still there, and what has changed.
_GLANCE_MS = 100


class KernelDiedError(RuntimeError):
    """Raised when the kernel process ended while a test waited for something."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message from the kernel.

    Attributes:
        channel: Where it was read.
        msg_type: Its type, such as `stream`.
        parent_id: The `msg_id` of the request it belongs to ("" if none).
        content: Its body.
        metadata: Its metadata.
        buffers: Its binary parts.
        at_s: When it was read, on `time.monotonic()`.
    """

    channel: Channel
    msg_type: str
    parent_id: str
    content: dict[str, Any]
    metadata: dict[str, Any]
    buffers: tuple[bytes, ...]
    at_s: float

    def __str__(self) -> str:
        body = str(self.content)
        short = body if len(body) <= 300 else f"{body[:300]}..."
        return f"{self.channel} {self.msg_type} of {self.parent_id[-6:] or 'none'} {short}"


class Wire:
    """Sends requests to a kernel and keeps everything that comes back, in order.

    ZeroMQ sockets belong to one thread. Here that is the pump: senders hand it their messages, it reads
    all channels, files each message under its parent and notifies `changed`. Any thread may send and wait.
    """

    def __init__(self, connection: Mapping[str, Any], is_alive: Callable[[], bool]) -> None:
        self.changed = threading.Condition()
        self.messages: list[Message] = []
        self.by_parent: defaultdict[str, list[Message]] = defaultdict(list)
        self._connection = connection
        self._is_alive = is_alive
        self._session = Session(key=connection["key"].encode())
        self._outbox: deque[tuple[Channel, dict[str, Any], list[Any]]] = deque()
        self._wake_end, self._pump_end = socket.socketpair()
        self._began_s = time.monotonic()
        self._is_closing = False
        self._ended: str | None = None
        self._pump = threading.Thread(target=self._run, name="kernel pump", daemon=True)
        self._pump.start()

    def send(
        self,
        channel: Channel,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        metadata: Mapping[str, Any] | None = None,
        buffers: Sequence[bytes] = (),
        subshell_id: str | None = None,
    ) -> str:
        """Queue a request for the pump and return its `msg_id` at once."""
        with self.changed:
            if self._ended is not None:
                raise KernelDiedError(f"Nothing can be sent: {self._ended}")
            message = self._session.msg(msg_type, dict(content), metadata=dict(metadata or {}))
            if subshell_id is not None:
                message["header"]["subshell_id"] = subshell_id
            self._outbox.append((channel, message, list(buffers)))
        self._wake_end.send(b".")
        return str(message["header"]["msg_id"])

    @property
    def ended(self) -> str | None:
        """Why nothing more is read; None while the wire is open."""
        return self._ended

    def wait_for(self, probe: Callable[[], T | None], timeout: float, what: str) -> T:
        """Return the first value of *probe* that is not None.

        It is asked again after each message, and every tenth of a second: what it asks for may be no message.

        Args:
            probe: Called with `changed` held.
            timeout: Seconds.
            what: Ends the sentence "There was no ..." of the error.

        Raises:
            WaitTimedOutError: *timeout* passed.
            KernelDiedError: The process ended before.
        """
        deadline = time.monotonic() + timeout
        with self.changed:
            while (found := probe()) is None:
                if self._ended is not None:
                    raise KernelDiedError(f"There was no {what}: {self._ended}\n{self.dump()}")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise WaitTimedOutError(f"There was no {what} within {timeout} s.\n{self.dump()}")
                self.changed.wait(min(left, _GLANCE_MS / 1000))
            return found

    def dump(self, last: int = 60) -> str:
        """Describe the newest messages, one line each."""
        with self.changed:
            lines = [f"{message.at_s - self._began_s:8.3f} s  {message}" for message in self.messages[-last:]]
            return "\n".join([f"Messages seen so far ({len(self.messages)}, newest last):", *lines])

    def close(self, timeout: float = 5.0, *, keep_reading: bool = True) -> None:
        """Close the sockets. What was read stays readable.

        Args:
            timeout: Seconds.
            keep_reading: First read what an ended process has still sent.
        """
        if self._is_closing:
            return
        with self.changed:
            self._is_closing = not keep_reading
        self._wake_end.send(b".")  # look at once whether the process has ended
        with self.changed:
            self.changed.wait_for(lambda: self._ended is not None, timeout)
            self._is_closing = True
        self._pump.join(timeout)
        self._wake_end.close()
        self._pump_end.close()

    def _run(self) -> None:
        reason = "the pump has been stopped."
        context = zmq.Context()
        sockets = self._connect(context)
        try:
            self._pump_until_the_end(sockets)
            if not self._is_closing:
                reason = "the kernel process has ended."
        except Exception as error:  # noqa: BLE001 - a waiting test must hear of it, whatever it is
            reason = f"the pump failed: {error!r}"
        finally:
            for opened in sockets.values():
                opened.close(linger=0)
            context.term()
            with self.changed:
                self._ended = reason
                self.changed.notify_all()

    def _connect(self, context: zmq.Context[zmq.Socket[bytes]]) -> dict[Channel, zmq.Socket[bytes]]:
        kinds: dict[Channel, int] = {
            "shell": zmq.DEALER, "control": zmq.DEALER, "stdin": zmq.DEALER, "iopub": zmq.SUB
        }  # fmt: skip
        sockets: dict[Channel, zmq.Socket[bytes]] = {}
        for channel, kind in kinds.items():
            sockets[channel] = opened = context.socket(kind)
            opened.reconnect_ivl = 20  # milliseconds; the kernel is still starting when we connect
            if channel == "iopub":
                opened.subscribe(b"")
            else:
                opened.identity = self._session.bsession
            host, port = self._connection["ip"], self._connection[f"{channel}_port"]
            opened.connect(f"tcp://{host}:{port}")
        return sockets

    def _pump_until_the_end(self, sockets: dict[Channel, zmq.Socket[bytes]]) -> None:
        poller = zmq.Poller()
        poller.register(self._pump_end, zmq.POLLIN)
        for opened in sockets.values():
            poller.register(opened, zmq.POLLIN)
        while not self._is_closing:
            # Asked before polling: what a process wrote last is still read after its end.
            was_alive = self._is_alive()
            ready = dict(poller.poll(_GLANCE_MS))
            if self._pump_end.fileno() in ready:
                self._pump_end.recv(4096)
            self._send_all(sockets)
            arrived = [
                message
                for channel, opened in sockets.items()
                if opened in ready
                for message in self._read_all(channel, opened)
            ]
            if arrived:
                self._file(arrived)
            elif not was_alive and not ready:
                return

    def _send_all(self, sockets: dict[Channel, zmq.Socket[bytes]]) -> None:
        while self._outbox:
            channel, message, buffers = self._outbox.popleft()
            self._session.send(sockets[channel], message, buffers=buffers)

    def _read_all(self, channel: Channel, opened: zmq.Socket[bytes]) -> list[Message]:
        found = []
        while (read := self._session.recv(opened, zmq.NOBLOCK))[1] is not None:
            raw = read[1]
            found.append(
                Message(
                    channel=channel,
                    msg_type=raw["msg_type"],
                    parent_id=raw["parent_header"].get("msg_id", ""),
                    content=raw["content"],
                    metadata=raw["metadata"],
                    buffers=tuple(bytes(part) for part in raw["buffers"]),
                    at_s=time.monotonic(),
                )
            )
        return found

    def _file(self, arrived: list[Message]) -> None:
        with self.changed:
            for message in arrived:
                self.messages.append(message)
                self.by_parent[message.parent_id].append(message)
            self.changed.notify_all()
