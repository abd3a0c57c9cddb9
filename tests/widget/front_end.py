"""The other side of the widget's comm: a page that keeps copies of what the kernel sends, as browsers do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from comm.base_comm import BaseComm

from loopnb.widgets import protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class FrontEnd:
    """What a page would know: every message that was sent to it, by comm, and what its views show.

    Attributes:
        heard: The custom messages since `ops` was last called.
        shared: The header.
        windows: The rows of each view, by its id.
        timelines: The timeline of each view, by its id.
        sizes: The bytes of each message.
        gaps: The messages that did not fit what the page has.
    """

    def __init__(self) -> None:
        self.comms: list[FakeComm] = []
        self.heard: list[dict[str, Any]] = []
        self.state: dict[str, Any] = {}
        self.shared: Any = None
        self.windows: dict[str, Any] = {}
        self.timelines: dict[str, Any] = {}
        self.sizes: list[int] = []
        self.gaps: list[dict[str, Any]] = []

    def create_comm(self, **options: Any) -> BaseComm:
        """Stand in for `comm.create_comm`."""
        comm = FakeComm(self, **options)
        self.comms.append(comm)
        return comm

    def ops(self) -> list[str]:
        """Name the custom messages that were heard since the last call, and forget them."""
        heard, self.heard = self.heard, []
        return [message["op"] for message in heard]

    def last(self, op: str) -> dict[str, Any]:
        """Return the last message with that op."""
        return next(message for message in reversed(self.heard) if message["op"] == op)

    def rows(self, view: str = "v") -> list[dict[str, Any]]:
        """Return what a view shows, row by row."""
        window = self.windows[view]
        return [window["rows"][key] for key in window["keys"]]

    def say(self, **content: object) -> None:
        """Send a custom message to the widget."""
        data = {"method": "custom", "content": json.loads(json.dumps(content))}
        self._widgets_comm().handle_msg({"content": {"data": data}, "buffers": []})

    def reload(self) -> None:
        """Ask for the whole state, as a page does when it is loaded again."""
        data = {"method": "request_state"}
        self._widgets_comm().handle_msg({"content": {"data": data}, "buffers": []})

    def receive(self, data: Mapping[str, Any]) -> None:
        """Take what the kernel sent."""
        match data:
            case {"method": "update", "state": {"snapshot": state}} | {"state": {"snapshot": state}}:
                self.state = state
            case {"method": "custom", "content": content}:
                self.sizes.append(protocol.size_of(content))
                message = json.loads(json.dumps(content))
                self.heard.append(message)
                self._apply(message)

    def _apply(self, message: dict[str, Any]) -> None:
        op, view = message["op"], str(message.get("view"))
        if op == "shared":
            self.shared = message["shared"]
        elif op in {"head", "beat", "block"}:
            self.shared = self._fitting(message, self.shared and protocol.apply_shared(self.shared, message))
        elif op == "window":
            after = protocol.apply_window(self.windows.get(view), message)
            self.windows[view] = self._fitting(message, after)
        elif op == "timeline":
            bars = protocol.apply_timeline(self.timelines.get(view), message)
            self.timelines[view] = self._fitting(message, bars)

    def _fitting(self, message: dict[str, Any], after: Any) -> Any:
        if after is None:
            self.gaps.append(message)
        return after

    def _widgets_comm(self) -> FakeComm:
        return next(comm for comm in self.comms if "_esm" in comm.opened_with)


class FakeComm(BaseComm):
    """A comm that ends in a `FrontEnd`, and routes as ipykernel 7.4 does."""

    def __init__(self, front_end: FrontEnd, **options: Any) -> None:
        self.front_end = front_end
        self.opened_with: dict[str, Any] = options["data"]["state"]
        self.is_open = True
        super().__init__(**options)

    def publish_msg(
        self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any
    ) -> None:
        """Hand the message over at once."""
        if msg_type == "comm_close":
            self.is_open = False
        elif "_esm" in self.opened_with:
            self.front_end.receive(data)

    def _reply_subshell_for(self, data: Any, default: Any) -> Any:
        return "the subshell of the last publish"
