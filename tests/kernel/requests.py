"""What a test holds of one request to a kernel: a plain one, a running cell, a finished cell, a comm."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.kernel.wire import Message, Wire

DEFAULT_TIMEOUT_S = 20.0

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_OUTPUT_TYPES = {
    "stream", "display_data", "update_display_data", "execute_result", "error", "clear_output"
}  # fmt: skip
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def without_ansi(text: str) -> str:
    """Return *text* without its colour codes."""
    return _ANSI.sub("", text)


def joined(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Return *messages* with the neighbouring pieces of a stream joined, as front ends show them.

    A kernel sends what has been written so far whenever its timer is due. `print('a')` writes twice: the text
    and the end of the line. So it may come as two messages.
    """
    found: list[Message] = []
    for message in messages:
        if found and (stream := _stream_name(message)) and stream == _stream_name(found[-1]):
            text = found[-1].content["text"] + message.content["text"]
            found[-1] = replace(found[-1], content={**found[-1].content, "text": text})
        else:
            found.append(message)
    return tuple(found)


class Request:
    """A message that was sent to the kernel, and all that has come back for it."""

    def __init__(self, wire: Wire, msg_id: str) -> None:
        self.wire = wire
        self.msg_id = msg_id

    @property
    def messages(self) -> tuple[Message, ...]:
        """Everything the kernel sent for this request, in order, on all channels."""
        with self.wire.changed:
            return tuple(self.wire.by_parent.get(self.msg_id, ()))

    @property
    def reply(self) -> Message | None:
        """The reply on the channel it was sent on, if it has come."""
        return next((m for m in self.messages if m.channel not in ("iopub", "stdin")), None)

    @property
    def idle(self) -> Message | None:
        """The status message that ended it, if it has come."""
        return next((m for m in self.messages if _is_idle(m)), None)

    def wait_for(self, probe: Callable[[], Any], what: str, timeout: float = DEFAULT_TIMEOUT_S) -> Any:
        """Wait until *probe* returns something other than None, False or "", and return that."""
        return self.wire.wait_for(lambda: probe() or None, timeout, f"{what} for request {self.msg_id[-6:]}")

    def wait_reply(self, timeout: float = DEFAULT_TIMEOUT_S) -> dict[str, Any]:
        """Wait for the reply and return its content."""
        reply: Message = self.wait_for(lambda: self.reply, "reply", timeout)
        return reply.content

    def wait_idle(self, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        """Wait for the status message that ends the request."""
        self.wait_for(lambda: self.idle, "idle status", timeout)


class Cell(Request):
    """One execution of a cell, running or finished; it goes on collecting output afterwards.

    Attributes:
        code: What was sent.
        cell_id: The id that was sent with it ("" if none was).
    """

    def __init__(self, wire: Wire, msg_id: str, code: str, cell_id: str) -> None:
        super().__init__(wire, msg_id)
        self.code = code
        self.cell_id = cell_id
        self._answered = 0

    @property
    def is_done(self) -> bool:
        """True when both the reply and the idle status have come."""
        return self.reply is not None and self.idle is not None

    @property
    def has_failed(self) -> bool:
        """True if a reply has come that tells of an error, or that the cell was not executed."""
        return self.reply is not None and self.reply.content["status"] != "ok"

    @property
    def outputs(self) -> tuple[Message, ...]:
        """Its output messages so far, late ones included. The pieces of a stream are joined."""
        return joined(m for m in self.messages if m.msg_type in _OUTPUT_TYPES and m.channel == "iopub")

    @property
    def late_outputs(self) -> tuple[Message, ...]:
        """Its output messages that came after it had ended. The pieces of a stream are joined."""
        messages = self.messages
        done = next((n for n, m in enumerate(messages) if _is_idle(m)), None)
        if done is None:
            return ()
        return joined(m for m in messages[done:] if m.msg_type in _OUTPUT_TYPES)

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return _stream(self.outputs, "stdout")

    @property
    def stderr(self) -> str:
        """What it has written to standard error so far."""
        return _stream(self.outputs, "stderr")

    @property
    def text(self) -> str:
        """All its output so far as plain text, in order: streams, displays, result, tracebacks."""
        return "".join(_as_text(m) for m in self.outputs)

    @property
    def late_text(self) -> str:
        """The part of `text` that came after the cell had ended."""
        return "".join(_as_text(m) for m in self.late_outputs)

    def wait_output(self, wanted: str | Callable[[Cell], object], timeout: float = DEFAULT_TIMEOUT_S) -> str:
        """Wait until the output holds *wanted* (text, or a condition on the cell), and return all of it."""
        if isinstance(wanted, str):
            self.wait_for(lambda: wanted in self.text, f"{wanted!r} in the output", timeout)
        else:
            self.wait_for(lambda: wanted(self), "such output", timeout)
        return self.text

    def wait_late(self, wanted: str, timeout: float = DEFAULT_TIMEOUT_S) -> str:
        """Wait until output that came after the cell's end holds *wanted*, and return all of that."""
        self.wait_for(lambda: wanted in self.late_text, f"{wanted!r} in the late output", timeout)
        return self.late_text

    def wait_asked(self, timeout: float = DEFAULT_TIMEOUT_S) -> Message:
        """Wait until the cell asks for input once more, and return what it asks."""
        asked: Message = self.wait_for(self._asked, f"input request {self._answered + 1}", timeout)
        return asked

    def answer(self, value: str, timeout: float = DEFAULT_TIMEOUT_S) -> Message:
        """Wait until the cell asks for input once more, type *value*, and return what it asked."""
        asked = self.wait_asked(timeout)
        self._answered += 1
        self.wire.send("stdin", "input_reply", {"value": value})
        return asked

    def _asked(self) -> Message | None:
        asked = [m for m in self.messages if m.msg_type == "input_request"]
        return asked[self._answered] if len(asked) > self._answered else None

    def wait(self, timeout: float = DEFAULT_TIMEOUT_S) -> CellResult:
        """Wait for the end of the cell, and return what it has come to."""
        self.wait_for(lambda: self.is_done, f"end of cell {self.code[:80]!r}", timeout)
        return self._result()

    def _result(self) -> CellResult:
        assert self.reply is not None
        assert self.idle is not None
        content = self.reply.content
        results = [m.content["data"] for m in self.outputs if m.msg_type == "execute_result"]
        return CellResult(
            cell=self,
            status=content["status"],
            ename=content.get("ename", ""),
            evalue=without_ansi(content.get("evalue", "")),
            traceback=without_ansi("\n".join(content.get("traceback", ()))),
            stdout=self.stdout,
            stderr=self.stderr,
            displays=tuple(m.content["data"] for m in self.outputs if m.msg_type == "display_data"),
            result=results[-1].get("text/plain", "") if results else "",
            execution_count=content.get("execution_count"),
        )


@dataclass(frozen=True, slots=True)
class CellResult:
    """What a cell had come to when it ended.

    Attributes:
        cell: The execution; it goes on collecting late output.
        status: `ok`, `error` or `aborted`.
        ename: Name of the exception class ("" if there was none).
        evalue: Its text.
        traceback: The traceback IPython showed, without colours.
        stdout: What it printed.
        stderr: What it wrote to standard error.
        displays: Mime bundles it displayed.
        result: The shown value of its last expression, as plain text ("" if none).
        execution_count: The number in its prompt; None where the kernel sent none (aborted).
    """

    cell: Cell
    status: str
    ename: str
    evalue: str
    traceback: str
    stdout: str
    stderr: str
    displays: tuple[dict[str, Any], ...]
    result: str
    execution_count: int | None

    def expect_ok(self) -> CellResult:
        """Return the result itself, or fail with the cell's traceback."""
        assert self.status == "ok", f"{self.cell.code}\n{self.status}\n{self.traceback}\n{self.stderr}"
        return self

    @property
    def widget_id(self) -> str:
        """Comm id of the first widget it showed."""
        shown = [*self.displays, *(m.content["data"] for m in self.cell.outputs if "data" in m.content)]
        return next(str(data[_WIDGET_VIEW]["model_id"]) for data in shown if _WIDGET_VIEW in data)


class Comm:
    """One end of a comm, as a front end has it. Buffers go both ways."""

    def __init__(self, wire: Wire, comm_id: str) -> None:
        self.wire = wire
        self.comm_id = comm_id

    @property
    def messages(self) -> tuple[Message, ...]:
        """`comm_open`, `comm_msg` and `comm_close` that the kernel sent on it, in order."""
        with self.wire.changed:
            everything = tuple(self.wire.messages)
        return tuple(
            m for m in everything if m.channel == "iopub" and m.content.get("comm_id") == self.comm_id
        )

    @property
    def received(self) -> tuple[Any, ...]:
        """The data of its messages, without the envelope."""
        return tuple(m.content.get("data") for m in self.messages)

    def send(self, data: Any, *, buffers: Sequence[bytes] = (), subshell_id: str | None = None) -> Request:
        """Send *data* to the kernel's end; with *subshell_id* stamped as JupyterLab does."""
        content = {"comm_id": self.comm_id, "data": data}
        msg_id = self.wire.send("shell", "comm_msg", content, buffers=buffers, subshell_id=subshell_id)
        return Request(self.wire, msg_id)

    def send_custom(self, content: Any, *, subshell_id: str | None = None) -> Request:
        """Send what `model.send(content)` of a widget's front end sends."""
        return self.send({"method": "custom", "content": content}, subshell_id=subshell_id)

    def wait_message(
        self,
        wanted: Callable[[Any], object],
        timeout: float = DEFAULT_TIMEOUT_S,
        *,
        after: int = 0,
    ) -> Message:
        """Wait for a message whose data satisfies *wanted*.

        Args:
            wanted: Called with the data of each message.
            timeout: Seconds.
            after: How many messages to leave out at the beginning (`len(comm.messages)` beforehand).
        """
        return self.wire.wait_for(
            lambda: next((m for m in self.messages[after:] if wanted(m.content.get("data"))), None),
            timeout,
            f"such message on comm {self.comm_id}",
        )

    def close(self) -> Request:
        """Close it from this side."""
        content = {"comm_id": self.comm_id, "data": {}}
        return Request(self.wire, self.wire.send("shell", "comm_close", content))


def _is_idle(message: Message) -> bool:
    return message.msg_type == "status" and message.content["execution_state"] == "idle"


def _stream_name(message: Message) -> str:
    return str(message.content["name"]) if message.msg_type == "stream" else ""


def _stream(outputs: Sequence[Message], name: str) -> str:
    return "".join(m.content["text"] for m in outputs if m.msg_type == "stream" and m.content["name"] == name)


def _as_text(message: Message) -> str:
    content = message.content
    if message.msg_type == "stream":
        return without_ansi(content["text"])
    if message.msg_type == "error":
        return without_ansi("\n".join(content["traceback"])) + "\n"
    return without_ansi(str(content.get("data", {}).get("text/plain", ""))) + "\n"
