"""Remember where event loops were closed, and explain the errors of code that still uses them."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from loopnb.loop._cpython import loop_of, objects_in
from loopnb.patching import ImportWatch, MethodWrapper, PatchSet

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType

#: What asyncio and uvloop say when a closed loop is used.
CLOSED = "Event loop is closed"
#: What they say when an object is used on another loop than its own. Its own loop may be open.
OTHER_LOOP = (
    "attached to a different loop",  # a task awaits a future
    "is bound to a different event loop",  # a lock, an event, a queue
    "belongs to a different loop",  # ensure_future(), run_until_complete()
    "tied to different event loops",  # gather()
)
#: What a future of another loop says when it is awaited again. asyncio has other reasons for this error, too.
AGAIN = "await wasn't used with future"
#: How many frames of a traceback are searched, the innermost first, and how many objects in each frame.
_FRAMES = 30
_OBJECTS = 1000
#: How many places are named if we cannot tell which loop the error is about.
_PLACES = 3
_BELONGS = "This object belongs to another event loop, "


class ClosedLoops:
    """Remembers where loops were closed, and explains errors of code that still uses a closed loop.

    It has two limits. A package may raise an error of its own in place of asyncio's, such as asyncpg's
    InterfaceError. Then only the cause of that, asyncio's error, is explained. And if no variable leads to
    the loop, the note names all closed loops that still exist.

    Args:
        place: Returns the line of the user's that is being executed, such as `In[3], line 4`.
    """

    def __init__(self, place: Callable[[], str]) -> None:
        self._place = place
        self._closed_at: WeakKeyDictionary[asyncio.AbstractEventLoop, str] = WeakKeyDictionary()
        self._wrappers = [MethodWrapper(asyncio.BaseEventLoop, "close", self._close)]
        self._uvloop = ImportWatch({"uvloop": self._watch_uvloop})

    def start(self) -> None:
        """Remember from now on where loops are closed. The loop's thread."""
        PatchSet(self._wrappers[0], self._uvloop).install()

    def stop(self) -> None:
        """Remember no more, and forget everything. The loop's thread."""
        self._uvloop.restore()
        for wrapper in self._wrappers:
            wrapper.restore()
        del self._wrappers[1:]
        self._closed_at.clear()

    def where(self, loop: asyncio.AbstractEventLoop) -> str:
        """Return where *loop* was closed; "" if C code closed it, or it was before `start`. Any thread."""
        return self._closed_at.get(loop, "")

    def explain(self, error: BaseException) -> str | None:
        """Return a note that says where the loop behind *error* was closed. None for other errors.

        Looks at *error* alone, not at its causes. Any thread. Does not block.
        """
        if not self._closed_at or not isinstance(error, RuntimeError | ValueError):
            return None
        text = str(error)
        is_about_other_loops = any(part in text for part in (*OTHER_LOOP, AGAIN))
        if CLOSED not in text and not is_about_other_loops:
            return None
        for note in getattr(error, "__notes__", ()):
            if note.startswith(_BELONGS):
                return str(note)  # loops that were closed since then do not matter
        owners = self._owners(error, may_be_open=is_about_other_loops)
        if owners:
            loops = [loop for loop in self._last_first() if loop in owners]
        else:
            loops = [] if AGAIN in text else self._last_first()
        return self._note(loops) if loops else None

    def owners(self, error: BaseException) -> set[asyncio.AbstractEventLoop]:
        """Return the loops, open or closed, of the objects that *error* is about, as far as they are found.

        For an error of code that uses an object on another loop than its own. Any thread. Does not block.
        """
        return self._owners(error, may_be_open=True)

    def _owners(self, error: BaseException, *, may_be_open: bool) -> set[asyncio.AbstractEventLoop]:
        """Return the loops that *error* may be about. The innermost frame that leads to such a loop decides.

        Args:
            error: The error.
            may_be_open: True if objects of open loops cause this error, too. If False, only a frame that
                leads to a closed loop decides.
        """
        for frame in _innermost_frames(error):
            owners: set[asyncio.AbstractEventLoop] = set()
            variables: set[asyncio.AbstractEventLoop] = set()
            for value in islice(objects_in(frame), _OBJECTS):
                loop = loop_of(value)
                if loop is not None:
                    (variables if loop is value else owners).add(loop)
            if not may_be_open:
                owners |= variables
            elif not owners:
                # Loops in variables count only if no object leads to a loop: code that awaits on a loop may
                # have that very loop in a variable.
                owners = variables.intersection(self._closed_at)
            if owners and (may_be_open or not owners.isdisjoint(self._closed_at)):
                return owners
        return set()

    def _last_first(self) -> list[asyncio.AbstractEventLoop]:
        return list(self._closed_at)[::-1]

    def _note(self, loops: list[asyncio.AbstractEventLoop]) -> str:
        kinds = dict.fromkeys(type(loop).__name__ for loop in loops)
        places = list(dict.fromkeys(self._closed_at[loop] for loop in loops))
        named = ", or ".join([*places[:_PLACES], *(["elsewhere"] if places[_PLACES:] else [])])
        return (
            f"{_BELONGS}a {' or '.join(kinds)}, which was closed at {named}. "
            "The notebook's own loop is open: create the object again in a new cell, "
            "with `await` or asyncio.run()."
        )

    def _watch_uvloop(self, module: ModuleType) -> None:
        self._wrappers.append(MethodWrapper(module.Loop, "close", self._close))
        self._wrappers[-1].install()

    def _close(self, close_loop: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        was_closed = loop.is_closed()
        close_loop()
        if loop.is_closed() and not was_closed:
            self._closed_at[loop] = self._place()


def _innermost_frames(error: BaseException) -> list[FrameType]:
    frames, tb = [], error.__traceback__
    while tb is not None:
        frames.append(tb.tb_frame)
        tb = tb.tb_next
    return frames[: -_FRAMES - 1 : -1]
