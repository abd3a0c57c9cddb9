"""Manage signal handlers: who gets a signal, when a handler is removed, and where its error goes.

The wish. A script owns its signals: its handlers end with it, and an error in a handler ends the script. In a
notebook the process is the kernel's. Cells, runs and background tasks set handlers side by side, and an
interrupt is meant for the executing cell.

What does not work. asyncio calls `loop._signal_handlers[SIGINT]` for each SIGINT, whatever Python's own
handler is. So interrupting a later cell calls the handler of an earlier one, and an error in that ends the
kernel. A handler set with `signal.signal()` stays in place after its run has ended. It raises wherever the
main thread is, and in an idle kernel the main thread is in the loop itself.

The solution.

*   All handlers of one signal form a stack, whether added to the loop or set in Python (`handlers.py`). A
    handler is removed when the run that set it ends. A handler that a cell sets outside of any run stays.
*   A handler of SIGINT is installed only for the executing cell, and removed at the end of that cell at the
    latest. If a background task adds one to the loop, it is never called: no interrupt is meant for it.
*   The loop answers a signal only while Python's handler of it is the loop's own.
*   While a cell waits, we handle SIGINT. To other code our handler looks like Python's own. trio and
    `asyncio.Runner` look for that before they set theirs. When they set Python's own again, ours comes back.
    So other event loops guard themselves, and are interrupted in their own way.
*   An interrupt concerns a background task only if its step blocks the loop. So if it sets a handler of
    SIGINT in Python, we install that only for the present step, and only over ours.
*   An error in a handler goes to the innermost nested run that the cell waits in, or else to the cell. If no
    cell executes, the error is reported and the kernel goes on. SystemExit and KeyboardInterrupt on SIGTERM
    end the kernel in order. If a signal interrupts the user's own code, the error is raised there, as in a
    script.

We patch `signal.signal` and `signal.getsignal`, to learn who sets a handler and to keep its errors out of the
loop. What we install is then a handler of ours (`_Contained`), and `getsignal` still returns the user's.
Handlers of SIGINT are installed unchanged: their errors always have a cell to go to.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast
from weakref import WeakSet

from loopnb.frames import (
    Owner,
    is_loops,
    is_our_callable,
    is_ours,
    outwards,
    owner_of,
    users_frames,
    without_any_frames_of,
)
from loopnb.loop._cpython import signal_gate
from loopnb.loop.handlers import Handler, Stack
from loopnb.nesting._cpython import HANDLE_RUN_CODE, RUN_FOREVER_CODE, RUN_ONCE_CODE, running_loop
from loopnb.nesting.fatal import is_fatal
from loopnb.patching import MethodWrapper, Patch, PatchSet, looking_like

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

#: True in a handler of SIGTERM and in the tasks that it spawns. Process-wide: those may outlive a session.
_on_sigterm: ContextVar[bool] = ContextVar("on_sigterm", default=False)


def is_handling_sigterm() -> bool:
    """Return True in a handler of SIGTERM, and in the tasks that it spawns. Any thread."""
    return _on_sigterm.get()


class SignalHost(Protocol):
    """What signal handlers need from the kernel or terminal. Called in the loop's thread."""

    def end(self) -> None:
        """Begin to shut down, in order."""

    def is_own_handler(self) -> bool:
        """Return True if the signal handler is being set by the host itself, not by user code."""

    def run_of_caller(self) -> asyncio.Task[Any] | None:
        """Return the main task of the run that the caller is part of; None in the cell itself."""

    def is_callers_cell(self, run: asyncio.Task[Any] | None) -> bool:
        """Return True if the caller is part of the cell that executes.

        Args:
            run: The main task of the caller's run.
        """

    def is_background(self, task: asyncio.Task[Any]) -> bool:
        """Return True unless *task* was spawned by an executing cell, as a foreground task."""

    def is_idle(self) -> bool:
        """Return True if no cell executes."""

    def is_sigint_reset(self) -> bool:
        """Return True if the host itself sets the handler of SIGINT before the next cell."""

    def give_to_cell(self, error: BaseException) -> bool:
        """Raise *error* from what the executing cell waits for. Return False if no cell waits."""

    def report_handler(self, name: str, error: BaseException) -> None:
        """Report that a handler of signal *name*, set by code in the current Context, raised *error*."""


# -- the handlers of one signal ------------------------------------------------------------------


@dataclass(eq=False)
class _SignalHandler(Handler):
    """A handler of a signal; `before` is the Python handler that it replaced.

    Attributes:
        stands: The Python handler that is installed while this one is in effect.
    """

    stands: Any

    def call_users(self) -> None:
        """Put the user's own functions in place of our wrappers of them."""
        self.before, self.stands = shown(self.before), shown(self.stands)


@dataclass(eq=False)
class _LoopsHandler(_SignalHandler):
    """A handler that was added to the loop.

    Attributes:
        add: The loop's own method that adds it.
        called: The function and arguments that the loop calls.
        users: The function and arguments that the user passed.
    """

    add: Callable[..., None]
    called: tuple[Any, ...]
    users: tuple[Any, ...]

    def call_users(self) -> None:
        """Have the loop call the user's function directly, once it is added again."""
        super().call_users()
        self.called = self.users


class _OneSignal(Stack[_SignalHandler]):
    """The handlers of one signal. Call in the main thread.

    Args:
        loop: The loop.
        sig: The signal.
        python: Sets and reads Python's own handler.

    Attributes:
        is_removing: True while we, and not the user, remove a handler from the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sig: int, python: _Python) -> None:
        super().__init__()
        self._loop = loop
        self._sig = sig
        self._python = python
        self._loops: Any = None  # the Python handler that the loop installs
        self.is_removing = False

    def is_loops(self) -> bool:
        """Return True if the Python handler is the one that the loop installs."""
        return self._loops is not None and self._python.get(self._sig) is self._loops

    def add(
        self,
        add: Callable[..., None],
        called: tuple[Any, ...],
        users: tuple[Any, ...],
        task: asyncio.Task[Any] | None,
    ) -> None:
        """Add a handler to the loop, until *task* ends."""
        before = self._python.get(self._sig)
        add(self._sig, *called)
        self._loops = self._python.get(self._sig)
        self.push(_LoopsHandler(task, before, self._loops, add, called, users))

    def forget(self) -> None:
        """Forget all handlers, since the user has removed one from the loop. None of them comes back.

        Only a handler of ours is restored: interrupts of a cell need it, and Python's default would end the
        loop.
        """
        handlers, self.handlers = self.handlers, []
        if handlers and is_our_callable(handlers[0].before):
            self._python.set(self._sig, handlers[0].before)

    def end_of_cell(self, is_reset: bool) -> None:
        """Remove the handlers that end with a cell: those added to the loop, and those that its runs set.

        Args:
            is_reset: The host sets the handler itself later. If we did so now, an interrupt would raise in
                the kernel's code, before the cell's reply is sent. The loop's handler, which we leave in its
                place, does nothing.
        """
        for handler in reversed(self.handlers):
            if handler.task is None and not isinstance(handler, _LoopsHandler):
                continue
            if is_reset and handler.before is signal.default_int_handler and self.is_loops():
                handler.inherit(self._loops)
            self.take_out(handler)

    def drop(self, stands: Any) -> None:
        """Forget the newest handler if it had installed *stands*. The user has removed it."""
        if self.handlers and self.handlers[-1].stands is stands:
            self.handlers.pop()

    def mend(self) -> None:
        """Reinstall the loop's handler if another loop has removed it when it ended."""
        newest = self.handlers[-1] if self.handlers else None
        if isinstance(newest, _LoopsHandler) and self._python.get(self._sig) is signal.SIG_DFL:
            newest.add(self._sig, *newest.called)

    def call_users(self) -> None:
        """Make the loop and Python call the user's functions directly, without us in between."""
        for handler in self.handlers:
            handler.call_users()
        present = self._python.get(self._sig)
        loops = self._newest_of_loop()
        if loops is not None and not self._loop.is_closed():
            loops.add(self._sig, *loops.called)
        if self._python.get(self._sig) is not shown(present):
            self._python.set(self._sig, shown(present))

    def _inherit(self, above: _SignalHandler, gone: _SignalHandler) -> None:
        if above.before is gone.stands:
            above.inherit(gone.before)
        self._take_off_loop(gone, self._python.get(self._sig))

    def _put_back(self, gone: _SignalHandler) -> None:
        present = self._python.get(self._sig)
        # Another handler may be installed: a cell has since begun to wait, or a package has set its own.
        self._take_off_loop(gone, gone.before if present is gone.stands else present)

    def _take_off_loop(self, gone: _SignalHandler, wanted: Any) -> None:
        """Take *gone* off the loop if it is there, and put the next newest on. Set *wanted* in Python."""
        if isinstance(gone, _LoopsHandler):
            self.is_removing = True
            try:
                self._loop.remove_signal_handler(self._sig)
            finally:
                self.is_removing = False
            below = self._newest_of_loop()
            if below is not None:
                below.add(self._sig, *below.called)
        if self._python.get(self._sig) is not wanted and wanted is not None:
            self._python.set(self._sig, wanted)

    def _newest_of_loop(self) -> _LoopsHandler | None:
        return next(
            (handler for handler in reversed(self.handlers) if isinstance(handler, _LoopsHandler)), None
        )


# -- Python's own handlers -----------------------------------------------------------------------


class _Python:
    """Set and read Python's handlers without our patches. Call in the main thread."""

    def __init__(self) -> None:
        self.set: Callable[[int, Any], Any] = signal.signal
        self.get: Callable[[int], Any] = signal.getsignal


class _Contained:
    """Wrap a handler passed to `signal.signal()`, so that its errors do not reach the loop.

    Args:
        handler: The user's handler.
        take: Called with the interrupted frame and the error. Returns True if it has dealt with the error.
    """

    def __init__(self, handler: Any, take: Callable[[FrameType | None, BaseException], bool]) -> None:
        self.handler = handler
        self._take = take

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Call the user's handler."""
        try:
            self.handler(signum, frame)
        except BaseException as error:
            if self._take(frame, error):
                return
            error.__traceback__ = without_any_frames_of(error.__traceback__, is_ours)
            raise


def shown(handler: Any) -> Any:
    """Return the user's handler if *handler* is our wrapper of it; else *handler*."""
    return handler.handler if isinstance(handler, _Contained) else handler


def _is_hosts(caller: FrameType | None) -> bool:
    """Return True if *caller* is code of ours, of the kernel or of the shell."""
    if caller is None:
        return True
    return owner_of(caller.f_code.co_filename) in {Owner.OURS, Owner.KERNEL, Owner.SHELL}


def _is_asyncios(caller: FrameType | None) -> bool:
    return caller is not None and is_loops(caller.f_code.co_filename)


def _can_raise(frame: FrameType | None, is_idle: bool) -> bool:
    """Return True if an error raised in *frame* passes through user code before it reaches loop or kernel.

    Args:
        frame: Where a signal has interrupted the main thread.
        is_idle: No cell executes, so the shell is not running user code.
    """
    owners = set()
    for caller in outwards(frame):
        # Between two passes only `run_forever` is there. An error must not end the program that runs a loop.
        if caller.f_code in {HANDLE_RUN_CODE, RUN_ONCE_CODE, RUN_FOREVER_CODE}:
            break
        owners.add(owner_of(caller.f_code.co_filename))
    if Owner.USER in owners:
        return True
    if Owner.SHELL in owners:
        return not is_idle
    return Owner.LIBRARY in owners and Owner.KERNEL not in owners  # the kernel uses libraries, too


def _caller() -> FrameType | None:
    """Return the frame that has called `signal.signal()` or `getsignal()`. For the methods of `Signals`."""
    method = cast("FrameType", inspect.currentframe()).f_back
    stand_in = method.f_back if method is not None else None
    return stand_in.f_back if stand_in is not None else None


# -- all signals ---------------------------------------------------------------------------------


class Signals:
    """The signal handlers that user code sets while a loop is guarded. Main thread only. A `Revertible`.

    Args:
        loop: The persistent loop.
        host: The kernel or terminal that the loop belongs to.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, host: SignalHost) -> None:
        self._loop = loop
        self._host = host
        self._python = _Python()
        self._signals: dict[int, _OneSignal] = {}
        self._withheld: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._covered: Any = None  # our handler of SIGINT, while one that other code has set is over it
        gate = signal_gate(loop, self._python.get)
        self._patches = PatchSet(
            MethodWrapper(type(loop), "add_signal_handler", self._add, loop),
            MethodWrapper(type(loop), "remove_signal_handler", self._remove, loop),
            Patch(signal, "signal", self._stand_in(self._python.set, self._set)),
            Patch(signal, "getsignal", self._stand_in(self._python.get, self._get)),
            *([gate] if gate is not None else []),
        )

    def install(self) -> None:
        """Keep track of the handlers that are set from now on."""
        self._patches.install()

    def restore(self) -> bool:
        """Make loop and Python call the user's functions directly. Handlers of runs still end with them."""
        for handlers in self._signals.values():
            handlers.call_users()
        return self._patches.restore()

    def end_of_cell(self) -> None:
        """Remove the handlers of SIGINT, and reinstall other handlers that another loop has removed."""
        for sig, handlers in self._signals.items():
            if sig == signal.SIGINT:
                handlers.end_of_cell(self._host.is_sigint_reset())
            else:
                handlers.mend()

    def _of(self, sig: int) -> _OneSignal:
        return self._signals.setdefault(sig, _OneSignal(self._loop, sig, self._python))

    # -- handlers of the loop. The first argument of each method is the loop's own method ---------

    def _add(self, add: Callable[..., None], sig: int, callback: Any, *args: Any) -> None:
        """Add a handler until the caller's run ends. Outside of any run, the handler stays."""
        if self._host.is_own_handler():
            add(sig, callback, *args)
            return
        run = self._host.run_of_caller()
        if sig == signal.SIGINT and not self._host.is_callers_cell(run):
            if run is not None:
                self._withheld.add(run)
            return
        users = (callback, *args)
        called: tuple[Any, ...] = (self._call, sig, run, *users)
        if sig == signal.SIGTERM and _is_stop_of(self._loop, callback):
            called = (self._host.end,)
        if asyncio.iscoroutine(callback) or inspect.iscoroutinefunction(callback):
            called = users  # which asyncio refuses
        self._of(sig).add(add, called, users, run)

    def _remove(self, remove: Callable[[int], bool], sig: int) -> bool:
        """Remove a handler. The handlers that it replaced do not come back."""
        handlers = self._signals.get(sig)
        if self._host.is_own_handler() or (handlers is not None and handlers.is_removing):
            return remove(sig)
        if sig == signal.SIGINT and self._withheld:
            run = self._host.run_of_caller()
            if run is not None and run in self._withheld:
                self._withheld.discard(run)
                return True
        was_there = remove(sig)
        if was_there and handlers is not None:
            handlers.forget()
        return was_there

    def _is_loops(self, sig: int) -> bool:
        return sig in self._signals and self._signals[sig].is_loops()

    def _call(
        self, sig: int, run: asyncio.Task[Any] | None, callback: Callable[..., object], *args: Any
    ) -> None:
        """Call the function that the user added to the loop."""
        if not self._is_loops(sig):
            return  # the handler was removed after the signal arrived
        if sig == signal.SIGTERM:
            _on_sigterm.set(True)
        try:
            callback(*args)
        except (KeyboardInterrupt, SystemExit) as error:
            self._settle(sig, run, error)

    # -- Python's own handlers ----------------------------------------------------------------

    def _stand_in(self, stock: Any, method: Callable[..., Any]) -> Callable[..., Any]:
        def stand_in(*args: Any, **options: Any) -> Any:
            try:
                return method(*args, **options)
            except BaseException as error:
                error.__traceback__ = users_frames(error.__traceback__)
                raise

        return looking_like(stock, stand_in)

    def _get(self, signalnum: int) -> Any:
        """Return the handler that the user set. In place of ours, return Python's own."""
        present = self._python.get(signalnum)
        if signalnum == signal.SIGINT and is_our_callable(present) and not _is_hosts(_caller()):
            return signal.default_int_handler
        return shown(present)

    def _set(self, signalnum: Any, handler: Any) -> Any:
        """Set a handler until the caller's run ends. Outside of any run, the handler stays."""
        caller = _caller()
        if threading.current_thread() is not threading.main_thread():
            return self._python.set(signalnum, handler)  # which refuses
        if _is_hosts(caller):
            if signalnum == signal.SIGINT:
                self._covered = None
            return self._python.set(signalnum, handler)
        if signalnum == signal.SIGINT:
            return self._set_sigint(handler, is_asyncios=_is_asyncios(caller))
        if _is_asyncios(caller):
            return self._python.set(signalnum, handler)
        run = self._host.run_of_caller()
        placed = handler
        if callable(handler) and not isinstance(handler, signal.Handlers):
            placed = self._contain(signalnum, run, handler)
        before = self._python.set(signalnum, placed)
        self._of(signalnum).push(_SignalHandler(run, before, placed))
        return shown(before)

    def _set_sigint(self, handler: Any, *, is_asyncios: bool) -> Any:
        """Set a handler of SIGINT over ours. Python's own handler stands for ours, and puts ours back."""
        present = self._python.get(signal.SIGINT)
        is_ours = is_our_callable(present)
        if handler is signal.default_int_handler and (is_ours or self._covered is not None):
            if not is_ours:
                self._python.set(signal.SIGINT, self._covered)
                self._of(signal.SIGINT).drop(present)
            self._covered = None
            return signal.default_int_handler if is_ours else present
        run = None if is_asyncios else self._host.run_of_caller()
        is_cells = is_asyncios or self._host.is_callers_cell(run)
        is_valid = callable(handler) or handler in {signal.SIG_DFL, signal.SIG_IGN}
        if is_valid and not is_cells and not is_ours:
            return shown(present)
        before = self._python.set(signal.SIGINT, handler)
        if is_ours:
            self._covered = present
        if not is_cells:
            self._loop.call_soon_threadsafe(self._uncover, handler, context=Context())
        elif not is_asyncios:
            self._of(signal.SIGINT).push(_SignalHandler(run, before, handler))
        return signal.default_int_handler if is_ours else before

    def _uncover(self, handler: Any) -> None:
        """Put our handler of SIGINT back, if *handler* is still over it."""
        if self._covered is not None and self._python.get(signal.SIGINT) is handler:
            self._python.set(signal.SIGINT, self._covered)
            self._covered = None

    def _contain(self, sig: int, run: asyncio.Task[Any] | None, handler: Any) -> _Contained:
        context = copy_context()

        def take(frame: FrameType | None, error: BaseException) -> bool:
            if running_loop() is not self._loop:
                return False
            is_idle = self._host.is_idle()
            is_background = is_idle if run is None else self._host.is_background(run)
            if _can_raise(frame, is_idle) and not (is_background and is_fatal(error)):
                return False
            # In a handle of its own: at this moment the loop or the kernel may be in the middle of anything.
            self._loop.call_soon_threadsafe(self._settle, sig, run, error, context=context)
            return True

        return _Contained(handler, take)

    # -- what handlers raise ------------------------------------------------------------------

    def _settle(self, sig: int, run: asyncio.Task[Any] | None, error: BaseException) -> None:
        """Raise a handler's error in the cell that waits. If none waits, end the host or report the error."""
        error.__traceback__ = without_any_frames_of(error.__traceback__, is_ours)
        is_background = run is not None and self._host.is_background(run)
        if not is_background and self._host.give_to_cell(error):
            return
        if sig == signal.SIGTERM and is_fatal(error):
            self._host.end()
        else:
            self._host.report_handler(_name(sig), error)


def _name(sig: int) -> str:
    try:
        return signal.Signals(sig).name
    except ValueError:
        return f"signal {sig}"  # a real-time one


def _is_stop_of(loop: asyncio.AbstractEventLoop, callback: object) -> bool:
    # Compared by name: a method of a uvloop loop that was bound before we patched it is another object.
    return getattr(callback, "__self__", None) is loop and getattr(callback, "__name__", "") == "stop"
