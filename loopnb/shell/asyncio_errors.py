"""Explain asyncio's classic errors: what happened in this notebook, in which cell, and what to type.

asyncio's own texts are written for scripts. To explain another error, add a `Row` to `ROWS`, and an example
to `tests/shell/test_asyncio_errors.py`.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loopnb.frames import Owner, owner_of
from loopnb.loop import closed
from loopnb.loop._cpython import default_executor, has_run_in_pool, loop_of, objects_in
from loopnb.nesting.no_loop import NO_LOOP
from loopnb.nesting.second_engine import REFUSALS
from loopnb.tracking.cells import current_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from loopnb.loop.closed import ClosedLoops
    from loopnb.nesting.second_engine import NestingChoice
    from loopnb.records import Describe

#: How many frames are searched for the loop that an error is about, the innermost first.
_FRAMES = 5
_IN_THREADS = "There, loopnb.run(coro) and loopnb.spawn(coro) use the notebook's loop."


class _Note(str):
    """A note of ours. An error keeps its first note, even if the loops have changed since."""

    __slots__ = ()


class AsyncioErrors:
    """Explains asyncio's errors in one shell. Any thread. Does not block.

    Args:
        loop: The notebook's loop.
        closed_loops: Remembers where loops were closed.
        nesting: Knows whether nesting is on.
        describe: Formats file and line for people.

    Attributes:
        loop, closed_loops, nesting: As given.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        closed_loops: ClosedLoops,
        nesting: NestingChoice,
        describe: Describe,
    ) -> None:
        self.loop = loop
        self.closed_loops = closed_loops
        self.nesting = nesting
        self._describe = describe

    def explain(self, error: BaseException) -> str | None:
        """Return a note on *error*, or None if it is none of asyncio's classic errors.

        Looks at *error* alone, not at its causes.
        """
        # The types first, since the `__str__` of an error of the user's may be slow.
        rows = [row for row in ROWS if isinstance(error, row.kinds)]
        text = str(error) if rows else ""
        for row in rows:
            if re.search(row.pattern, text):
                for note in getattr(error, "__notes__", ()):
                    if isinstance(note, _Note):
                        return note
                found = row.explain(self, error)
                if found is not None:
                    return _Note(found)
        return None

    def place(self, error: BaseException) -> str:
        """Return the innermost line of the user's that *error* came through, else "this code"."""
        for frame, line in _innermost(error):
            if _is_users(frame):
                return self._describe(frame.f_code.co_filename, line, current_cell.get())
        return "this code"


# -- what the rows say ---------------------------------------------------------------------------


def _closed(errors: AsyncioErrors, error: BaseException) -> str | None:
    note = errors.closed_loops.explain(error)
    if note is None and not errors.loop.is_closed():
        return (
            "The loop of this object was closed where loopnb did not see it. The notebook's own loop is "
            "open: create the object again in a new cell, with `await` or asyncio.run()."
        )
    return note


def _other_loop(errors: AsyncioErrors, error: BaseException) -> str | None:
    note = errors.closed_loops.explain(error)
    if note is not None:
        return note
    owners = errors.closed_loops.owners(error)
    if errors.loop in owners and (len(owners) == 1 or has_run_in_pool(error)):
        if has_run_in_pool(error):
            return (
                f"The object belongs to the notebook's loop, and {errors.place(error)} ran in a worker "
                "thread, on another loop. There, loopnb.run(coro) uses the notebook's loop."
            )
        return (
            f"The object belongs to the notebook's loop, and {errors.place(error)} ran on another one, as "
            "below %%aloop --fresh. Use the object in a plain cell, or create it on the loop that uses it."
        )
    others = owners - {errors.loop}
    kind = " or ".join(sorted({type(loop).__name__ for loop in others}))
    what = f"a {kind}" if kind else "which is not closed"
    again = "Create it again in a new cell, with `await` or asyncio.run()"
    if any(loop.is_running() for loop in others):
        return (
            f"The object that {errors.place(error)} uses belongs to another event loop, {what} that runs in "
            f"another thread. {again}, or run the code there: "
            "`await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coro, loop))`."
        )
    return (
        f"The object that {errors.place(error)} uses belongs to another event loop, {what}, and not to the "
        f"notebook's. {again}."
    )


def _again(errors: AsyncioErrors, error: BaseException) -> str | None:
    return errors.closed_loops.explain(error)  # asyncio has other reasons for this error, too


def _refused(errors: AsyncioErrors, error: BaseException) -> str | None:
    note = errors.nesting.explain(error)
    if note is not None:
        return note
    frame = next(_innermost(error), (None, 0))[0]
    if frame is None or owner_of(frame.f_code.co_filename) not in {Owner.USER, Owner.LIBRARY}:
        return None
    return (
        f"asyncio.run() nests here, and {frame.f_code.co_name}() refuses by itself, since a loop runs. Put "
        "%%noloop on top of the cell, or use `with loopnb.noloop():`."
    )


def _already_running(errors: AsyncioErrors, error: BaseException) -> str | None:
    note = errors.nesting.explain(error)
    if note is not None:
        return note
    loop = _loop_in(error)
    if loop is errors.loop and has_run_in_pool(error):
        return (
            f"{errors.place(error)} ran in a worker thread, and the notebook's loop runs in another one. "
            f"{_IN_THREADS}"
        )
    if loop is errors.loop:
        return (
            f"The notebook's loop is set aside while another one runs {errors.place(error)}, as below "
            "%%aloop --fresh. Use `await` or asyncio.run(), or run the code in a plain cell."
        )
    if loop is not None and loop.is_running():
        return (
            f"The {type(loop).__name__} that {errors.place(error)} uses runs in another thread. Give it work "
            "with asyncio.run_coroutine_threadsafe(coro, loop).result()."
        )
    return None


def _no_loop(errors: AsyncioErrors, error: BaseException) -> str | None:
    if NO_LOOP in getattr(error, "__notes__", ()):
        return NO_LOOP
    if has_run_in_pool(error):
        return f"{errors.place(error)} ran in a worker thread, where no loop runs. {_IN_THREADS}"
    return (
        f"No loop runs where {errors.place(error)} was executed. loopnb.run(coro) and loopnb.spawn(coro) use "
        "the notebook's loop, from any thread."
    )


def _shut_down(errors: AsyncioErrors, error: BaseException) -> str | None:
    frame = next(_innermost(error), (None, 0))[0]
    executor: Any = None if frame is None else frame.f_locals.get("self")
    if executor is errors.loop or executor is None or executor is default_executor(errors.loop):
        return (
            "The default executor of the notebook's loop was shut down. loopnb replaces it at the end of the "
            "cell that did it: run this cell again."
        )
    if isinstance(executor, asyncio.AbstractEventLoop):  # of a thread, for instance
        return None
    name = "".join(f" `{name}`" for name in _names_of(executor, error)[:1])
    return (
        f"The {type(executor).__name__}{name} that {errors.place(error)} uses was shut down, at the end of "
        "its `with` block or by shutdown(). Make a new one, or use `await asyncio.to_thread(fn)`, whose "
        "threads loopnb keeps."
    )


def _coroutine_as_value(errors: AsyncioErrors, error: BaseException) -> str | None:
    frame = next((frame for frame, _line in _innermost(error) if _is_users(frame)), None)
    name, coro = next(_coroutines_in(frame), ("", None))
    place = errors.place(error)
    if coro is None:
        what = f"{place} uses a coroutine as if it were its result. The call alone runs nothing."
        remedy = "Put `await` before the call, in parentheses: `(await call())`."
    else:
        what = f"{place} uses `{name}` as if it were a result, and it is a coroutine that has not run."
        remedy = f"Put `await` where it is made: `{name} = await {coro.__name__}(...)`."
    if frame is not None and not _may_await(frame):
        remedy = f"In a plain `def`, asyncio.run({name or 'call()'}) runs it, and nests here."
    return f"{what} {remedy}"


def _may_await(frame: FrameType) -> bool:
    """Return True if the code of *frame* may await: that of an `async def`, or the top level of a cell."""
    # `<module>`, or `<cell line: 1>` on old versions of IPython.
    is_top_level = frame.f_code.co_name.startswith(("<module", "<cell"))
    return is_top_level or bool(frame.f_code.co_flags & inspect.CO_COROUTINE)


def _function_for_coroutine(_errors: AsyncioErrors, error: BaseException) -> str | None:
    found = re.search(r"got <function ([\w.<>]+) at", str(error))
    name = found[1].rpartition(".")[2] if found is not None else "fetch"
    return f"{name} is a function, and the call {name}() makes the coroutine. Add the parentheses."


def _awaited_twice(errors: AsyncioErrors, error: BaseException) -> str | None:
    return (
        f"{errors.place(error)} awaits a coroutine again, and each runs only once. Call the function again "
        "for a new one; or make a task, which can be awaited often: `task = asyncio.create_task(coro)`."
    )


def _generator_shared(errors: AsyncioErrors, error: BaseException) -> str | None:
    return (
        f"{errors.place(error)} wants an item of an async generator while another task waits for its next "
        "one. Call the generator function once for each task, or let one task fill an asyncio.Queue."
    )


# -- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of error.

    Attributes:
        pattern: A regular expression that its text matches.
        explain: Given the `AsyncioErrors` that asks and the error, returns a note of at most three lines.
            None if it is another error with the same text.
        kinds: The types that such an error may have.
    """

    pattern: str
    explain: Callable[[AsyncioErrors, BaseException], str | None]
    kinds: type[BaseException] | tuple[type[BaseException], ...] = RuntimeError


def _any_of(*parts: str) -> str:
    return "|".join(map(re.escape, parts))


#: The errors that are explained. The first row that fits and has a note decides.
ROWS = (
    Row(_any_of(closed.CLOSED), _closed),
    Row(_any_of(*closed.OTHER_LOOP), _other_loop, (RuntimeError, ValueError)),
    Row(_any_of(closed.AGAIN), _again),
    Row(_any_of("This event loop is already running"), _already_running),
    Row(_any_of(*REFUSALS), _refused),
    Row(_any_of("no running event loop", "There is no current event loop in thread"), _no_loop),
    Row(r"cannot schedule new futures after shutdown|Executor shutdown has been called", _shut_down),
    # Leave out "a coroutine was expected" and the like: there, something else was given. Leave out arguments
    # that are named `coroutine`, too.
    Row(r"(?<!\b[Aa] )(?<!-)(?<!argument ')(?<!argument: ')\bcoroutine\b", _coroutine_as_value, TypeError),
    Row(r"'coroutine' object has no attribute", _coroutine_as_value, AttributeError),
    Row(
        r"a coroutine was expected, got <function",
        _function_for_coroutine,
        TypeError,
    ),
    Row(r"cannot reuse already awaited coroutine|coroutine is being awaited already", _awaited_twice),
    Row(r"asynchronous generator is already running", _generator_shared),
)


# -- what the frames of an error hold ------------------------------------------------------------


def _innermost(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """Yield the frames of the traceback with their lines, the innermost first."""
    found, tb = [], error.__traceback__
    while tb is not None:
        found.append((tb.tb_frame, tb.tb_lineno))
        tb = tb.tb_next
    return reversed(found)


def _is_users(frame: FrameType) -> bool:
    return owner_of(frame.f_code.co_filename) is Owner.USER


def _loop_in(error: BaseException) -> asyncio.AbstractEventLoop | None:
    """Return the first loop that an object in the innermost frames is, or belongs to."""
    for _count, (frame, _line) in zip(range(_FRAMES), _innermost(error), strict=False):
        for value in objects_in(frame):
            loop = loop_of(value)
            if loop is not None:
                return loop
    return None


def _variables_of(frame: FrameType) -> Iterator[tuple[str, object]]:
    """Yield the variables that the code of *frame* names, and their values."""
    names = (*frame.f_code.co_varnames, *frame.f_code.co_freevars, *frame.f_code.co_names)
    for variables in (frame.f_locals, frame.f_globals):
        yield from ((name, variables[name]) for name in names if name in variables)


def _names_of(value: object, error: BaseException) -> list[str]:
    """Return the names of the variables that hold *value* in the user's innermost frame."""
    for frame, _line in _innermost(error):
        if _is_users(frame):
            return [name for name, held in _variables_of(frame) if held is value]
    return []


def _coroutines_in(frame: FrameType | None) -> Iterator[tuple[str, Any]]:
    """Yield the variables of *frame* that hold a coroutine which has not begun, with their names."""
    for name, value in _variables_of(frame) if frame is not None else ():
        if inspect.iscoroutine(value) and inspect.getcoroutinestate(value) == inspect.CORO_CREATED:
            yield name, value
