"""A debugger attached to the kernel, as JupyterLab does it, stops in nested runs and after them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from tests.cells import dedented

if TYPE_CHECKING:
    from tests.kernel.driver import KernelDriver

# As the driver sends it: the debugger knows a cell by a hash of its text.
CODE = dedented(
    """
    import asyncio
    async def inner(x):
        await asyncio.sleep(0.01)
        y = x + 1
        return y
    def helper(x):
        got = asyncio.run(inner(x))
        after = got * 2
        return after
    print(helper(20))
    """
)


class Debugger:
    """JupyterLab's side of the debug adapter protocol."""

    def __init__(self, kernel: KernelDriver) -> None:
        self.kernel = kernel
        self._numbers = itertools.count(1)
        self._seen = 0
        options = {"clientID": "tests", "adapterID": "", "pathFormat": "path", "linesStartAt1": True}
        self.ask("initialize", {**options, "columnsStartAt1": True, "supportsVariableType": True})
        self.ask("attach", {"justMyCode": True})

    def ask(self, command: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request of the protocol, and return the body of its answer."""
        content = {"type": "request", "seq": next(self._numbers), "command": command}
        answer = self.kernel.ask(
            "debug_request", {**content, "arguments": arguments or {}}, channel="control"
        )
        assert answer.get("success"), answer
        body: dict[str, Any] = answer.get("body") or {}
        return body

    def break_at(self, code: str, *lines: int) -> None:
        """Set breakpoints in the cell that will run *code*."""
        source = {"path": self.ask("dumpCell", {"code": code})["sourcePath"]}
        breakpoints = [{"line": line} for line in lines]
        self.ask("setBreakpoints", {"source": source, "breakpoints": breakpoints, "sourceModified": False})
        self.ask("configurationDone")

    def wait_stopped(self) -> tuple[int, dict[str, Any]]:
        """Wait until the program stops again; return the thread and its innermost frame."""
        wire = self.kernel.wire

        def stopped() -> int | None:
            for number, message in enumerate(wire.messages[self._seen :], start=self._seen + 1):
                if message.msg_type == "debug_event" and message.content["event"] == "stopped":
                    self._seen = number
                    return int(message.content["body"]["threadId"])
            return None

        thread_id = wire.wait_for(stopped, 20, "stopped event")
        return thread_id, self.ask("stackTrace", {"threadId": thread_id})["stackFrames"][0]

    def variables(self, frame: dict[str, Any]) -> dict[str, str]:
        """Return the local variables of *frame*."""
        scope = self.ask("scopes", {"frameId": frame["id"]})["scopes"][0]
        found = self.ask("variables", {"variablesReference": scope["variablesReference"]})["variables"]
        return {variable["name"]: variable["value"] for variable in found}

    def go_on(self, command: str, thread_id: int) -> None:
        """Have the thread go on, by "continue" or "next"."""
        self.ask(command, {"threadId": thread_id})


@pytest.fixture
def debugger(fresh_kernel: KernelDriver) -> Debugger:
    return Debugger(fresh_kernel)


def test_breakpoints_in_a_nested_run_and_after_it_stop_and_the_kernel_goes_on(debugger: Debugger) -> None:
    kernel = debugger.kernel
    debugger.break_at(CODE, 4, 8)
    cell = kernel.start(CODE)
    thread_id, top = debugger.wait_stopped()
    assert (top["name"], top["line"]) == ("inner", 4)
    assert debugger.variables(top)["x"] == "20"

    debugger.go_on("continue", thread_id)
    thread_id, top = debugger.wait_stopped()
    assert (top["name"], top["line"]) == ("helper", 8)
    assert debugger.variables(top)["got"] == "21"

    debugger.go_on("continue", thread_id)
    assert cell.wait().expect_ok().stdout == "42\n"

    debugger.break_at(CODE)
    assert kernel.run("helper(1)").result == "4"
    debugger.ask("disconnect", {"restart": False, "terminateDebuggee": False})
    assert kernel.run("helper(2)").result == "6"


def test_a_step_over_a_nested_run_ends_on_the_next_line(debugger: Debugger) -> None:
    debugger.break_at(CODE, 7)
    cell = debugger.kernel.start(CODE)
    thread_id, top = debugger.wait_stopped()
    assert (top["name"], top["line"]) == ("helper", 7)

    debugger.go_on("next", thread_id)
    thread_id, top = debugger.wait_stopped()
    assert (top["name"], top["line"]) == ("helper", 8)

    debugger.go_on("continue", thread_id)
    assert cell.wait().expect_ok().stdout == "42\n"


def test_a_breakpoint_in_an_aloop_cell_stops(debugger: Debugger) -> None:
    code = dedented(
        """
        %%aloop
        import asyncio
        await asyncio.sleep(0)
        z = 1
        z
        """
    )
    debugger.break_at(code, 4)
    cell = debugger.kernel.start(code)
    thread_id, top = debugger.wait_stopped()
    assert top["line"] == 4

    debugger.go_on("continue", thread_id)
    assert cell.wait().result == "1"
