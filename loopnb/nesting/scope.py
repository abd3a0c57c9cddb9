"""Keep who wants nested runs on which loops, and the engine of each loop."""

from __future__ import annotations

import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

from loopnb.errors import NestingError
from loopnb.nesting._cpython import owner_of_pass, running_loop, why_not_drivable
from loopnb.nesting.engine import Handoff
from loopnb.nesting.greenlets import why_missing
from loopnb.nesting.stack_switching import is_web_loop, only_loop

if TYPE_CHECKING:
    import asyncio

# This state belongs to the process, as the patched names of asyncio do. Sessions, scripts and other packages
# ask for nested runs independently of each other, even before a session begins or after it has ended.

#: Hold this lock while you install or restore patches. A patch installed twice would take itself for the
#: original.
changing = threading.RLock()
#: Who wants nested runs on every loop, who wants them on some, and who wants them to end last-in-first-out.
_wanted_everywhere: set[str] = set()
_wanted_on: dict[str, WeakSet[asyncio.AbstractEventLoop]] = {}
_wanted_lifo: set[str] = set()
#: The latest engine of each loop. If an engine is removed in the middle of a pass and then wanted again, we
#: have to install the same engine: the owner of the loop still waits for it to give the loop back.
_latest: WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[Handoff]] = WeakKeyDictionary()
#: Loops that nest-asyncio runs, on top of the waiting stack. Its engine in `second_engine.py` notes them.
reentrant_loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


# -- who wants nested runs -----------------------------------------------------------------------


def want(who: str, loop: asyncio.AbstractEventLoop | None, *, lifo: bool = False) -> None:
    """Ask for nested runs on *loop*, or on every loop if it is None, in the name of *who*. Hold `changing`.

    If anybody wants last-in-first-out, nested runs end in that order on all loops.
    """
    (_wanted_lifo.add if lifo else _wanted_lifo.discard)(who)
    _set_order()
    if loop is None:
        _wanted_everywhere.add(who)
    else:
        _wanted_on.setdefault(who, WeakSet()).add(loop)


def unwant(who: str, loop: asyncio.AbstractEventLoop | None) -> None:
    """Take back what *who* asked for: on *loop*, or everywhere if it is None. Hold `changing`."""
    if loop is None:
        _wanted_everywhere.discard(who)
        _wanted_on.pop(who, None)
    elif who in _wanted_on:
        _wanted_on[who].discard(loop)
        if not _wanted_on[who]:
            del _wanted_on[who]
    if who not in _wanted_everywhere and who not in _wanted_on:
        _wanted_lifo.discard(who)
        _set_order()


def is_wanted(loop: asyncio.AbstractEventLoop | None = None) -> bool:
    """Return True if anybody wants nested runs on *loop*, or on any loop if it is None. Any thread."""
    if _wanted_everywhere or loop is None:
        return bool(_wanted_everywhere or _wanted_on)
    return any(loop in loops for loops in list(_wanted_on.values()))


def wants_lifo() -> bool:
    """Return True if anybody wants waits to end last-in-first-out. Any thread."""
    return bool(_wanted_lifo)


def is_wanted_only_by(who: str) -> bool:
    """Return True if *who* wants nested runs somewhere, and nobody else does. Any thread."""
    return {*_wanted_everywhere, *_wanted_on} == {who}


def _set_order() -> None:
    for loop in known_loops():
        engine = engine_of(loop)
        if engine is not None:
            engine.lot.set_order(lifo=wants_lifo())


# -- the engine of a loop ------------------------------------------------------------------------


def engine_of(loop: asyncio.AbstractEventLoop) -> Handoff | None:
    """Return the engine installed on *loop*, if there is one. Any thread."""
    engine = owner_of_pass(loop)
    return engine if isinstance(engine, Handoff) else None


def known_loops() -> list[asyncio.AbstractEventLoop]:
    """Return the loops that have an engine now. Any thread."""
    # `keyrefs()` copies. Iteration would break when another thread attaches an engine meanwhile.
    loops = [reference() for reference in _latest.keyrefs()]
    return [loop for loop in loops if loop is not None and engine_of(loop) is not None]


def engine_for(loop: asyncio.AbstractEventLoop, call: str) -> Handoff:
    """Return the engine of the running *loop*, after a check that a nested run can begin here.

    Args:
        loop: The running loop of this thread.
        call: What the user called, for the error.

    Raises:
        RuntimeError: Nested runs are not wanted on this loop. This is asyncio's own error.
        NestingError: The loop cannot be driven one pass at a time, greenlet is missing, or no stack can be
            parked here.
    """
    engine = owner_of_pass(loop)
    if not isinstance(engine, Handoff) or engine.is_removed:
        if not is_wanted(loop):
            raise RuntimeError(f"{call} cannot be called from a running event loop")
        engine = attach(loop)
    engine.check_can_park()
    return engine


def is_off(loop: asyncio.AbstractEventLoop) -> bool:
    """Return True if `engine_for` refuses all nested runs on *loop*: nobody wants them there. Any thread."""
    engine = engine_of(loop)
    return (engine is None or engine.is_removed) and not is_wanted(loop)


def attach(loop: asyncio.AbstractEventLoop) -> Handoff:
    """Return the engine of *loop*, installing it if needed. The loop's thread.

    Raises:
        NestingError: The loop cannot be driven one pass at a time, or greenlet is missing.
    """
    engine = engine_of(loop)
    if engine is not None and not engine.is_removed:
        return engine
    if is_web_loop(loop):
        raise only_loop("apply loopnb's nesting", "asyncio.run() nests without it, where the browser can.")
    reason = why_not_drivable(loop)
    if why_missing is not None:
        reason = f"greenlet cannot be imported ({why_missing})"
    if reason is not None:
        raise NestingError(reason, "Use `await` here, or asyncio's own event loop.")
    latest = _latest.get(loop)
    engine = (latest and latest()) or Handoff(loop)
    engine.lot.set_order(lifo=wants_lifo())
    engine.install()
    _latest[loop] = weakref.ref(engine)
    return engine


def attach_and_pin(loop: asyncio.AbstractEventLoop) -> None:
    """Install the engine on *loop*, to stay between its runs.

    If *loop* is running elsewhere, its first nested run or its next run installs the engine.

    Raises:
        NestingError: The loop cannot be driven one pass at a time, or greenlet is missing.
    """
    if loop is running_loop() or not loop.is_running():
        attach(loop).pin()


def attach_before_run(loop: asyncio.AbstractEventLoop) -> None:
    """Install the engine on *loop*, which is about to run, if nested runs are wanted there and possible.

    Otherwise the first nested run would install it in the middle of a pass of the stock loop, and park the
    stack of the loop's owner. Then a stop, or an error that ends the loop, would have to end that wait,
    whatever it waits for.
    """
    if is_wanted(loop) and why_missing is None and not loop.is_closed():
        engine = engine_of(loop)
        if (engine is None or engine.is_removed) and why_not_drivable(loop) is None:
            attach(loop).pin()


def detach_closed(loop: asyncio.AbstractEventLoop) -> None:
    """Take the engine off *loop*, which was closed and has no parked stack. The loop's thread."""
    engine = engine_of(loop)
    if engine is not None:
        engine.leave_closed_loop()
        _latest.pop(loop, None)


def detach_unwanted() -> None:
    """Remove the engine from each loop where nobody wants it any more. Any thread; hold `changing`."""
    for loop in known_loops():
        engine = engine_of(loop)
        if engine is not None and not is_wanted(loop):
            with suppress(RuntimeError):  # another thread has closed its loop meanwhile
                engine.remove()
