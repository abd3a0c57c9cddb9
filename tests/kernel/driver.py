"""A real ipykernel process, driven as a front end drives it.

Nothing here sleeps: one thread reads all channels, files each message under its parent and wakes whoever
waits. Every wait has a timeout, and its error lists what was seen instead.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

from ipykernel._version import version_info
from jupyter_client.connect import write_connection_file

from tests.cells import dedented
from tests.kernel.requests import DEFAULT_TIMEOUT_S, Cell, CellResult, Comm, Request
from tests.kernel.wire import KernelDiedError, Message, Wire
from tests.processes import WaitTimedOutError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from tests.kernel.wire import Channel
    from tests.kernel.zygote import Zygote

__all__ = [
    "Cell",
    "CellResult",
    "Comm",
    "KernelDiedError",
    "KernelDriver",
    "Message",
    "Request",
]

START_TIMEOUT_S = 45.0

# Before 6.29.5 ipykernel goes on aborting for one pass of its loop after the reply that tells of an error. It
# answers "aborted" to a request that comes too soon, with and without loopnb: we send that again.
ABORTS_LATE = version_info < (6, 29, 5)

#: Seconds that a kernel has to end after it has agreed to.
#:
#: An ipykernel that has agreed to sometimes hangs: 7.4.0 in about one case in three, when its control thread
#: flushes a stream whose iopub thread has gone (10 s), and now and then for ever. The setting below shortens
#: the first kind. Jupyter's own kernel manager kills it after 5 s. We wait longer: an end in order takes up
#: to 5 s, and on a busy machine several times as long.
END_WITHIN_S = 30.0
_SHORT_FLUSH = [
    f"--IPKernelApp.exec_lines=__import__('sys').{name}.flush_timeout = 2" for name in ("stdout", "stderr")
]


def _own_address() -> str:
    """Return a local address that no other kernel has: its ports are chosen now, and bound only later."""
    if sys.platform != "linux":
        return "127.0.0.1"  # the only one there
    return "127." + ".".join(str(random.randint(1, 254)) for _ in range(3))


class KernelDriver:
    """Starts a kernel in *folder*, talks to it, and ends it.

    Use it as a context manager. The kernel writes no history and reads no profile of the user's.

    Attributes:
        wire: All messages of the kernel process that runs now; a restart begins a new one.
        log_path: What that process wrote to its real stdout and stderr.
        was_killed: The last process had to be killed although it had agreed to end.
    """

    def __init__(
        self,
        folder: Path,
        *,
        python: str = sys.executable,
        arguments: Sequence[str] = (),
        script: str | None = None,
        env: Mapping[str, str] | None = None,
        zygote: Zygote | None = None,
    ) -> None:
        """Prepare a kernel without starting it.

        Args:
            folder: Its working directory; connection file, logs and IPython's own folder go there too.
            python: The interpreter to run it with.
            arguments: Further arguments for `ipykernel_launcher`.
            script: Python code that is run instead of that, and embeds a kernel. Its argument is the
                connection file.
            env: Environment variables to add.
            zygote: Forks the process, which then has *python* and *script* for nothing. None starts it alone.
        """
        self.folder = folder
        self._python = python
        self._arguments = tuple(arguments)
        self._script = None if script is None else dedented(script)
        self._env = dict(env or {})
        self._zygote = zygote
        self._launches = itertools.count(1)
        self._cell_ids = itertools.count(1)
        key = uuid.uuid4().hex.encode()
        self._connection_file, info = write_connection_file(
            str(folder / "connection.json"), ip=_own_address(), key=key
        )
        self._connection: dict[str, Any] = {**info}
        self._process: subprocess.Popen[bytes] | None = None
        self._last_cell: Cell | None = None
        self.was_killed = False

    def __enter__(self) -> Self:
        self.launch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Not the orderly way: it can take seconds. A test of that calls shutdown() itself.
        self.kill(keep_reading=False)

    # -- life ----------------------------------------------------------------------------------------

    def launch(self) -> None:
        """Start the process and wait until it answers on every channel."""
        self.begin()
        self.wait_ready()

    def begin(self) -> None:
        """Start the process. Call `wait_ready` before anything else."""
        self.log_path = self.folder / f"kernel-{next(self._launches)}.log"
        self._process = self._forked() if self._zygote is not None else self._started()
        try:
            self.wire = Wire(self._connection, self.is_alive)
        except BaseException:
            self._end_process()
            raise

    def _forked(self) -> subprocess.Popen[bytes]:
        assert self._zygote is not None
        self.log_path.touch()
        return self._zygote.start(
            self._launcher_arguments(), folder=self.folder, env=self._environment(), log=self.log_path
        )

    def _started(self) -> subprocess.Popen[bytes]:
        with self.log_path.open("wb") as log:
            return subprocess.Popen(
                self._command(),
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait until the process answers on every channel, or end it."""
        try:
            self._wait_answers()
        except BaseException:
            self.kill()
            raise

    def _command(self) -> list[str]:
        if self._script is not None:
            path = self.folder / "script.py"
            path.write_text(self._script)
            return [self._python, str(path), self._connection_file]
        return [self._python, "-m", "ipykernel_launcher", *self._launcher_arguments()]

    def _launcher_arguments(self) -> list[str]:
        options = ["--HistoryManager.enabled=False", *_SHORT_FLUSH, *self._arguments]
        return ["-f", self._connection_file, *options]

    def _environment(self) -> dict[str, str]:
        # JPY_PARENT_PID: the kernel ends itself when the tests are gone.
        settings = {"JPY_PARENT_PID": str(os.getpid()), "IPYTHONDIR": str(self.folder / "ipython")}
        return {**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1", **settings, **self._env}

    def _wait_answers(self) -> None:
        # The first answers on iopub get lost when its subscription is still on the way: ask again.
        for attempt in itertools.count(1):
            asked = Request(self.wire, self.wire.send("shell", "kernel_info_request", {}))
            try:
                asked.wait_reply(START_TIMEOUT_S)
                asked.wait_idle(0.5)
            except KernelDiedError as error:
                raise KernelDiedError(f"{error}\n{self.log()}") from None
            except WaitTimedOutError as error:
                if asked.reply is None or attempt == 20:
                    raise WaitTimedOutError(f"{error}\n{self.log()}") from None
            else:
                return

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The kernel process."""
        assert self._process is not None, "launch() has not been called"
        return self._process

    def is_alive(self) -> bool:
        """True while the kernel process runs."""
        return self.process.poll() is None

    def log(self) -> str:
        """Return what the process has written to its real stdout and stderr, past its own output capture."""
        return self.log_path.read_text(errors="replace")

    def wait_logged(self, text: str, count: int = 1) -> str:
        """Wait until *text* is in the log so many times, and return the log."""

        def found() -> str | None:
            log = self.log()
            return log if log.count(text) >= count else None

        return self.wire.wait_for(found, DEFAULT_TIMEOUT_S, f"{text!r} in the log")

    def interrupt(self) -> None:
        """Send SIGINT to the kernel's process group, as JupyterLab's stop button does.

        A kernel ignores it between cells: wait for output of the cell first.
        """
        os.killpg(self.process.pid, signal.SIGINT)

    def interrupt_until_done(self, cell: Cell) -> None:
        """Interrupt as somebody does who is in a hurry, until *cell* has ended.

        A blocked kernel cannot say that it has seen an interrupt, and two at once are one to Python.
        """
        for _ in range(50):
            self.interrupt()
            with contextlib.suppress(WaitTimedOutError):
                cell.wait(0.4)
                return

    def shutdown(self, timeout: float = DEFAULT_TIMEOUT_S) -> str:
        """End the kernel as a front end does; return its log and what it printed from then on.

        Args:
            timeout: Seconds until it must have agreed to end.
        """
        return self._end(timeout, restart=False)

    def restart(self, timeout: float = DEFAULT_TIMEOUT_S) -> str:
        """Do the same, then start another process on the same ports."""
        said = self._end(timeout, restart=True)
        self.launch()
        return said

    def _end(self, timeout: float, *, restart: bool) -> str:
        before = len(self.wire.messages)
        request = Request(self.wire, self.wire.send("control", "shutdown_request", {"restart": restart}))
        self.was_killed = False
        try:
            request.wait_reply(timeout)
            self.process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.was_killed = True
        finally:
            self.kill()
        streams = [m.content["text"] for m in self.wire.messages[before:] if m.msg_type == "stream"]
        return self.log() + "".join(streams)

    def kill(self, *, keep_reading: bool = True) -> None:
        """End the process at once, if it still runs, and stop reading.

        Args:
            keep_reading: Read what it has still sent, which takes two tenths of a second.
        """
        self._end_process()
        self.wire.close(keep_reading=keep_reading)

    def _end_process(self) -> None:
        if self.is_alive():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    # -- cells ---------------------------------------------------------------------------------------

    def start(
        self,
        code: str,
        *,
        cell_id: str | None = None,
        subshell_id: str | None = None,
        silent: bool = False,
        stop_on_error: bool = True,
        allow_stdin: bool = False,
    ) -> Cell:
        """Send a cell and return at once.

        Args:
            code: Its source. The driver dedents it.
            cell_id: What the front end calls the cell. None makes a new id; "" sends none.
            subshell_id: From `create_subshell()`; None is the main shell.
            silent: No output, no events but `pre_execute`, no number.
            stop_on_error: An error aborts the cells that are queued behind.
            allow_stdin: It may ask for input, see `Cell.answer()`.
        """
        if ABORTS_LATE and self._last_cell is not None and self._last_cell.has_failed:
            self.value("0")  # it is sent until it is answered
        code = dedented(code)
        sent_id = f"cell-{next(self._cell_ids)}" if cell_id is None else cell_id
        content = {
            "code": code, "silent": silent, "store_history": not silent, "user_expressions": {},
            "allow_stdin": allow_stdin, "stop_on_error": stop_on_error,
        }  # fmt: skip
        metadata = {"cellId": sent_id} if sent_id else {}
        msg_id = self.wire.send(
            "shell", "execute_request", content, metadata=metadata, subshell_id=subshell_id
        )
        self._last_cell = Cell(self.wire, msg_id, code, sent_id)
        return self._last_cell

    def execute(
        self,
        code: str,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        cell_id: str | None = None,
        subshell_id: str | None = None,
    ) -> CellResult:
        """Run a cell to its end; an error in it is a result, not an exception. See `start()`."""
        result = self.start(code, cell_id=cell_id, subshell_id=subshell_id).wait(timeout)
        while ABORTS_LATE and result.status == "aborted":
            result = self.start(code, cell_id=cell_id, subshell_id=subshell_id).wait(timeout)
        return result

    def run(self, code: str, *, timeout: float = DEFAULT_TIMEOUT_S, cell_id: str | None = None) -> CellResult:
        """Run a cell that must succeed."""
        return self.execute(code, timeout=timeout, cell_id=cell_id).expect_ok()

    def value(self, expression: str, *, timeout: float = DEFAULT_TIMEOUT_S) -> Any:
        """Evaluate *expression*, whose repr must be a literal, outside any cell."""
        content = {
            "code": "", "silent": True, "store_history": False, "allow_stdin": False,
            "user_expressions": {"value": expression},
        }  # fmt: skip
        reply = self.ask("execute_request", content, timeout=timeout)
        while ABORTS_LATE and reply["status"] == "aborted":
            reply = self.ask("execute_request", content, timeout=timeout)
        answer = reply["user_expressions"]["value"]
        assert answer["status"] == "ok", answer
        return ast.literal_eval(answer["data"]["text/plain"])

    # -- other requests ------------------------------------------------------------------------------

    def ask(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        channel: Channel = "shell",
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> dict[str, Any]:
        """Send any other request, such as `complete_request`, and return the content of its reply."""
        return Request(self.wire, self.wire.send(channel, msg_type, content)).wait_reply(timeout)

    def create_subshell(self) -> str:
        """Make a subshell (ipykernel 7) and return its id."""
        answer = self.ask("create_subshell_request", {}, channel="control")
        assert answer["status"] == "ok", answer
        return str(answer["subshell_id"])

    # -- comms ---------------------------------------------------------------------------------------

    def open_comm(self, target_name: str, data: Any = None) -> Comm:
        """Open a comm from this side."""
        comm = Comm(self.wire, uuid.uuid4().hex)
        content = {"comm_id": comm.comm_id, "target_name": target_name, "data": data or {}}
        self.wire.send("shell", "comm_open", content)
        return comm

    def comm(self, comm_id: str) -> Comm:
        """Take hold of a comm that the kernel opened, such as `result.widget_id`."""
        return Comm(self.wire, comm_id)
