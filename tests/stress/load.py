"""Keep the machine busy while cells are interrupted."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import deque
from contextlib import ExitStack, contextmanager
from textwrap import dedent
from typing import TYPE_CHECKING

from tests.kernel.requests import Request
from tests.kernel.wire import KernelDiedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.driver import KernelDriver
    from tests.stress.choice import Load

_CHATTER_EVERY_S = 0.01
#: The most requests that the kernel has not answered. A socket that holds too many blocks the sender.
_MOST_UNANSWERED = 20

_START_THREADS = dedent(
    """
    import threading

    hogs_may_end = threading.Event()

    def hog():
        while not hogs_may_end.is_set():
            sum(range(1000))

    for _ in range(2):
        threading.Thread(target=hog, daemon=True).start()
    """
)
_END_THREADS = "hogs_may_end.set()"


@contextmanager
def beside(kernel: KernelDriver, load: Load) -> Iterator[None]:
    """Keep *load* up beside *kernel*, which may die meanwhile."""
    with ExitStack() as stack:
        if load.threads:
            stack.enter_context(_threads(kernel))
        if load.process:
            stack.enter_context(_process())
        if load.chatter:
            stack.enter_context(_chatter(kernel))
        yield


@contextmanager
def _threads(kernel: KernelDriver) -> Iterator[None]:
    kernel.run(_START_THREADS)
    yield
    if kernel.is_alive():
        kernel.run(_END_THREADS)


@contextmanager
def _process() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: sum(range(1000))"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _chatter(kernel: KernelDriver) -> Iterator[None]:
    may_end = threading.Event()

    def chat() -> None:
        sent: deque[Request] = deque()
        while not may_end.wait(_CHATTER_EVERY_S):
            while sent and sent[0].reply is not None:
                sent.popleft()
            if len(sent) == _MOST_UNANSWERED:
                continue
            try:
                sent.append(Request(kernel.wire, kernel.wire.send("control", "kernel_info_request", {})))
            except (KernelDiedError, OSError):  # it has been closed
                return

    thread = threading.Thread(target=chat, name="chatter")
    thread.start()
    try:
        yield
    finally:
        may_end.set()
        thread.join()
