"""Take one look at the loop's thread from another thread: which step runs, and on which stack.

A look holds frames, tasks and handles of the user's only while it is taken. What it returns is numbers and
text. The GIL is not released meanwhile: a look takes some 50 us, and Python asks a thread to release the GIL
after 5 ms. So no object of the user's loses its last reference in the watchdog's thread.
"""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from loopnb._cpython import coro_of
from loopnb.frames import Owner, outwards, owner_of
from loopnb.nesting._cpython import current_task, owner_of_pass
from loopnb.nesting.other_loops import set_aside_by
from loopnb.watch import _cpython, _ipykernel
from loopnb.watch.sources import Frame, callee, source_of

if TYPE_CHECKING:
    import asyncio
    from types import FrameType

    from loopnb.records import CellRef

#: How many frames a look takes in, from the innermost one outwards.
_DEEPEST = 400
#: The functions that wait for the user to type into `input()`, `getpass()` or a debugger: the end of the file
#: name, and the function.
_ASKS_USER = (
    *_ipykernel.ASKS_USER,
    *_cpython.ASKS_USER,
    ("/pdb.py", "interaction"),
    ("/bdb.py", "interaction"),
    ("/pdb.py", "cmdloop"),
    ("/code.py", "interact"),
    ("/getpass.py", "unix_getpass"),
    ("IPython/terminal/interactiveshell.py", "prompt_for_code"),  # of `embed()`
)
#: The file whose functions run the loop of a GUI toolkit, if its windows do not live on the kernel's loop.
_GUI_LOOPS = os.path.join("ipykernel", "eventloops.py")
#: The function of IPython that runs the code of a cell.
_RUN_CODE = ("interactiveshell.py", "run_code")
_NOT_USERS = frozenset({Owner.OURS, Owner.STDLIB, Owner.KERNEL, Owner.SHELL})
_COROUTINE = 0x80 | 0x100 | 0x200  # CO_COROUTINE, CO_ITERABLE_COROUTINE, CO_ASYNC_GENERATOR

State = Literal["step", "kernel", "select", "elsewhere"]


class TaskFacts(NamedTuple):
    """What a task is, without the task.

    Attributes:
        number: loopnb's number of it; None if it has none yet.
        name: Its name.
        coro: Qualified name of its coroutine.
        cell: The cell that spawned it.
        is_kernel: It belongs to the kernel itself.
        cell_in_it: The cell that executes in it.
    """

    number: int | None
    name: str
    coro: str
    cell: CellRef | None
    is_kernel: bool
    cell_in_it: CellRef | None


class Look(NamedTuple):
    """What the loop's thread was doing at one moment.

    Attributes:
        state: `step` (code of the user or of a library is running), `kernel` (one of the kernel's handlers
            is running), `select` (the loop waits, or is between two steps), `elsewhere` (the loop is stopped
            or set aside, another loop or that of a GUI is running, or the user is asked for input).
        step: Identifies the step. It is equal in all looks at the same step.
        pass_began: The loop's time when this pass began to run handles. Until it has, the time when the pass
            before it did. 0 if unknown.
        task: The task that steps, if any.
        frames: The frames of the step, outermost first.
        executing: The cell that executes in the main thread.
    """

    state: State
    step: tuple[object, ...] = ()
    pass_began: float = 0.0
    task: TaskFacts | None = None
    frames: tuple[Frame, ...] = ()
    executing: CellRef | None = None


class Known(Protocol):
    """Knows tasks and cells. Any thread may ask."""

    @property
    def executing(self) -> CellRef | None:
        """The outermost cell that executes in the main thread."""

    def facts_of(self, task: asyncio.Task[Any]) -> TaskFacts:
        """Return what *task* is."""


NOTHING = Look("select")
_ELSEWHERE = Look("elsewhere")


class Lookout:
    """Looks at the thread of one loop. Any thread.

    Args:
        loop: The loop.
        thread_id: The thread that turns it.
        known: Knows its tasks, and cells.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, thread_id: int, known: Known) -> None:
        self._loop = loop
        self._thread_id = thread_id
        self._known = known

    def look(self) -> Look:
        """Return what the loop's thread is doing."""
        if not self._loop.is_running() or set_aside_by(self._loop) is not None:
            return _ELSEWHERE
        look, may_ask = self._look(_cpython.frame_of(self._thread_id))
        # `_calls_input` may read a file. So it is called when no frame is held any more.
        return _ELSEWHERE if may_ask and _calls_input(look.frames[-1]) else look

    def _look(self, innermost: FrameType | None) -> tuple[Look, bool]:
        """Return a look at the stack that ends in *innermost*, and True if that frame may call `input`."""
        task = current_task(self._loop)
        first = getattr(coro_of(task), "cr_frame", None) if task is not None else None
        is_asyncios = owner_of_pass(self._loop) is not None
        stack: list[FrameType] = []
        turner = None
        for frame in islice(outwards(innermost), _DEEPEST):
            if _cpython.is_pass(frame):
                turner = frame
                break
            stack.append(frame)
            if frame is first and not is_asyncios:
                break
        if turner is None and is_asyncios and task is None and len(stack) < _DEEPEST:
            # The loop counts as running, but nobody turns it: it has not begun, or is stopping.
            return _ELSEWHERE, False
        handle, began = 0, 0.0
        if turner is not None:
            loop, handle, began = _cpython.pass_facts(turner)
            if loop is not self._loop:
                return _ELSEWHERE, False
            if not stack or not _cpython.is_handle(stack.pop()):
                return Look("select", pass_began=began), False
        frames = _frames_of(stack)
        if turner is None and task is None:
            frames = _inside_kernel(frames)
        if not frames:
            return NOTHING, False
        if any(asks_user(frame) for frame in frames):
            return _ELSEWHERE, False
        facts = self._known.facts_of(task) if task is not None else None
        key = (handle, began, facts.number if facts is not None else None)
        state: State = "step" if _is_users(facts, frames) else "kernel"
        if state == "kernel" and any(frame.filename.endswith(_GUI_LOOPS) for frame in frames):
            return _ELSEWHERE, False
        may_ask = "input" in stack[0].f_code.co_names
        return Look(state, key, began, facts, frames, self._known.executing), may_ask


def asks_user(frame: Frame) -> bool:
    """Return True if *frame* waits for the user to type something."""
    filename, function = frame.filename.replace("\\", "/"), frame.function.rpartition(".")[2]
    return any(function == name and filename.endswith(end) for end, name in _ASKS_USER)


def _calls_input(frame: Frame) -> bool:
    """Return True if *frame* calls the built-in `input`, which has no frame. May read a file."""
    return callee(source_of(frame)) == "input()"


def runs_cell(frames: tuple[Frame, ...]) -> bool:
    """Return True if the code of a cell runs on this stack."""
    end, name = _RUN_CODE
    return any(frame.function.endswith(name) and frame.filename.endswith(end) for frame in frames)


def is_users_frame(frame: Frame) -> bool:
    """Return True if *frame* runs code that the user wrote."""
    return owner_of(frame.filename) is Owner.USER


def _is_users(task: TaskFacts | None, frames: tuple[Frame, ...]) -> bool:
    if task is not None and (not task.is_kernel or task.cell_in_it is not None):
        return True
    return any(owner_of(frame.filename) not in _NOT_USERS for frame in frames) or runs_cell(frames)


def _frames_of(stack: list[FrameType]) -> tuple[Frame, ...]:
    """Return *stack*, innermost first, as text, outermost first."""
    found, has_users = [], False
    for depth, frame in enumerate(stack):
        code = frame.f_code
        wants_span = depth == 0
        if not has_users and owner_of(code.co_filename) is Owner.USER:
            wants_span = has_users = True
        instruction = frame.f_lasti
        found.append(
            Frame(
                code.co_filename,
                code.co_qualname,
                frame.f_lineno or code.co_firstlineno,
                instruction,
                bool(code.co_flags & _COROUTINE),
                _cpython.span_of(code, instruction) if wants_span else None,
            )
        )
    return tuple(reversed(found))


def _inside_kernel(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Return the frames inside the innermost one that turns the loop. A loop in C has no frame itself."""
    turners = [index for index, frame in enumerate(frames) if frame.function.endswith(_TURNERS)]
    return frames[turners[-1] + 1 :] if turners else frames


#: Functions that call `run_forever` or `run_until_complete`: of asyncio, tornado and our terminal.
_TURNERS = ("BaseAsyncIOLoop.start", "Runner.run", "TerminalCells._run_on_loop", "AwaitRunner.__call__")
