"""The other side of the widget's comm, and a loop whose time passes at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comm.base_comm import BaseComm

if TYPE_CHECKING:
    from collections.abc import Mapping


class FrontEnd:
    """What a page would know: every message that was sent to it, by comm, and the state it draws."""

    def __init__(self) -> None:
        self.comms: list[FakeComm] = []
        self.state: dict[str, Any] = {}
        self.heard: list[dict[str, Any]] = []

    def create_comm(self, **options: Any) -> BaseComm:
        """Stand in for `comm.create_comm`."""
        comm = FakeComm(self, **options)
        self.comms.append(comm)
        return comm

    def ops(self) -> list[str]:
        """Name the custom messages that were heard since the last call, and forget them."""
        heard, self.heard = self.heard, []
        return [message["op"] for message in heard]

    def say(self, **content: object) -> None:
        """Send a custom message to the widget."""
        data = {"method": "custom", "content": content}
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
                self.heard.append(content)
                if content["op"] == "delta":
                    self._apply(content)

    def _apply(self, delta: dict[str, Any]) -> None:
        assert delta["base"] == self.state["seq"]
        tasks = self.state["tasks"] | delta["tasks"]
        tasks = {number: row for number, row in tasks.items() if int(number) not in delta["gone"]}
        kept = {key: delta[key] for key in ("seq", "taken_at", "clock_s")}
        self.state = self.state | kept | {"tasks": tasks, "loop": delta.get("loop", self.state["loop"])}

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
