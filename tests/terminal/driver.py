"""A real `ipython` on a pseudo-terminal, driven as a person does: by keys, and by what the screen says.

Nothing here sleeps: one thread reads the terminal and wakes whoever waits. Every wait has a timeout, and
its error shows what was seen instead.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from typing import TYPE_CHECKING

from tests.cells import dedented
from tests.processes import WaitTimedOutError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

TIMEOUT_S = 20.0
CTRL_C, CTRL_D = "\x03", "\x04"

_PASTE = "\x1b[200~{}\x1b[201~"
_RUN = "\x1b\r"  # Escape, Enter: run the cell however complete it looks
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[=>()][0-9A-B]?|\r")


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # A shell starts what runs in the background with interrupts ignored, and that is inherited.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """Starts `ipython` in *folder*, types into it and reads what it prints. A context manager.

    Args:
        folder: Working directory; IPython's own folder goes there, too.
        arguments: Further arguments for `ipython`.
        env: Environment variables to add.

    Attributes:
        folder: The working directory.
    """

    def __init__(
        self, folder: Path, *, arguments: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self._arguments = tuple(arguments)
        self._env = dict(env or {})
        self._raw = b""
        self._changed = threading.Condition()
        self._is_over = False
        self.count = 1  # the cell that the prompt is for
        self.mark = 0  # the screen up to here has been dealt with

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def begin(self) -> None:
        """Start the process; `wait_prompt` waits until it is there."""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 250, 0, 0))
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "IPython", "--no-banner", "--no-confirm-exit", "--colors=nocolor",
                "--HistoryManager.enabled=False", "--no-term-title",
                "--TerminalInteractiveShell.autosuggestions_provider=None", *self._arguments,
            ],
            cwd=self.folder, env=self._environment(), stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """End the process at once, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        os.close(self._master)

    def _environment(self) -> dict[str, str]:
        # The terminal that runs the tests must not shine through. CPR would ask it where the cursor is.
        plain = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "PYTHONWARNINGS": "default"}
        return {**os.environ, "IPYTHONDIR": str(self.folder / "ipython"), **plain, **self._env}

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # Linux: nobody has the other side open any more
                data = b""
            with self._changed:
                self._raw += data
                self._is_over = self._is_over or not data
                self._changed.notify_all()
            if not data:
                return

    # -- seeing --------------------------------------------------------------------------------------

    @property
    def screen(self) -> str:
        """All that was ever printed, without what moves the cursor or colours it."""
        return _CONTROL.sub("", self._raw.decode(errors="replace"))

    def wait_for(self, pattern: str, timeout_s: float = TIMEOUT_S) -> re.Match[str]:
        """Wait until *pattern* appears behind the mark, and return the match."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                found = re.compile(pattern).search(self.screen, self.mark)
                if found:
                    return found
                if self._is_over or not self._changed.wait(deadline - time.monotonic()):
                    raise WaitTimedOutError(f"no {pattern!r} in:\n{self.screen[self.mark :]}")

    def wait_prompt(self, timeout_s: float = TIMEOUT_S) -> str:
        """Wait for the prompt of the next cell and return what was printed up to it."""
        start = self.mark
        prompt = self.wait_for(rf"In \[{self.count}\]:", timeout_s)
        self.mark = prompt.end()
        return self.screen[start : prompt.start()]

    # -- typing --------------------------------------------------------------------------------------

    def keys(self, keys: str) -> None:
        """Press *keys*."""
        os.write(self._master, keys.encode())

    def start(self, code: str) -> None:
        """Enter *code*, dedented, as one cell. Give it a line of output to wait for."""
        self.mark = len(self.screen)
        self.count += 1
        self.keys(_PASTE.format(dedented(code)) + _RUN)

    def run(self, code: str, timeout_s: float = TIMEOUT_S) -> str:
        """Run *code* as a cell and return what the terminal showed, the echo included."""
        self.start(code)
        return self.wait_prompt(timeout_s)

    def value(self, expression: str) -> str:
        """Return the repr of *expression*, evaluated in a cell of its own."""
        shown = self.run(f"print('=' * 3, repr({expression}), '=' * 3)")
        found = re.search(r"=== (.*) ===", shown)
        assert found, shown
        return found[1]

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.keys(CTRL_C)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself."""
        self._process.send_signal(number)

    def wait_end(self, timeout_s: float = TIMEOUT_S) -> str:
        """Wait until the process has ended, and return what it printed since the mark."""
        code = self._process.wait(timeout_s)
        self._reader.join(timeout_s)
        assert code == 0, self.screen
        return self.screen[self.mark :]
