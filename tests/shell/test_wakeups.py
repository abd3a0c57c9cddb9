"""Interrupts that Python would lose below any handler, without a kernel."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from loopnb.shell.wakeups import Wakeups

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")

_stock_set_wakeup_fd = signal.set_wakeup_fd


@pytest.fixture
def wakeups() -> Iterator[Wakeups]:
    wakeups = Wakeups(lambda: True)
    wakeups.start()
    yield wakeups
    wakeups.stop()


class Swallows:
    """Raises where nothing can be raised."""

    def __del__(self) -> None:
        raise KeyboardInterrupt


def interrupt_elsewhere() -> None:
    # In this thread: it takes the note, and the main thread's call goes on. So it does when the signal comes
    # just before the call.
    time.sleep(0.05)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)


WAITS = {
    "sleep": lambda: time.sleep(20),
    "lock": lambda: threading.Semaphore(0).acquire(timeout=20),
    "reading": lambda: os.read(os.pipe()[0], 1),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_an_interrupt_that_ends_no_call_is_delivered(wakeups: Wakeups, wait: Any) -> None:
    thread = threading.Thread(target=interrupt_elsewhere)
    began = time.monotonic()

    def start_and_wait() -> None:
        thread.start()
        wait()

    with pytest.raises(KeyboardInterrupt):
        start_and_wait()  # on a busy machine, the interrupt may come before the wait

    thread.join()
    assert time.monotonic() - began < 10


def test_a_nudge_interrupts_nothing_that_an_interrupt_has_begun(wakeups: Wakeups) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)

    time.sleep(0.2)  # a cleanup, during which nudges come


def test_an_interrupt_swallowed_in_a_finalizer_is_sent_again(wakeups: Wakeups) -> None:
    def swallow_and_wait() -> None:
        Swallows()
        time.sleep(20)

    with pytest.raises(KeyboardInterrupt):
        swallow_and_wait()


def test_other_errors_of_finalizers_are_reported_as_before() -> None:
    told: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, told.append
    wakeups = Wakeups(lambda: False)
    wakeups.start()
    try:
        Swallows()
    finally:
        wakeups.stop()
        sys.unraisablehook, is_ours = before, sys.unraisablehook == told.append

    assert [error.exc_type for error in told] == [KeyboardInterrupt]
    assert is_ours


def test_others_find_no_descriptor_and_ours_is_back_when_theirs_goes(wakeups: Wakeups) -> None:
    ours = _stock_set_wakeup_fd(-1)
    _stock_set_wakeup_fd(ours)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    assert ours != -1
    assert signal.set_wakeup_fd(writer) == -1
    assert signal.set_wakeup_fd(-1) == writer
    assert _stock_set_wakeup_fd(-1) == ours
    _stock_set_wakeup_fd(ours)
    os.close(reader)
    os.close(writer)


def test_stopping_leaves_no_trace() -> None:
    def trace() -> tuple[Any, ...]:
        wakeup_fd = _stock_set_wakeup_fd(-1)
        return (
            signal.getsignal(signal.SIGURG), signal.set_wakeup_fd, sys.unraisablehook, wakeup_fd,
            threading.active_count(), len(os.listdir("/dev/fd")),
        )  # fmt: skip

    gc.collect()  # it would close what earlier tests have left
    before = trace()
    wakeups = Wakeups(lambda: True)
    wakeups.start()
    wakeups.stop()

    assert trace() == before


def test_the_descriptor_of_others_stays(wakeups: Wakeups) -> None:
    wakeups.stop()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)

    wakeups.start()
    wakeups.stop()

    assert signal.set_wakeup_fd(-1) == writer
    os.close(reader)
    os.close(writer)


def test_a_forked_process_is_left_alone() -> None:
    code = dedent(
        """
        import os, signal, sys
        from loopnb.shell.wakeups import Wakeups
        stock = signal.set_wakeup_fd
        wakeups = Wakeups(lambda: True)
        wakeups.start()
        child = os.fork()
        if not child:
            assert stock(-1) == -1
            assert signal.set_wakeup_fd(-1) == -1
            wakeups.stop()
            os._exit(0)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or int(stock(-1) == -1))
        """
    )

    assert (
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=20, check=False).returncode == 0
    )
