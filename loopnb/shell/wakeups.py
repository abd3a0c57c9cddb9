"""Deliver interrupts that Python itself would lose before or after it calls a handler.

The problem. Python's signal handler in C only sets a flag. The handler set with `signal.signal` runs when the
interpreter next checks the flag. So an interrupt can be lost in two ways.

*   The signal arrives after the interpreter has checked the flag and before it enters a blocking system call:
    `epoll_wait`, `clock_nanosleep`, `sem_wait`. The handler runs only when that call has ended.
*   The handler runs, but its KeyboardInterrupt is raised where no error can propagate: in a weakref callback,
    in `__del__`, in a function that `os.fork()` calls, where pyzmq frees a message. Python reports it
    ("Exception ignored in") and goes on.

The solution to the first. Python writes a byte to a file descriptor for each signal (`signal.set_wakeup_fd`).
A thread reads these bytes. After a SIGINT it *nudges* the main thread a few times: it sends a signal whose
only effect is to end a system call. The interpreter then checks its flag. It runs our handler if that is
still due, and otherwise resumes the call. So a nudge does no harm if the handler has run already. Sending
SIGINT a second time could: it might hit an `except KeyboardInterrupt` that is cleaning up.

The solution to the second. `sys.unraisablehook` tells us that the KeyboardInterrupt was lost. The thread then
sends SIGINT again, as soon as the hook has returned.

A process has only one wake-up descriptor. A loop with signal handlers installs its own, and so does trio.
Signals then wake *their* select, but nobody nudges. We patch `signal.set_wakeup_fd` to reinstall ours when
they remove theirs, and to hide ours from trio, which warns if it finds one.

The nudge is SIGURG. Python and the system ignore it, debuggers pass it on, and Go's runtime uses it in the
same way for the same reasons. If something else handles it, nothing is nudged.

What it cannot do. It cannot end a call in C code that retries by itself, without Python. It does not work on
Windows, where signals do not end system calls. It cannot nudge while a loop keeps its own descriptor for as
long as it runs, as uvloop does. Nor can it during a `time.sleep` while the persistent loop has a signal
handler.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from loopnb.loop._cpython import is_open_descriptor
from loopnb.patching import Patch, looking_like

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds before each nudge. The first usually suffices. On a busy machine the system call may begin later.
_NUDGES_S = (0.01, 0.03, 0.1, 0.3, 1.0)
#: Seconds before an interrupt is sent again. By then the hook that asked for it must have returned.
_AGAIN_AFTER_S = 0.005

_NUDGE: int = getattr(signal, "SIGURG", 0)
_HAS_NUDGES = _NUDGE != 0 and hasattr(signal, "pthread_kill")


def _on_nudge(_signum: int, _frame: object) -> None:
    """Do nothing: the system call has ended by now."""


class Wakeups:
    """Make sure that an interrupt reaches its cell. If started outside the main thread, it does nothing.

    Args:
        is_executing: Returns True if a cell executes in the main thread. Any thread.
    """

    def __init__(self, is_executing: Callable[[], bool]) -> None:
        self._is_executing = is_executing
        self._announcements: _Announcements | None = None
        self._hook = Patch(sys, "unraisablehook", self._on_unraisable)
        self._stock_hook: Callable[[Any], object] = sys.unraisablehook

    def start(self) -> None:
        """Start watching. Does nothing where signals cannot be watched."""
        if not _HAS_NUDGES or threading.current_thread() is not threading.main_thread():
            return
        self._stock_hook = sys.unraisablehook
        announcements = _Announcements()
        try:
            self._hook.install()
            announcements.start()
        except BaseException:
            self._hook.restore()
            announcements.forget()
            raise
        self._announcements = announcements

    def stop(self) -> None:
        """Undo `start`. Blocks until the thread has ended, which it does at once."""
        self._hook.restore()
        if self._announcements is not None:
            self._announcements.stop()
            self._announcements = None

    def send_again(self, is_wanted: Callable[[], bool | None]) -> None:
        """Send an interrupt again in some milliseconds, if *is_wanted* returns True then. Any thread.

        Args:
            is_wanted: Called in another thread. If it returns None, it is called again in some milliseconds.
        """
        if self._announcements is not None:
            self._announcements.send_again(is_wanted)

    def _on_unraisable(self, unraisable: Any) -> None:
        if self._is_lost(unraisable):
            # On a busy machine the new SIGINT may come while this still runs, and be lost as well. So ask
            # once more.
            try:
                self.send_again(self._is_executing)
            except KeyboardInterrupt:
                self.send_again(self._is_executing)
        else:
            self._stock_hook(unraisable)

    def _is_lost(self, unraisable: Any) -> bool:
        return (
            self._announcements is not None
            and threading.current_thread() is threading.main_thread()
            and issubclass(unraisable.exc_type, KeyboardInterrupt)
            and self._is_executing()
        )


class _Announcements:
    """Read, in a thread, the signals that Python announces, and nudge the main thread after a SIGINT."""

    def __init__(self) -> None:
        self._main = threading.main_thread().ident or 0
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._again: Callable[[], bool | None] | None = None
        self._stock = signal.set_wakeup_fd
        self._patch = Patch(signal, "set_wakeup_fd", self._make_set_wakeup_fd())
        self._thread = threading.Thread(target=self._watch, name="loopnb interrupts", daemon=True)

    def start(self) -> None:
        """Make Python announce signals to this object. The main thread."""
        self._patch.install()
        if signal.getsignal(_NUDGE) is signal.SIG_DFL:
            signal.signal(_NUDGE, _on_nudge)
        before = self._set_own()
        if before != -1 and is_open_descriptor(before):
            self._stock(before)  # it is somebody else's: ours comes when they remove it
        self._thread.start()
        _active.add(self)

    def stop(self) -> None:
        """Undo `start`, and block until the thread has ended. The main thread."""
        _active.discard(self)
        self._patch.restore()
        self._leave()
        if signal.getsignal(_NUDGE) is _on_nudge:
            signal.signal(_NUDGE, signal.SIG_DFL)
        self._writer.close()  # which ends the thread
        self._thread.join()
        self._reader.close()

    def forget(self) -> None:
        """Stop watching where there is no thread: in a forked child process, or after a failed `start`."""
        self._leave()
        self._writer.close()
        self._reader.close()

    def send_again(self, is_wanted: Callable[[], bool | None]) -> None:
        """Resend a lost interrupt in some milliseconds, if *is_wanted* returns True then. Any thread."""
        self._again = is_wanted
        with suppress(OSError):  # the socket is full, so the thread wakes anyway; or we are in a forked child
            self._writer.send(b"\0")

    # -- the descriptor -----------------------------------------------------------------------

    def _set_own(self) -> int:
        return self._stock(self._writer.fileno(), warn_on_full_buffer=False)

    def _leave(self) -> None:
        own = self._writer.fileno()
        present = self._stock(-1)
        if present not in (-1, own) and is_open_descriptor(present):
            self._stock(present)

    def _make_set_wakeup_fd(self) -> Callable[..., int]:
        """Return the replacement of `signal.set_wakeup_fd`. Asked to set -1, it sets our descriptor."""

        def set_wakeup_fd(fd: int, /, *, warn_on_full_buffer: bool = True) -> int:
            own = self._writer.fileno()  # -1 when it is closed
            if fd == -1 and own != -1:
                before = self._set_own()
            else:
                before = self._stock(fd, warn_on_full_buffer=warn_on_full_buffer)
            return -1 if before == own else before

        return looking_like(self._stock, set_wakeup_fd)

    # -- the thread ---------------------------------------------------------------------------

    def _watch(self) -> None:
        nudges: Iterator[float] = iter(())
        wait_s: float | None = None
        while True:
            self._reader.settimeout(wait_s if self._again is None else _AGAIN_AFTER_S)
            try:
                signals = self._reader.recv(4096)
            except TimeoutError:
                if self._again is not None:
                    self._resend(self._again)
                else:
                    self._nudge()
                    wait_s = next(nudges, None)
                continue
            if not signals:
                return
            if signal.SIGINT in signals:
                nudges = iter(_NUDGES_S)
                wait_s = next(nudges)

    def _resend(self, is_wanted: Callable[[], bool | None]) -> None:
        is_known = is_wanted()
        if is_known is None:
            return
        if self._again is is_wanted:
            self._again = None
        if is_known:
            signal.pthread_kill(self._main, signal.SIGINT)

    def _nudge(self) -> None:
        if signal.getsignal(_NUDGE) is _on_nudge:
            signal.pthread_kill(self._main, _NUDGE)


#: The objects that are watching. Process-wide: a function registered with `os.register_at_fork` stays.
_active: WeakSet[_Announcements] = WeakSet()


def _after_fork() -> None:
    for announcements in list(_active):
        _active.discard(announcements)
        announcements.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
